//! Requests that no client of ours sends: each is refused by the daemon with a code and words that
//! say what is wrong and what would be right, and none of them changes anything.

use shunt_api::v1::change_config_request::Edit;
use shunt_api::v1::trace_packet_request::Packet;
use shunt_api::v1::{self, FlowFilter, PacketDescription};
use shunt_testbed::Error;
use tonic::{Code, Status};

use crate::lab;

/// Longer than any name; an answer that quoted it whole would not fit a gRPC status.
fn long() -> String {
    "x".repeat(100_000)
}

/// What is wrong with an answer.
fn fault(answer: Option<Status>, code: Code, words: &[&str]) -> Option<String> {
    let Some(status) = answer else {
        return Some("it was accepted".to_owned());
    };
    let said = status.message();
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    (status.code() != code || !missing.is_empty() || said.len() > 4_096).then(|| {
        let said: String = said.chars().take(500).collect();
        format!(
            "{:?} {said:?}, wanted {code:?} with {missing:?}",
            status.code()
        )
    })
}

fn filter(change: impl FnOnce(&mut FlowFilter)) -> FlowFilter {
    let mut filter = FlowFilter::default();
    change(&mut filter);
    filter
}

fn description(change: impl FnOnce(&mut PacketDescription)) -> PacketDescription {
    let mut packet = PacketDescription {
        protocol: "tcp".into(),
        source: "10.0.0.2".into(),
        source_port: 1234,
        destination: "192.0.2.80".into(),
        destination_port: 443,
        ..Default::default()
    };
    change(&mut packet);
    packet
}

fn trace(interface: &str, packet: Option<Packet>) -> v1::TracePacketRequest {
    v1::TracePacketRequest {
        interface: interface.into(),
        packet,
    }
}

fn change(base: u64, edit: Option<Edit>) -> v1::ChangeConfigRequest {
    v1::ChangeConfigRequest {
        base,
        edit,
        ..Default::default()
    }
}

fn set(path: &str, value: &str) -> Option<Edit> {
    Some(Edit::Set(v1::ConfigSet {
        path: path.into(),
        value: value.into(),
    }))
}

fn remove(path: &str) -> Option<Edit> {
    Some(Edit::Remove(v1::ConfigRemove {
        path: path.into(),
        cascade: false,
    }))
}

