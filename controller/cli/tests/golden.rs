//! Every command's output, from a daemon with stable answers, against files.
//!
//! `UPDATE_GOLDEN=1` writes the files anew; look at the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod stable;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use shunt_api::v1::shunt_server::{Shunt, ShuntServer};
use shunt_api::v1::{self, Flow, Neighbor, Route};
use stable::values::{count, flows, ready_switch, restart, table};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

struct Stable;

type Listing<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

fn listing<T>(items: Vec<T>) -> Result<Response<Listing<T>>, Status> {
    let items: Vec<_> = items.into_iter().map(Ok).collect();
    Ok(Response::new(tokio_stream::iter(items)))
}

/// As the daemon does, as far as these flows tell apart.
#[tonic::async_trait]
impl Shunt for Stable {
    type ListRoutesStream = Listing<Route>;
    type ListNeighborsStream = Listing<Neighbor>;
    type ListFlowsStream = Listing<Flow>;
    type DiffSwitchStream = Listing<v1::DiffSwitchResponse>;
    type ReconcileSwitchStream = Listing<v1::ReconcileSwitchResponse>;
    type ListConfigLogStream = Listing<v1::ConfigRevision>;
    type WaitConfigStream = Listing<v1::WaitConfigResponse>;
    type WatchTopStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::TopSample, Status>> + Send>>;

