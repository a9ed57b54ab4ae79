//! `[offload]`, and the VPCs' shares of the switch.

use std::time::Duration;

use shunt_offload::{EnginePolicy, VpcShare};
use shunt_p4::flow::proto::{TCP, UDP};
use shunt_slowpath::policy::{NeverPorts, OffloadAfter, OffloadPolicy, PortRange};

use super::tests::{fault, good};
use super::*;

#[test]
fn everything_can_be_said() {
    let mut document = good();
    let offload = &mut document.offload;
    offload.tcp = "packets=10".into();
    offload.udp = "bytes=100000".into();
    offload.icmp = "never".into();
    offload.min_bytes_per_second = 125_000;
    offload.never_ports = vec!["53".into(), "tcp/22".into(), "udp/6000-6010".into()];
    offload.retry_after = "2s".into();
    offload.retry_after_max = "2s".into();
    offload.evict_idle = "10s".into();
    document.vpc[0].offload_max = Some(1000);
    document.vpc[1].offload_max_percent = Some(25);
    let config = validate(&document).unwrap();
    let ports = |protocol, first, last| NeverPorts {
        protocol,
        ports: PortRange::new(first, last).unwrap(),
    };
    let wanted = OffloadPolicy {
        enabled: true,
        tcp: OffloadAfter::Packets(10),
        udp: OffloadAfter::Bytes(100_000),
        icmp: OffloadAfter::Never,
        min_bytes_per_second: 125_000,
        never_ports: vec![
            ports(None, 53, 53),
            ports(Some(TCP), 22, 22),
            ports(Some(UDP), 6000, 6010),
        ],
        retry_after: Duration::from_secs(2),
        retry_after_max: Duration::from_secs(2),
    };
    assert_eq!(config.policy.offload, wanted);
    let id = |n: usize| {
        let name = &document.vpc[n].name;
        let found = config.vpcs.iter().find(|found| found.vpc.name == *name);
        found.unwrap().vpc.id
    };
    let share = |connections, percent| VpcShare {
        connections,
        percent,
    };
    let wanted = EnginePolicy {
        shares: vec![
            (id(0), share(Some(1000), None)),
            (id(1), share(None, Some(25))),
        ],
        evict_idle: Some(Duration::from_secs(10)),
    };
    assert_eq!(config.engine, wanted);
}

#[test]
fn the_defaults_are_the_slow_path_s() {
    let config = validate(&good()).unwrap();
    assert_eq!(config.policy.offload, OffloadPolicy::default());
    assert_eq!(config.engine.evict_idle, Some(Duration::from_secs(5)));
    assert_eq!(config.engine.shares, []);
    let mut document = good();
    document.offload.evict_idle = "never".into();
    assert_eq!(validate(&document).unwrap().engine.evict_idle, None);
}

#[test]
fn faults_of_offload() {
    fault(
        "offload.udp: \"packets=0\" is none of \"first-reply\", \"packets=N\" with N from 1 to \
         1000000, \"bytes=N\" with N from 1 to 1099511627776, and \"never\"",
        |d| d.offload.udp = "packets=0".into(),
    );
    fault(
        "offload.tcp: \"first-reply\" is none of \"established\", \"packets=N\" with N from 1 to \
         1000000, \"bytes=N\" with N from 1 to 1099511627776, and \"never\"",
        |d| d.offload.tcp = "first-reply".into(),
    );
    fault(
        "offload.min_bytes_per_second: -1 is out of range: 0 to 4294967295",
        |d| d.offload.min_bytes_per_second = -1,
    );
    fault(
        "offload.never_ports[1]: \"icmp\" has no ports here: write tcp/{ports} or udp/{ports}",
        |d| d.offload.never_ports = vec!["53".into(), "icmp/8".into()],
    );
    fault(
        "offload.never_ports[0]: the range 90-80 ends before it begins: write 80-90",
        |d| d.offload.never_ports = vec!["tcp/90-80".into()],
    );
    fault(
        "offload.retry_after_max: 1s is less than offload.retry_after, 5s",
        |d| d.offload.retry_after_max = "1s".into(),
    );
    fault(
        "offload.evict_idle: 0 is no time: write at least 1s, or \"never\"",
        |d| d.offload.evict_idle = "0s".into(),
    );
}

#[test]
fn faults_of_shares() {
    fault(
        "vpc[0].offload_max: -1 is out of range: 0 to 1000000000",
        |d| d.vpc[0].offload_max = Some(-1),
    );
    fault(
        "vpc[1].offload_max_percent: 101 is out of range: 0 to 100",
        |d| d.vpc[1].offload_max_percent = Some(101),
    );
    let mut document = good();
    let stateless = document.vpc.iter().position(|vpc| vpc.stateless);
    let n = stateless.unwrap_or_else(|| {
        document.vpc.push(document.vpc[0].clone());
        document.vpc.len() - 1
    });
    let vpc = &mut document.vpc[n];
    vpc.stateless = true;
    vpc.offload_max = Some(5);
    let faults = validate(&document).unwrap_err();
    let wanted = format!("vpc[{n}].offload_max: a stateless VPC has no connections in the switch");
    assert!(
        faults.iter().any(|fault| fault.to_string() == wanted),
        "{faults:?}"
    );
}
