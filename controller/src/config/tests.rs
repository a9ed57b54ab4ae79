//! The good document, and one test for every fault of a bad one.

use super::document::ApiTlsSection;
use super::*;

const GOOD: &str = include_str!("testdata/good.toml");

pub(crate) fn good() -> Document {
    toml::from_str(GOOD).unwrap()
}

/// The faults of the good document after `edit`, one a line.
fn faults(edit: impl FnOnce(&mut Document)) -> String {
    let mut document = good();
    edit(&mut document);
    match validate(&document) {
        Ok(_) => "none".to_owned(),
        Err(faults) => faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// Asserts that the edit leads to exactly one fault, and which.
#[track_caller]
pub(super) fn fault(expected: &str, edit: impl FnOnce(&mut Document)) {
    assert_eq!(faults(edit), expected);
}

#[test]
fn the_good_document_is_good_and_round_trips() {
    let config = validate(&good()).unwrap();
    let names: Vec<&str> = config
        .interfaces
        .iter()
        .map(|i| i.interface.name.as_str())
        .collect();
    assert_eq!(names, ["red", "blue", "fabric", "wan", "green", "both"]);
    let green = config
        .interface(shunt_p4::InterfaceId::new(5).unwrap())
        .unwrap();
    assert_eq!((green.interface.mtu, green.interface.port.get()), (1450, 3));
    assert_eq!(green.tap, "sh-green");
    assert!(matches!(
        green.interface.encap,
        shunt_p4::Encap::Vxlan { .. }
    ));
    assert_eq!(config.punt_meters.len(), shunt_p4::PuntReason::ALL.len());

    let written = toml::to_string(&good()).unwrap();
    assert_eq!(toml::from_str::<Document>(&written).unwrap(), good());
}

/// What comes with the package.
#[test]
fn the_examples_are_good() {
    for (name, text) in [
        (
            "laptop",
            include_str!("../../packaging/examples/laptop.toml"),
        ),
        ("bmv2", include_str!("../../packaging/examples/bmv2.toml")),
        (
            "switch",
            include_str!("../../packaging/examples/switch.toml"),
        ),
        (
            "two-switches",
            include_str!("../../packaging/examples/two-switches.toml"),
        ),
    ] {
        let document: Document = toml::from_str(text).unwrap();
        assert_eq!(validate(&document).err(), None, "{name}");
    }
}

#[test]
fn nat_addresses_of_a_link_are_found() {
    let config = validate(&good()).unwrap();
    let wan = config
        .interface(shunt_p4::InterfaceId::new(4).unwrap())
        .unwrap();
    let found: Vec<String> = config
        .nat_addresses_on(&wan.interface)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "203.0.113.10",
            "203.0.113.11",
            "203.0.113.16",
            "203.0.113.17",
            "203.0.113.30"
        ]
    );
}

#[test]
fn every_fault_is_named_at_once() {
    let text = faults(|d| {
        d.interface[0].vpc = "redd".into();
        d.interface[1].vlan = Some(4095);
        d.masquerade[0].ports = "0".into();
    });
    assert_eq!(
        text,
        "interface[0].vpc: no VPC named \"redd\" (known: red, blue, green, wan)\n\
         interface[1].vlan: VLAN id \"4095\" is not a number from 1 to 4094\n\
         masquerade[0].ports: port 0 cannot be used"
    );
}

#[test]
fn files_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shunt.toml");
    let message = |result: Result<Document, ConfigError>| {
        let text = result.unwrap_err().to_string();
        text.replace(dir.path().to_str().unwrap(), "")
    };
    assert_eq!(
        message(load(&path)),
        "the configuration file /shunt.toml does not exist: name one with --config"
    );
    std::fs::write(&path, "[daemon]\napi_socket = \n").unwrap();
    let text = message(load(&path));
    assert!(text.starts_with("/shunt.toml, line 2, column "), "{text}");
    std::fs::write(&path, "[daemon]\nsocket = \"x\"\n").unwrap();
    let text = message(load(&path));
    assert!(
        text.starts_with(
            "/shunt.toml, line 2, column 1: unknown field `socket`, expected one of `api_socket`, `read_only_socket`, `metrics`, `api_tls`"
        ),
        "{text}"
    );
    std::fs::write(
        &path,
        GOOD.replace("id = 4\nvpc = \"wan\"", "id = \"4\"\nvpc = \"wan\""),
    )
    .unwrap();
    let text = message(load(&path));
    assert!(
        text.contains("invalid type: string \"4\", expected i64"),
        "{text}"
    );
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(message(load(&path)).contains("cannot be read: stream did not contain valid UTF-8"));
    assert!(
        load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("is a directory")
    );
    std::fs::write(&path, "").unwrap();
    assert!(message(load(&path)).starts_with("/shunt.toml has 4 faults:\n  switch: no switch"));
}