    async fn watch_top(
        &self,
        request: Request<v1::WatchTopRequest>,
    ) -> Result<Response<Self::WatchTopStream>, Status> {
        let request = request.into_inner();
        if request.interval_ms < 1_000 {
            return Err(Status::invalid_argument(
                "an interval of 10 ms is out of range",
            ));
        }
        let samples: Vec<_> = (1..=4)
            .map(|number| {
                let mut sample = stable::top::sample(number);
                sample.flows.truncate(request.flows as usize);
                Ok(sample)
            })
            .collect();
        // And then no more: the screen is still.
        let samples = tokio_stream::iter(samples).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(samples)))
    }

    async fn set_log_level(
        &self,
        request: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        stable::log_level(request.into_inner()).map(Response::new)
    }

    async fn get_config(
        &self,
        request: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::GetConfigResponse>, Status> {
        stable::get(request.into_inner().revision).map(Response::new)
    }

    async fn validate_config(
        &self,
        request: Request<v1::ValidateConfigRequest>,
    ) -> Result<Response<v1::ValidateConfigResponse>, Status> {
        Ok(Response::new(stable::faults(
            &request.into_inner().document,
        )))
    }

    async fn diff_config(
        &self,
        request: Request<v1::DiffConfigRequest>,
    ) -> Result<Response<v1::DiffConfigResponse>, Status> {
        Ok(Response::new(stable::diff(&request.into_inner())))
    }

    async fn change_config(
        &self,
        request: Request<v1::ChangeConfigRequest>,
    ) -> Result<Response<v1::ChangeConfigResponse>, Status> {
        stable::changed(request.into_inner()).map(Response::new)
    }

    async fn list_config_log(
        &self,
        request: Request<v1::ListConfigLogRequest>,
    ) -> Result<Response<Self::ListConfigLogStream>, Status> {
        listing(stable::log(&request.into_inner()))
    }

    async fn wait_config(
        &self,
        request: Request<v1::WaitConfigRequest>,
    ) -> Result<Response<Self::WaitConfigStream>, Status> {
        listing(stable::wait(&request.into_inner()))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(v1::GetStatusResponse {
            version: "9.8.7".to_owned(),
            uptime_seconds: 3_725,
            converged: true,
            problems: vec!["interface green cannot send".to_owned()],
            switch: Some(ready_switch()),
            switches: vec![ready_switch()],
            mirror: Some(v1::MirrorStatus {
                synchronised: true,
                routes: 28,
                neighbors: 6,
                nexthops: 6,
                batches: 11,
                overruns: 0,
                resyncs: 3,
            }),
            slow_path: Some(v1::SlowPathStatus {
                device: "sp0".to_owned(),
                connections: 2,
                connections_max: 65_536,
                rx_packets: 33,
                rx_bytes: 4_000,
                tx_packets: 59,
                tx_bytes: 70_000,
                punts: vec![count("flow_miss", 18), count("arp", 0)],
                drops: vec![count("unreachable", 3)],
                states: vec![count("established", 1)],
                nat_leases: 2,
            }),
            offload: Some(v1::OffloadSummary {
                enabled: true,
                installed: 1,
                pending: 0,
            }),
            restart: Some(restart("entries")),
        }))
    }

    async fn list_vpcs(
        &self,
        request: Request<v1::ListVpcsRequest>,
    ) -> Result<Response<v1::ListVpcsResponse>, Status> {
        let wanted = request.into_inner().vpc;
        Ok(Response::new(v1::ListVpcsResponse {
            vpcs: stable::kept(
                &[(&wanted, "red")],
                v1::Vpc {
                    name: "red".to_owned(),
                    id: 1,
                    table: 101,
                    stateless: false,
                    interfaces: vec!["red".to_owned(), "red2".to_owned()],
                    routes: 4,
                },
            ),
        }))
    }

    async fn list_interfaces(
        &self,
        request: Request<v1::ListInterfacesRequest>,
    ) -> Result<Response<v1::ListInterfacesResponse>, Status> {
        let asked = request.into_inner();
        let mut all = stable::interfaces();
        all.interfaces.retain(|found| {
            let fields = [
                (&asked.interface, &*found.name),
                (&asked.vpc, &found.vpc),
                (&asked.switch, &found.switch),
                (&asked.state, &found.state),
            ];
            !stable::kept(&fields, ()).is_empty()
        });
        Ok(Response::new(all))
    }

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<Self::ListRoutesStream>, Status> {
        let asked = request.into_inner();
        if asked.vpc == "redd" {
            return Err(Status::not_found(
                "there is no VPC named \"redd\" (known: red)",
            ));
        }
        let path = |gateway: &str, weight| v1::Path {
            interface: "wan".to_owned(),
            gateway: gateway.to_owned(),
            weight,
        };
        let fields = [
            (&asked.vpc, "red"),
            (&asked.interface, "wan"),
            (&asked.prefix, "192.0.0.0/8"),
            (&asked.covers, "192.0.2.80"),
            (&asked.kind, "unicast"),
            (&asked.protocol, "bgp"),
        ];
        listing(stable::kept(
            &fields,
            Route {
                vpc: "red".to_owned(),
                prefix: "192.0.2.0/24".to_owned(),
                kind: "unicast".to_owned(),
                paths: vec![path("203.0.113.2", 1), path("203.0.113.3", 2)],
                protocol: "bgp".to_owned(),
                metric: 20,
                mtu: 1300,
            },
        ))
    }

    async fn list_neighbors(
        &self,
        request: Request<v1::ListNeighborsRequest>,
    ) -> Result<Response<Self::ListNeighborsStream>, Status> {
        let asked = request.into_inner();
        let fields = [
            (&asked.interface, "wan"),
            (&asked.vpc, "wan"),
            (&asked.prefix, "203.0.113.0/24"),
            (&asked.state, "reachable"),
        ];
        listing(stable::kept(
            &fields,
            Neighbor {
                interface: "wan".to_owned(),
                vpc: "wan".to_owned(),
                address: "203.0.113.2".to_owned(),
                mac: "02:00:00:00:00:99".to_owned(),
                state: "reachable".to_owned(),
            },
        ))
    }

    async fn list_flows(
        &self,
        request: Request<v1::ListFlowsRequest>,
    ) -> Result<Response<Self::ListFlowsStream>, Status> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        let mut flows = flows();
        flows.retain(|flow| stable::wanted(flow, &filter));
        if request.limit > 0 {
            flows.truncate(request.limit as usize);
        }
        listing(flows)
    }

    async fn delete_flows(
        &self,
        request: Request<v1::DeleteFlowsRequest>,
    ) -> Result<Response<v1::DeleteFlowsResponse>, Status> {
        let request = request.into_inner();
        let filter = request.filter.unwrap_or_default();
        if !request.all && filter == v1::FlowFilter::default() {
            return Err(Status::invalid_argument("say which connections"));
        }
        let deleted = flows()
            .iter()
            .filter(|flow| stable::wanted(flow, &filter))
            .count() as u64;
        Ok(Response::new(v1::DeleteFlowsResponse { deleted }))
    }

    async fn list_nat(
        &self,
        request: Request<v1::ListNatRequest>,
    ) -> Result<Response<v1::ListNatResponse>, Status> {
        let asked = request.into_inner();
        let mut all = stable::nat_pools();
        all.pools.retain(|pool| {
            let fields = [(&asked.rule, &*pool.rule), (&asked.vpc, &pool.vpc)];
            !stable::kept(&fields, ()).is_empty()
        });
        Ok(Response::new(all))
    }

    async fn list_nat_rules(
        &self,
        request: Request<v1::ListNatRulesRequest>,
    ) -> Result<Response<v1::ListNatRulesResponse>, Status> {
        let asked = request.into_inner();
        let mut all = stable::nat_rules();
        all.rules.retain(|rule| {
            let fields = [(&asked.kind, &*rule.kind), (&asked.vpc, &rule.vpc)];
            !stable::kept(&fields, ()).is_empty()
        });
        Ok(Response::new(all))
    }

    async fn trace_packet(
        &self,
        request: Request<v1::TracePacketRequest>,
    ) -> Result<Response<v1::TracePacketResponse>, Status> {
        Ok(Response::new(stable::trace(request.into_inner())))
    }

    async fn list_switches(
        &self,
        request: Request<v1::ListSwitchesRequest>,
    ) -> Result<Response<v1::ListSwitchesResponse>, Status> {
        let away = v1::SwitchStatus {
            name: "sw2".to_owned(),
            address: "192.0.2.7:9559".to_owned(),
            state: "connecting".to_owned(),
            role: "none".to_owned(),
            pending: 75,
            sessions: 4,
            last_error: "it has not answered for 10 s".to_owned(),
            ..ready_switch()
        };
        let wanted = request.into_inner().switch;
        let mut switches = vec![ready_switch(), away];
        switches.retain(|found| !stable::kept(&[(&wanted, &*found.name)], ()).is_empty());
        Ok(Response::new(v1::ListSwitchesResponse { switches }))
    }

    async fn diff_switch(
        &self,
        request: Request<v1::DiffSwitchRequest>,
    ) -> Result<Response<Self::DiffSwitchStream>, Status> {
        let summary = |switch: &str, differences, others| v1::DiffSummary {
            switch: switch.to_owned(),
            wanted: 75,
            held: 75,
            differences,
            others,
            error: String::new(),
        };
        match request.into_inner().switch.as_str() {
            "" => listing(stable::switches::compared(
                summary("sw1", 4, 2),
                stable::switches::differences(),
            )),
            "same" => listing(stable::switches::compared(
                summary("same", 0, 0),
                Vec::new(),
            )),
            "away" => {
                let error = "switch away is connecting: it has not answered for 10 s; \
                             try again when it is ready";
                let summary = v1::DiffSummary {
                    error: error.to_owned(),
                    ..Default::default()
                };
                listing(stable::switches::compared(summary, Vec::new()))
            }
            name => Err(Status::not_found(format!(
                "there is no switch named {name:?} (known: sw1)"
            ))),
        }
    }

    async fn reconcile_switch(
        &self,
        _: Request<v1::ReconcileSwitchRequest>,
    ) -> Result<Response<Self::ReconcileSwitchStream>, Status> {
        let refusal = "insert route4 vpc=1 dst=10.0.0.0/24 -> to_nexthop(nexthop=3): \
                       table full (code 8); tried again in 200ms";
        listing(vec![
            v1::ReconcileSwitchResponse {
                switch: "sw1".to_owned(),
                wanted: 75,
                found: vec![count("missing", 1), count("surplus", 2)],
                left: 1,
                refused: 2,
                refusals: vec![refusal.to_owned()],
                others: 0,
                error: String::new(),
            },
            v1::ReconcileSwitchResponse {
                switch: "sw2".to_owned(),
                wanted: 75,
                ..Default::default()
            },
        ])
    }

    async fn get_offload(
        &self,
        _: Request<v1::GetOffloadRequest>,
    ) -> Result<Response<v1::GetOffloadResponse>, Status> {
        let latency = |p50_us| {
            Some(v1::Latency {
                count: 204,
                p50_us,
                p90_us: p50_us * 2,
                p99_us: p50_us * 5,
                p999_us: p50_us * 7,
                max_us: p50_us * 9,
                mean_us: p50_us + 3,
            })
        };
        let stages = |queued, batched, on_wire| {
            Some(v1::StageLatencies {
                queued: latency(queued),
                batched: latency(batched),
                on_wire: latency(on_wire),
                total: latency(queued + batched + on_wire),
            })
        };
        let vpc_share = |connections| v1::OffloadShare {
            vpc: "red".to_owned(),
            connections,
            max: 5_000,
        };
        let first = v1::SwitchOffload {
            switch: "sw1".to_owned(),
            state: "up".to_owned(),
            connections_offloaded: 1,
            connections_installed: 204,
            connections_refused: 2,
            connections_evicted: 3,
            connections_removed: 201,
            latency: Some(v1::Latencies {
                install: stages(87, 100, 1_926),
                removal: stages(12, 45, 640),
                first_packet_to_acknowledged: latency(10_814),
            }),
            tables: vec![table("flow4", 2, 1_048_576), table("flow6", 0, u64::MAX)],
            shares: vec![vpc_share(1)],
            ..Default::default()
        };
        let second = v1::SwitchOffload {
            switch: "sw2".to_owned(),
            state: "held".to_owned(),
            tables: vec![table("flow4", 0, 1_048_576), table("flow6", 0, u64::MAX)],
            shares: vec![vpc_share(0)],
            ..Default::default()
        };
        Ok(Response::new(v1::GetOffloadResponse {
            enabled: true,
            connections_offloaded: 1,
            connections_pending: 0,
            connections_installed: 204,
            connections_refused: 9,
            connections_removed: 201,
            connections_lost: 0,
            refusals: vec![count("table_full", 2), count("across_switches", 7)],
            counts: vec![count("batches", 99), count("idle_reports", 12)],
            latency: None,
            tables: vec![table("flow4", 2, 2_097_152), table("flow6", 0, u64::MAX)],
            connections_evicted: 3,
            evictions: vec![count("table_full", 1), count("vpc_share", 2)],
            shares: vec![v1::OffloadShare {
                max: 10_000,
                ..vpc_share(1)
            }],
            switches: vec![first, second],
            problems: vec!["the switch's table flow4 has been full for 12s".to_owned()],
            restart: Some(restart("done")),
        }))
    }
}

