//! Samples that `shunt top` shows, always the same.

use shunt_api::v1;

fn traffic(packets: u64, bytes: u64) -> Option<v1::Traffic> {
    Some(v1::Traffic { packets, bytes })
}

fn histogram(stage: &str, counts: [u64; 6], count: u64) -> v1::Histogram {
    let ends = [50, 200, 1_000, 5_000, 100_000, 10_000_000];
    let bucket = |(le_us, count)| v1::Bucket { le_us, count };
    v1::Histogram {
        stage: stage.to_owned(),
        buckets: ends.into_iter().zip(counts).map(bucket).collect(),
        count,
    }
}

fn table(table: &str, entries: u64, size: u64) -> v1::TableOccupancy {
    v1::TableOccupancy {
        table: table.to_owned(),
        entries,
        size,
    }
}

fn drops(place: &str, reason: &str, packets: u64) -> v1::TopDrops {
    v1::TopDrops {
        r#where: place.to_owned(),
        reason: reason.to_owned(),
        packets,
    }
}

fn tuple(protocol: &str, source: (&str, u32), destination: (&str, u32)) -> Option<v1::Tuple> {
    Some(v1::Tuple {
        vpc: String::new(),
        protocol: protocol.to_owned(),
        source: source.0.to_owned(),
        source_port: source.1,
        destination: destination.0.to_owned(),
        destination_port: destination.1,
    })
}

fn flows() -> Vec<v1::TopFlow> {
    let flow = |vpc: &str, to: &str, original, reply, offload: &str, packets, age_ms| v1::TopFlow {
        vpc: vpc.to_owned(),
        to_vpc: to.to_owned(),
        original,
        reply,
        offload: offload.to_owned(),
        packets_per_second: packets,
        bits_per_second: packets * 8_000.0,
        age_ms,
    };
    vec![
        flow(
            "red",
            "wan",
            tuple("tcp", ("10.0.0.2", 40000), ("192.0.2.80", 443)),
            tuple("tcp", ("192.0.2.80", 443), ("203.0.113.10", 5000)),
            "hardware",
            900_000.0,
            190_000,
        ),
        flow(
            "green",
            "green",
            tuple("udp", ("2001:db8::2", 5353), ("2001:db8:1::1", 53)),
            tuple("udp", ("2001:db8:1::1", 53), ("2001:db8::2", 5353)),
            "software",
            1_250.0,
            2_500,
        ),
    ]
}

/// The sample of that number, a second after the one before.
pub(crate) fn sample(number: u64) -> v1::TopSample {
    let vpc = |name: &str, packets: u64, drops| v1::TopVpc {
        name: name.to_owned(),
        received: traffic(number * packets, number * packets * 1_000),
        sent: traffic(number * packets / 2, number * packets * 100),
        drops,
    };
    v1::TopSample {
        at_ms: 3_725_000 + number * 1_000,
        converged: true,
        problems: vec!["interface green cannot send".to_owned()],
        hardware: traffic(number * 1_200_000, number * 1_200_000_000),
        software: traffic(number * 11_100, number * 11_100_000),
        received: traffic(number * 1_211_500, number * 1_212_000_000),
        unread: String::new(),
        connections: 2_000 + number,
        connections_max: 65_536,
        connections_created: 5_000 + number * 12,
        connections_ended: 3_000 + number * 3,
        offloaded: 1_900,
        pending: 7,
        installs: 4_000 + number * 10,
        removals: 2_100 + number * 3,
        refused: number,
        evicted: 0,
        tables: vec![
            table("flow4", 3_800, 4_096),
            table("flow6", 0, u64::MAX),
            table("route4", 23, 2_097_152),
        ],
        drops: vec![
            drops("switch", "meter", 100 + number * 20),
            drops("switch", "not_for_us", 7),
            drops("software", "unreachable", 40 + number * 300),
        ],
        install: vec![
            histogram("queued", [900, 990, 1_000, 1_000, 1_000, 1_000], 1_000),
            histogram("batched", [100, 900, 990, 1_000, 1_000, 1_000], 1_000),
            histogram("on_wire", [0, 50, 700, 980, 999, 1_000], 1_000),
            histogram("total", [0, 10, 600, 970, 999, 1_000], 1_000),
            histogram("first_packet", [0, 0, 100, 800, 990, 999], 1_000),
        ],
        vpcs: vec![
            vpc("red", 1_000_000, number * 300),
            vpc("green", 2_500, 0),
            vpc("wan", 209_000, 0),
        ],
        flows: flows(),
    }
}