#[test]
fn daemon_switch_and_slow_path() {
    fault(
        "daemon.api_socket: \"run/x\" is not an absolute path",
        |d| {
            d.daemon.api_socket = "run/x".into();
        },
    );
    fault(
        "daemon.api_socket: a socket's path has at most 107 bytes",
        |d| {
            d.daemon.api_socket = format!("/{}", "x".repeat(107));
        },
    );
    fault(
        "daemon.metrics: \"localhost\" is not address:port, such as 127.0.0.1:9464",
        |d| d.daemon.metrics = Some("localhost".into()),
    );
    fault(
        "daemon.read_only_socket: is daemon.api_socket too: name another",
        |d| d.daemon.read_only_socket = Some(d.daemon.api_socket.clone()),
    );
    fault(
        "daemon.read_only_socket: \"read\" is not an absolute path",
        |d| d.daemon.read_only_socket = Some("read".into()),
    );
    for (wanted, change) in [
        (
            "address: \"0.0.0.0\" is not address:port, such as 0.0.0.0:9463",
            (|tls| tls.address = "0.0.0.0".into()) as fn(&mut ApiTlsSection),
        ),
        ("certificate: \"c.pem\" is not an absolute path", |tls| {
            tls.certificate = "c.pem".into()
        }),
        ("key: \"\" is not an absolute path", |tls| {
            tls.key = String::new();
        }),
        ("client_ca: \"ca\" is not an absolute path", |tls| {
            tls.client_ca = "ca".into()
        }),
        ("admins[1]: \"alice\" is there twice", |tls| {
            tls.admins = vec!["alice".into(); 2]
        }),
        (
            "admins[0]: \"\" is no name in a certificate: 1 to 256 bytes",
            |tls| tls.admins = vec![String::new()],
        ),
        (
            "admins: 1025 names are more than the 1024 that there may be",
            |tls| tls.admins = (0..1025).map(|number| format!("a{number}")).collect(),
        ),
    ] {
        fault(&format!("daemon.api_tls.{wanted}"), |d| {
            let mut tls = ApiTlsSection {
                address: "[::]:9463".into(),
                certificate: "/c.pem".into(),
                key: "/k.pem".into(),
                client_ca: "/ca.pem".into(),
                admins: vec!["alice".into()],
            };
            change(&mut tls);
            d.daemon.api_tls = Some(tls);
        });
    }
    fault(
        "switch: no switch is configured: add a [[switch]] section",
        |d| {
            d.switch.clear();
        },
    );
    fault(
        "slow_path.device: is missing: name the Linux interface towards the switch's slow-path port",
        |d| d.slow_path.as_mut().unwrap().device = None,
    );
    fault(
        "switch[0].slow_path_device: slow_path.device is there already: one of the two",
        |d| d.switch[0].slow_path_device = Some("sp1".into()),
    );
    fault(
        "switch[0].address: \"localhost\" is not host:port, like 127.0.0.1:9559",
        |d| {
            d.switch[0].address = "localhost".into();
        },
    );
    fault(
        "switch[0].role: is empty: leave it out for the default role",
        |d| d.switch[0].role = Some(String::new()),
    );
    fault("switch[0].device_id: 0 is no device id: 1 or more", |d| {
        d.switch[0].device_id = 0
    });
    fault(
        "switch[0].slow_path_port: switch port \"511\" is not a number from 0 to 510",
        |d| d.switch[0].slow_path_port = 511,
    );
    fault(
        "slow_path.device: \"averylongdevicename\" has 19 characters, and Linux allows a device 15",
        |d| d.slow_path.as_mut().unwrap().device = Some("averylongdevicename".into()),
    );
    fault(
        "slow_path.memory_mb: 1 is out of range: 64 to 1048576",
        |d| {
            d.slow_path.as_mut().unwrap().memory_mb = 1;
        },
    );
    fault(
        "slow_path.connections: 0 is out of range: 1024 to 16777216",
        |d| {
            d.slow_path.as_mut().unwrap().connections = 0;
        },
    );
    fault("vpc[0].weight: 0 is out of range: 1 to 256", |d| {
        d.vpc[0].weight = 0;
    });
    fault("slow_path.workers: 9 is out of range: 1 to 8", |d| {
        d.slow_path.as_mut().unwrap().workers = 9;
    });
    fault(
        "slow_path.cpus: 2 CPUs for 1 workers (slow_path.workers)",
        |d| {
            d.slow_path.as_mut().unwrap().cpus = vec![0, 1];
        },
    );
    fault(
        "slow_path.cpus[1]: CPU 3 is another worker's already",
        |d| {
            let slow_path = d.slow_path.as_mut().unwrap();
            (slow_path.workers, slow_path.cpus) = (2, vec![3, 3]);
        },
    );
    fault("slow_path.cpus[0]: 5000 is out of range: 0 to 1023", |d| {
        d.slow_path.as_mut().unwrap().cpus = vec![5000];
    });
    assert!(faults(|d| d.slow_path = None).starts_with("slow_path: the section is missing"));
}