fn shunt(socket: &Path, arguments: &[&str]) -> Output {
    shunt_in(Path::new("."), socket, arguments)
}

fn shunt_in(folder: &Path, socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shunt"))
        .current_dir(folder)
        .env_remove("SHUNT_SOCKET")
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .output()
        .unwrap()
}

/// Compares with the file of that name, or writes it.
fn golden(name: &str, output: &Output, faults: &mut Vec<String>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let said = format!(
        "{}{}# exit {}\n",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code().unwrap()
    )
    .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, said).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if said != expected {
        faults.push(format!("{name}\n--- expected\n{expected}--- got\n{said}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_prints_what_its_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("shuntd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(ShuntServer::new(Stable))
        .serve_with_incoming(UnixListenerStream::new(listener));
    let server = tokio::spawn(server);

    let faults = tokio::task::spawn_blocking(move || {
        let mut faults = Vec::new();
        let nouns = [
            "status",
            "vpc",
            "interfaces",
            "routes",
            "neighbors",
            "flows",
            "nat",
            "nat rules",
            "offload",
            "switch",
            "switch diff",
            "switch reconcile",
            "version",
        ];
        for noun in nouns {
            for format in ["table", "json", "jsonl"] {
                let words = noun.split(' ').chain(["--output", format]);
                let output = shunt(&socket, &words.collect::<Vec<_>>());
                let name = noun.replace(' ', "-");
                golden(&format!("{name}.{format}"), &output, &mut faults);
                let text = String::from_utf8_lossy(&output.stdout);
                match format {
                    "json" => {
                        serde_json::from_str::<serde_json::Value>(&text).unwrap();
                    }
                    "jsonl" => {
                        for line in text.lines() {
                            serde_json::from_str::<serde_json::Value>(line).unwrap();
                        }
                    }
                    _ => {}
                }
            }
        }
        let filtered = shunt(&socket, &["flows", "--vpc", "red", "--offloaded", "true"]);
        golden("flows-red-offloaded.table", &filtered, &mut faults);
        let every = "flows --prefix 10.0.0.2 --port 80 --protocol tcp --state tcp_established \
                     --min-age 3m --limit 1";
        let filtered = shunt(&socket, &every.split(' ').collect::<Vec<_>>());
        golden("flows-every-filter.table", &filtered, &mut faults);
        for (name, words) in [
            ("one", "--vpc red"),
            ("all", "--all"),
            ("none", ""),
            ("both", "--all --vpc red"),
            ("port", "--port 65536"),
        ] {
            let words = ["flows", "delete"]
                .into_iter()
                .chain(words.split_whitespace());
            let output = shunt(&socket, &words.collect::<Vec<_>>());
            golden(&format!("flows-delete-{name}.table"), &output, &mut faults);
        }
        let output = shunt(&socket, &["flows", "delete", "--all", "-o", "json"]);
        golden("flows-delete.json", &output, &mut faults);
        let output = shunt(
            &socket,
            &["flows", "--vpc", "red", "delete", "--port", "80"],
        );
        golden("flows-misplaced.table", &output, &mut faults);
        let output = shunt(&socket, &["nat", "--addresses"]);
        golden("nat-addresses.table", &output, &mut faults);
        let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
        for (name, words) in [
            (
                "tcp",
                "--interface red tcp 10.0.0.2:1234 192.0.2.80:443 --flags SA --ttl 3 --length 100",
            ),
            (
                "udp",
                "--interface red udp [2001:db8::2]:1 [2001:db8::1]:53",
            ),
            (
                "icmp",
                "--interface red icmp 10.0.0.2 192.0.2.80 --id 7 --reply",
            ),
            (
                "software",
                "--interface red udp 10.0.0.2:1 10.0.0.3:2 --software",
            ),
            ("noport", "--interface red tcp 10.0.0.2 192.0.2.80:443"),
            ("icmpport", "--interface red icmp 10.0.0.2:1 192.0.2.80"),
            ("incomplete", "--interface red tcp 10.0.0.2:1"),
            ("pcap", "--interface red --pcap two.pcap --frame 2"),
            ("pcapng", "--interface red --pcap two.pcapng"),
            ("pcap3", "--interface red --pcap two.pcap --frame 3"),
            ("pcaplink", "--interface red --pcap raw.pcap"),
            ("nopcap", "--interface red --pcap no.pcap"),
            ("pcapboth", "--pcap two.pcap tcp 10.0.0.2:1 10.0.0.3:2"),
        ] {
            let words = ["trace", "packet"].into_iter().chain(words.split(' '));
            let words: Vec<_> = words.collect();
            let output = shunt_in(&captures, &socket, &words);
            golden(&format!("trace-{name}.table"), &output, &mut faults);
        }
        let words = "trace packet --interface red udp 10.0.0.2:1 10.0.0.3:2 -o json";
        let output = shunt(&socket, &words.split(' ').collect::<Vec<_>>());
        golden("trace.json", &output, &mut faults);
        for (name, words) in [
            (
                "routes-every-filter",
                "routes --vpc red --interface wan --prefix 192.0.0.0/8 --covers 192.0.2.80 --kind unicast --protocol bgp",
            ),
            (
                "neighbors-every-filter",
                "neighbors --interface wan --vpc wan --prefix 203.0.113.0/24 --state reachable",
            ),
            (
                "interfaces-every-filter",
                "interfaces blue --vpc blue --switch sw1 --state up",
            ),
            ("vpc-red", "vpc red"),
            ("vpc-blue", "vpc blue"),
            ("neighbors-other", "neighbors --state stale"),
            ("nat-every-filter", "nat --rule red-out --vpc red"),
            (
                "nat-rules-every-filter",
                "nat rules --vpc red --kind masquerade",
            ),
            ("switch-sw1", "switch --name sw1"),
            ("watch-zero", "status --watch 0"),
            ("watch-config", "config log --watch"),
        ] {
            let output = shunt(&socket, &words.split(' ').collect::<Vec<_>>());
            golden(&format!("{name}.table"), &output, &mut faults);
        }
        let unknown = shunt(&socket, &["routes", "--vpc", "redd"]);
        golden("routes-unknown.table", &unknown, &mut faults);
        for name in ["same", "away", "sw9"] {
            let output = shunt(&socket, &["switch", "diff", name]);
            golden(&format!("switch-diff-{name}.table"), &output, &mut faults);
        }
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
        for (name, words) in stable::COMMANDS {
            let words = [&["config"], words].concat();
            let output = shunt_in(&documents, &socket, &words);
            golden(&format!("config-{name}"), &output, &mut faults);
        }
        for list in stable::LISTS {
            for format in ["table", "json", "jsonl"] {
                let words = ["config"].into_iter().chain(list.split(' '));
                let words: Vec<_> = words.chain(["-o", format]).collect();
                let name = list.replace(" --", "-").replace(' ', "-");
                let output = shunt(&socket, &words);
                golden(&format!("config-{name}.{format}"), &output, &mut faults);
            }
        }
        for (name, words) in stable::LOG {
            golden(&format!("log{name}"), &shunt(&socket, words), &mut faults);
        }
        for (name, words) in [
            ("once.table", "--once"),
            ("once.json", "--once -o json --flows 1"),
            ("once.jsonl", "--once -o jsonl"),
            ("no-terminal.table", ""),
            ("interval.table", "--once --interval 10ms"),
            ("flows.table", "--once --flows 101"),
        ] {
            let words = ["top"].into_iter().chain(words.split_whitespace());
            let output = shunt(&socket, &words.collect::<Vec<_>>());
            golden(&format!("top-{name}"), &output, &mut faults);
        }
        let help = shunt(&socket, &["--help"]);
        golden("help.txt", &help, &mut faults);
        faults
    });
    let faults = faults.await.unwrap();
    server.abort();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