#[allow(clippy::too_many_lines, reason = "a table")]
async fn ask(socket: &std::path::Path) -> (usize, Vec<String>) {
    let mut daemon = shunt_api::connect(&shunt_api::Target::Socket(socket.to_owned()))
        .await
        .unwrap();
    let mut faults = Vec::new();
    let mut asked = 0;
    macro_rules! refused {
        ($rpc:ident, $request:expr, $code:ident, $($word:expr),*) => {{
            let request = $request;
            let shown: String = format!("{request:?}").chars().take(200).collect();
            let answer = daemon.$rpc(request).await.err();
            asked += 1;
            if let Some(fault) = fault(answer, Code::$code, &[$($word),*]) {
                faults.push(format!("{} {shown}: {fault}", stringify!($rpc)));
            }
        }};
    }
    let long = long();

    // Names that there are not, and names that cannot be.
    for name in ["redd", "RED", " red", "r\u{e9}d\n", "\0", &long] {
        let vpc = || name.to_owned();
        refused!(
            list_vpcs,
            v1::ListVpcsRequest { vpc: vpc() },
            NotFound,
            "no VPC named",
            "known: red"
        );
        let request = v1::ListRoutesRequest {
            vpc: vpc(),
            ..Default::default()
        };
        refused!(list_routes, request, NotFound, "no VPC named", "known: red");
        let request = v1::ListFlowsRequest {
            filter: Some(filter(|filter| filter.vpc = vpc())),
            limit: 0,
        };
        refused!(list_flows, request, NotFound, "no VPC named", "known: red");
        let request = v1::ListSwitchesRequest {
            switch: name.into(),
        };
        refused!(
            list_switches,
            request,
            NotFound,
            "no switch named",
            "known: sw1"
        );
        let request = trace(name, Some(Packet::Frame(vec![0; 60])));
        refused!(
            trace_packet,
            request,
            NotFound,
            "no interface named",
            "known: red"
        );
    }
    let nobody = || "nobody".to_owned();
    let request = v1::ListInterfacesRequest {
        interface: nobody(),
        ..Default::default()
    };
    refused!(
        list_interfaces,
        request,
        NotFound,
        "no interface named",
        "known: red"
    );
    let request = v1::ListInterfacesRequest {
        vpc: nobody(),
        ..Default::default()
    };
    refused!(list_interfaces, request, NotFound, "no VPC named");
    let request = v1::ListInterfacesRequest {
        switch: nobody(),
        ..Default::default()
    };
    refused!(list_interfaces, request, NotFound, "no switch named", "sw1");
    let request = v1::ListInterfacesRequest {
        state: nobody(),
        ..Default::default()
    };
    refused!(
        list_interfaces,
        request,
        InvalidArgument,
        "state of interfaces",
        "up, down"
    );
    let request = v1::ListRoutesRequest {
        interface: nobody(),
        ..Default::default()
    };
    refused!(list_routes, request, NotFound, "no interface named");
    let request = v1::ListRoutesRequest {
        kind: nobody(),
        ..Default::default()
    };
    refused!(
        list_routes,
        request,
        InvalidArgument,
        "unicast, local, blackhole"
    );
    for wrong in [
        "10.0.0.0/33",
        "10.0.0",
        "::/129",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        &long,
    ] {
        let request = v1::ListRoutesRequest {
            prefix: wrong.into(),
            ..Default::default()
        };
        refused!(
            list_routes,
            request,
            InvalidArgument,
            "is no prefix",
            "10.0.0.0/8"
        );
        let request = v1::ListNeighborsRequest {
            prefix: wrong.into(),
            ..Default::default()
        };
        refused!(
            list_neighbors,
            request,
            InvalidArgument,
            "is no prefix",
            "10.0.0.0/8"
        );
    }
    for wrong in ["10.0.0.0/8", "300.0.0.1", "::g", &long] {
        let request = v1::ListRoutesRequest {
            covers: wrong.into(),
            ..Default::default()
        };
        refused!(
            list_routes,
            request,
            InvalidArgument,
            "is no address",
            "10.0.0.1"
        );
    }
    let request = v1::ListNeighborsRequest {
        interface: nobody(),
        ..Default::default()
    };
    refused!(
        list_neighbors,
        request,
        NotFound,
        "no interface named",
        "known: red"
    );
    let request = v1::ListNeighborsRequest {
        vpc: nobody(),
        ..Default::default()
    };
    refused!(list_neighbors, request, NotFound, "no VPC named");
    let request = v1::ListNeighborsRequest {
        state: "REACHABLE".into(),
        ..Default::default()
    };
    refused!(list_neighbors, request, InvalidArgument, "reachable, stale");
    let request = v1::ListNatRequest {
        rule: nobody(),
        ..Default::default()
    };
    refused!(
        list_nat,
        request,
        NotFound,
        "no masquerade named",
        "red-out"
    );
    let request = v1::ListNatRequest {
        vpc: nobody(),
        ..Default::default()
    };
    refused!(list_nat, request, NotFound, "no VPC named");
    let request = v1::ListNatRulesRequest {
        kind: "dnat".into(),
        ..Default::default()
    };
    refused!(
        list_nat_rules,
        request,
        InvalidArgument,
        "masquerade, static"
    );
    let request = v1::ListNatRulesRequest {
        vpc: nobody(),
        ..Default::default()
    };
    refused!(list_nat_rules, request, NotFound, "no VPC named");
    refused!(
        diff_switch,
        v1::DiffSwitchRequest { switch: nobody() },
        NotFound,
        "known: sw1"
    );
    let request = v1::ReconcileSwitchRequest {
        switch: long.clone(),
    };
    refused!(reconcile_switch, request, NotFound, "known: sw1");

    // Flows.
    type Change = fn(&mut FlowFilter);
    let cases: [(Change, &str); 6] = [
        (|filter| filter.port = Some(65_536), "0 to 65535"),
        (|filter| filter.port = Some(u32::MAX), "0 to 65535"),
        (
            |filter| filter.protocol = "sctp".into(),
            "tcp, udp, icmp, icmpv6",
        ),
        (
            |filter| filter.protocol = "6".into(),
            "tcp, udp, icmp, icmpv6",
        ),
        (|filter| filter.state = "open".into(), "tcp_established"),
        (|filter| filter.prefix = "red".into(), "10.0.0.0/8"),
    ];
    for (change, word) in cases {
        let filter = Some(filter(change));
        let request = v1::ListFlowsRequest {
            filter: filter.clone(),
            limit: 1,
        };
        refused!(list_flows, request, InvalidArgument, word);
        let request = v1::DeleteFlowsRequest { filter, all: false };
        refused!(delete_flows, request, InvalidArgument, word);
    }
    let long_state = Some(filter(|filter| filter.state = "x".repeat(100_000)));
    let request = v1::ListFlowsRequest {
        filter: long_state,
        limit: 1,
    };
    refused!(list_flows, request, InvalidArgument, "tcp_established");
    refused!(
        delete_flows,
        v1::DeleteFlowsRequest::default(),
        InvalidArgument,
        "or all"
    );
    let red = Some(filter(|filter| filter.vpc = "red".into()));
    let request = v1::DeleteFlowsRequest {
        filter: red,
        all: true,
    };
    refused!(delete_flows, request, InvalidArgument, "not both");

    // Packets.
    refused!(
        trace_packet,
        trace("red", None),
        InvalidArgument,
        "a frame or a description"
    );
    let frame = || Some(Packet::Frame(vec![0; 60]));
    refused!(
        trace_packet,
        trace("", frame()),
        InvalidArgument,
        "which interface"
    );
    let request = trace("red", Some(Packet::Frame(vec![0; 20_000])));
    refused!(
        trace_packet,
        request,
        InvalidArgument,
        "20000 bytes",
        "at most"
    );
    type Describe = fn(&mut PacketDescription);
    let cases: [(Describe, &str); 16] = [
        (|packet| packet.protocol = "sctp".into(), "tcp, udp, icmp"),
        (|packet| packet.protocol = String::new(), "tcp, udp, icmp"),
        (
            |packet| packet.protocol = "x".repeat(100_000),
            "tcp, udp, icmp",
        ),
        (|packet| packet.source = "red".into(), "no IP address"),
        (
            |packet| packet.source = "10.0.0.2:1".into(),
            "no IP address",
        ),
        (|packet| packet.destination = String::new(), "no IP address"),
        (
            |packet| packet.destination = "x".repeat(100_000),
            "no IP address",
        ),
        (
            |packet| packet.destination = "2001:db8::1".into(),
            "families",
        ),
        (|packet| packet.source_port = 65_536, "0 to 65535"),
        (|packet| packet.destination_port = u32::MAX, "0 to 65535"),
        (|packet| packet.flags = "SX".into(), "letters of S"),
        (|packet| packet.flags = "syn".into(), "letters of S"),
        (|packet| packet.ttl = Some(256), "0 to 255"),
        (|packet| packet.length = 39, "40 (its headers)"),
        (|packet| packet.length = 9_001, "to 9000"),
        (
            |packet| {
                packet.protocol = "icmp".into();
                packet.identifier = 65_536;
            },
            "0 to 65535",
        ),
    ];
    for (change, word) in cases {
        let request = trace("red", Some(Packet::Description(description(change))));
        refused!(trace_packet, request, InvalidArgument, word);
    }

    // The configuration.
    let newest = daemon
        .get_config(v1::GetConfigRequest::default())
        .await
        .unwrap();
    let newest = newest.into_inner().newest;
    for revision in [newest + 1, u64::MAX] {
        let request = v1::GetConfigRequest { revision };
        refused!(get_config, request, NotFound, "no revision", "newest is 1");
        let request = v1::WaitConfigRequest {
            revision,
            patience_ms: 1,
        };
        refused!(wait_config, request, NotFound, "no revision", "newest is 1");
        let request = v1::DiffConfigRequest {
            from: revision,
            ..Default::default()
        };
        refused!(diff_config, request, NotFound, "no revision");
        let request = v1::DiffConfigRequest {
            to: revision,
            ..Default::default()
        };
        refused!(diff_config, request, NotFound, "no revision");
        let request = change(newest, Some(Edit::Rewind(revision)));
        refused!(change_config, request, NotFound, "no revision");
        let request = change(revision, set("limits.hold_timeout", "3s"));
        refused!(
            change_config,
            request,
            Aborted,
            "was there first",
            "config diff"
        );
    }
    let document = |document: &str| v1::DiffConfigRequest {
        document: Some(document.into()),
        ..Default::default()
    };
    refused!(diff_config, document("= 1"), InvalidArgument, "line 1");
    refused!(
        diff_config,
        document(&"[".repeat(100_000)),
        InvalidArgument,
        "line 1"
    );
    let request = v1::DiffConfigRequest {
        to: 1,
        document: Some(String::new()),
        ..Default::default()
    };
    refused!(diff_config, request, InvalidArgument, "either");
    refused!(
        change_config,
        change(newest, None),
        InvalidArgument,
        "no change in it"
    );
    refused!(
        change_config,
        change(0, set("vpc.red.weight", "2")),
        InvalidArgument,
        "base"
    );
    refused!(
        change_config,
        change(newest, Some(Edit::Rewind(0))),
        InvalidArgument,
        "which revision"
    );
    for (text, word) in [
        ("", "switch"),
        ("]", "line 1"),
        ("[limits]\nhold_timeout = 3\n", "line 2"),
        ("[nonsense]\n", "nonsense"),
        ("\0", "line 1"),
    ] {
        let request = change(newest, Some(Edit::Document(text.into())));
        refused!(change_config, request, InvalidArgument, word);
    }
    for (path, value, word) in [
        ("", "1", "path"),
        (".", "1", "path"),
        ("vpc", "1", "vpc"),
        ("vpc.redd.weight", "2", "redd"),
        ("vpc.red.weight", "0", "weight"),
        ("vpc.red.weight", "heavy", "weight"),
        ("vpc.red.nonsense", "1", "nonsense"),
        ("interface.red.vpc", "redd", "redd"),
        ("interface.red.port", "70000", "port"),
        (&long, "1", "path"),
        ("vpc.red.weight", &long, "weight"),
    ] {
        let request = change(newest, set(path, value));
        refused!(change_config, request, InvalidArgument, word);
    }
    for (path, code_words) in [("vpc.redd", "redd"), ("", "path"), ("nonsense", "nonsense")] {
        refused!(
            change_config,
            change(newest, remove(path)),
            InvalidArgument,
            code_words
        );
    }
    refused!(
        change_config,
        change(newest, remove("vpc.red")),
        FailedPrecondition,
        "interface.red",
        "cascade"
    );
    let huge = change(newest, Some(Edit::Document(" ".repeat(5 << 20))));
    refused!(change_config, huge, OutOfRange, "too large");

    // The log, and rates.
    for level in ["loud", "info,loud", "info,=", "info,shunt=loud", &long] {
        let request = v1::SetLogLevelRequest {
            level: level.into(),
        };
        refused!(set_log_level, request, InvalidArgument, "no log level");
    }
    for (interval_ms, flows, word) in [
        (1, 0, "1000 to 3600000"),
        (999, 0, "1000 to 3600000"),
        (u32::MAX, 0, "1000 to 3600000"),
        (0, 101, "at most 100"),
        (0, u32::MAX, "at most 100"),
    ] {
        let request = v1::WatchTopRequest { interval_ms, flows };
        refused!(watch_top, request, InvalidArgument, word);
    }
    (asked, faults)
}

#[test]
fn each_is_refused_in_words_that_help() {
    lab::run(
        "malformed::each_is_refused_in_words_that_help",
        |text| text,
        |lab| {
            let runtime = tokio::runtime::Runtime::new().map_err(Error::file("tokio"))?;
            let before = lab.run_shunt(&["config", "show"])?;
            let (asked, faults) = runtime.block_on(ask(&lab.topology.socket()));
            assert!(
                faults.is_empty(),
                "{} of {asked}:\n{}",
                faults.len(),
                faults.join("\n")
            );
            assert!(asked > 120, "{asked}");
            assert_eq!(lab.run_shunt(&["config", "show"])?, before);
            assert_eq!(lab.problems()?, Vec::<String>::new());
            Ok(())
        },
    );
}