#[test]
fn vpcs() {
    fault("vpc[1].name: the name red is taken by vpc[0].name", |d| {
        d.vpc[1].name = "red".into();
        d.interface[1].vpc = "red".into();
        d.masquerade[1].vpc = "red".into();
        d.interface[1].addresses.clear();
        d.interface[5].vpc = "red".into();
    });
    assert!(faults(|d| d.vpc[1].id = 1).starts_with("vpc[1].id: the id 1 is taken by vpc[0].id"));
    fault(
        "vpc[1].table: the kernel table 101 is taken by vpc[0].table",
        |d| d.vpc[1].table = 101,
    );
    for table in [0, 253, 255, -1, 1 << 32] {
        let expected = format!(
            "vpc[1].table: {table} cannot be a VPC's kernel table: 1 to 4294967295, but not 253 and 255"
        );
        assert!(faults(|d| d.vpc[1].table = table).starts_with(&expected));
    }
    assert!(
        faults(|d| d.vpc[1].id = 0)
            .starts_with("vpc[1].id: VPC id \"0\" is not a number from 1 to 65535")
    );
    assert!(
        faults(|d| d.vpc[1].id = -7)
            .starts_with("vpc[1].id: VPC id \"-7\" is not a number from 1 to 65535")
    );
    assert!(
        faults(|d| d.vpc[1].name = "a b".into()).starts_with("vpc[1].name: \"a b\" is no name")
    );
}

#[test]
fn interfaces() {
    assert!(faults(|d| d.interface.clear()).starts_with("interface: no interface is configured"));
    fault(
        "interface[1].name: the name red is taken by interface[0].name",
        |d| {
            d.interface[1].name = "red".into();
            d.interface[1].tap = Some("other".into());
        },
    );
    fault(
        "interface[1].id: the id 1 is taken by interface[0].id",
        |d| d.interface[1].id = 1,
    );
    fault(
        "interface[1].tap: the tap sh-red is taken by interface[0].tap",
        |d| {
            d.interface[1].tap = Some("sh-red".into());
        },
    );
    fault(
        "interface[1].tap: \"sh-averylongname\" has 16 characters, and Linux allows a device 15",
        |d| d.interface[1].name = "averylongname".into(),
    );
    fault(
        "interface[1].switch: no switch named \"sw2\" (known: sw1)",
        |d| {
            d.interface[1].switch = Some("sw2".into());
        },
    );
    fault(
        "interface[0].port: port 10 is the slow path's (switch[0].slow_path_port)",
        |d| {
            d.interface[0].port = Some(10);
        },
    );
    fault(
        "interface[0].port: switch port \"600\" is not a number from 0 to 510",
        |d| {
            d.interface[0].port = Some(600);
        },
    );
    fault(
        "interface[0]: it has neither a port nor a tunnel (vni, underlay, local, remote)",
        |d| d.interface[0].port = None,
    );
    fault(
        "interface[5].vlans: port 2, VLANs 20 and 30, is taken by interface[1].vlans",
        |d| {
            d.interface[1].vlan = None;
            d.interface[1].vlans = Some(vec![20, 30]);
        },
    );
    fault(
        "interface[3].port: port 1, untagged, is taken by interface[0].port",
        |d| {
            d.interface[3].port = Some(1);
        },
    );
    fault(
        "interface[1].vlans: vlan is there already: one of the two",
        |d| {
            d.interface[1].vlans = Some(vec![1, 2]);
        },
    );
    fault(
        "interface[5].vlans: 3 tags: write the outer and the inner one",
        |d| {
            d.interface[5].vlans = Some(vec![1, 2, 3]);
        },
    );
    fault(
        "interface[0].mac: 03:00:00:00:00:01 is not a station's address",
        |d| {
            d.interface[0].mac = "03:00:00:00:00:01".into();
        },
    );
    fault(
        "interface[0].mac: MAC address \"2:0\" is not six hexadecimal bytes separated by colons",
        |d| d.interface[0].mac = "2:0".into(),
    );
    fault(
        "interface[5].mac: the MAC address 02:00:00:00:00:02 in the same VPC is taken by interface[1].mac",
        |d| d.interface[5].mac = "02:00:00:00:00:02".into(),
    );
    fault("interface[0].mtu: 100 is out of range: 576 to 9216", |d| {
        d.interface[0].mtu = Some(100)
    });
    fault(
        "interface[3].mtu: 1000 is too little for IPv6: 1280 at least",
        |d| {
            d.interface[3].mtu = Some(1000);
        },
    );
    fault(
        "interface[4].mtu: 1500 does not fit the underlay \"fabric\": 1450 at most (its MTU less 50 for the tunnel)",
        |d| d.interface[4].mtu = Some(1500),
    );
    fault(
        "interface[0].addresses[0]: \"10.0.0.1\" is not a prefix: write address/length, like 10.0.0.1/24",
        |d| d.interface[0].addresses = vec!["10.0.0.1".into()],
    );
    fault(
        "interface[0].addresses[0]: 10.0.0.0 cannot be a gateway's address in 10.0.0.0/24",
        |d| d.interface[0].addresses = vec!["10.0.0.0/24".into()],
    );
    fault(
        "interface[5].addresses[0]: 10.0.0.1 is taken by interface[1].addresses[0]",
        |d| {
            d.interface[5].addresses = vec!["10.0.0.1/24".into()];
        },
    );
    fault(
        "interface[5].addresses[0]: 10.0.0.129/25 overlaps 10.0.0.1/24 of interface[1].addresses[0] in the same VPC",
        |d| d.interface[5].addresses = vec!["10.0.0.129/25".into()],
    );
    fault("none", |d| {
        d.interface[1].addresses = vec!["fe80::1/64".into()];
        d.interface[5].addresses = vec!["fe80::1/64".into()];
    });
}

#[test]
fn tunnels() {
    fault(
        "interface[4].port: a tunnel has none: it takes its underlay's",
        |d| {
            d.interface[4].port = Some(3);
        },
    );
    fault(
        "interface[4].underlay: no interface named \"fab\" (known: red, blue, fabric, wan, both)",
        |d| {
            d.interface[4].underlay = Some("fab".into());
        },
    );
    fault(
        "interface[4].underlay: \"green\" is itself a tunnel: name an interface with a port",
        |d| d.interface[4].underlay = Some("green".into()),
    );
    fault(
        "interface[4]: it is a tunnel and has no vni: vni, underlay, local and remote belong together",
        |d| d.interface[4].vni = None,
    );
    fault(
        "interface[4].vni: VNI \"16777216\" is not a number from 1 to 16777215",
        |d| {
            d.interface[4].vni = Some(1 << 24);
        },
    );
    fault(
        "interface[4].local: 172.16.0.9 is not an address of the underlay \"fabric\"",
        |d| {
            d.interface[4].local = Some("172.16.0.9".into());
        },
    );
    fault(
        "interface[4].remote: 172.16.0.1 is the local end point",
        |d| {
            d.interface[4].remote = Some("172.16.0.1".into());
        },
    );
    fault(
        "interface[4].remote: 224.0.0.1 cannot be an end point",
        |d| {
            d.interface[4].remote = Some("224.0.0.1".into());
        },
    );
    fault(
        "interface[4].remote: \"fd00::1\" is not an IPv4 address (the underlay is IPv4)",
        |d| {
            d.interface[4].remote = Some("fd00::1".into());
        },
    );
    fault(
        "interface[6].vni: VNI 5001 at end point 172.16.0.1 is taken by interface[4].vni",
        |d| {
            let mut twin = d.interface[4].clone();
            twin.name = "twin".into();
            twin.id = 7;
            twin.mac = "02:00:00:00:00:77".into();
            twin.remote = Some("172.16.0.3".into());
            twin.addresses.clear();
            d.interface.push(twin);
        },
    );
}

#[test]
fn nat() {
    fault(
        "masquerade[0].to: it is the same VPC: name another one",
        |d| {
            d.masquerade[0].vpc = "wan".into();
        },
    );
    fault(
        "masquerade[0].pool: it is empty: name at least one address",
        |d| {
            d.masquerade[0].pool.clear();
        },
    );
    fault(
        "masquerade[0].pool[0]: 203.0.113.1 is the gateway's own address on \"wan\": take another one of the link",
        |d| d.masquerade[0].pool[0] = "203.0.113.1".into(),
    );
    fault(
        "masquerade[1].pool[0]: 203.0.113.10-203.0.113.12 overlaps the pool of masquerade[0] (red-out): give them other addresses or other ports",
        |d| d.masquerade[1].pool = vec!["203.0.113.10-203.0.113.12".into()],
    );
    fault("none", |d| {
        d.masquerade[0].ports = "1024-9999".into();
        d.masquerade[1].ports = "10000-19999".into();
        d.masquerade[1].pool = vec!["203.0.113.10".into()];
    });
    fault(
        "masquerade[0].pool[2]: 203.0.113.17 is in this pool already",
        |d| {
            d.masquerade[0].pool.push("203.0.113.17".into());
        },
    );
    fault("masquerade[0].pool: it has more than 4096 addresses", |d| {
        d.masquerade[0].pool = vec!["198.18.0.0/15".into()];
    });
    fault(
        "masquerade[0].sources[0]: 10.0.0.1/24 has bits behind its length: write 10.0.0.0/24",
        |d| {
            d.masquerade[0].sources = Some(vec!["10.0.0.1/24".into()]);
        },
    );
    fault(
        "masquerade[0].sources[0]: the pool has no address of the family of 2001:db8::/32",
        |d| {
            d.masquerade[0].sources = Some(vec!["2001:db8::/32".into()]);
        },
    );
    fault(
        "masquerade[0].sources: it is empty, so the rule serves nobody: leave it out for all sources",
        |d| d.masquerade[0].sources = Some(vec![]),
    );
    fault(
        "masquerade[1].name: the name red-out is taken by masquerade[0].name",
        |d| {
            d.masquerade[1].name = "red-out".into();
        },
    );

    fault(
        "static_nat[0].outside: 203.0.113.17 is in the pool of the masquerade red-out",
        |d| {
            d.static_nat[0].outside = "203.0.113.17".into();
        },
    );
    fault(
        "static_nat[0].outside: 10.0.0.9 and 2001:db8::9 are of different families: NAT keeps the family",
        |d| {
            d.static_nat[0].outside = "2001:db8::9".into();
        },
    );
    fault(
        "static_nat[1].outside: 203.0.113.30 is taken by red-mail",
        |d| {
            let mut twin = d.static_nat[0].clone();
            twin.name = "twin".into();
            twin.inside = "10.0.0.99".into();
            d.static_nat.push(twin);
        },
    );
    fault("static_nat[0].inside: \"mail\" is not an IP address", |d| {
        d.static_nat[0].inside = "mail".into();
    });

    fault(
        "port_forward[0].protocol: \"sctp\" is neither tcp nor udp",
        |d| {
            d.port_forward[0].protocol = "sctp".into();
        },
    );
    fault(
        "port_forward[0].to_ports: 80-81 has 2 ports and ports (8080) has 1: as many or one are needed",
        |d| d.port_forward[0].to_ports = Some("80-81".into()),
    );
    fault(
        "port_forward[0].ports: \"http\" is not a port (1 to 65535) or a range first-last",
        |d| {
            d.port_forward[0].ports = "http".into();
        },
    );
    fault(
        "port_forward[1].ports: 203.0.113.10 8080 overlaps the port forward red-web",
        |d| {
            let mut twin = d.port_forward[0].clone();
            twin.name = "twin".into();
            d.port_forward.push(twin);
        },
    );
    fault(
        "port_forward[0].address: 203.0.113.30 is wholly translated by the static NAT red-mail",
        |d| {
            d.port_forward[0].address = "203.0.113.30".into();
        },
    );
    fault(
        "port_forward[0].to_vpc: no VPC named \"redd\" (known: red, blue, green, wan)",
        |d| {
            d.port_forward[0].to_vpc = "redd".into();
        },
    );

    fault("peering[0].to: it is the same VPC: name another one", |d| {
        d.peering[0].to = "red".into()
    });
    fault("peering[1]: red to green is there already", |d| {
        d.peering.push(d.peering[0].clone())
    });
}

#[test]
fn tuning() {
    assert!(
        faults(|d| d.timeouts.udp = "soon".into())
            .starts_with("timeouts.udp: \"soon\" is not a duration")
    );
    fault("timeouts.icmp: 0 is no time: write at least 1s", |d| {
        d.timeouts.icmp = "0s".into()
    });
    assert!(
        faults(|d| {
            d.limits.punt_pps.insert("apr".into(), 5);
        })
        .starts_with("limits.punt_pps.apr: no such reason (known: flow_miss, arp, nd,")
    );
    fault(
        "limits.punt_pps.arp: 0 is out of range: 1 to 1000000000",
        |d| {
            d.limits.punt_pps.insert("arp".into(), 0);
        },
    );
}
