//! Values of the stable answers.

use shunt_api::v1::{self, Count, Flow, Tuple};

pub(crate) fn count(name: &str, value: u64) -> Count {
    Count {
        name: name.to_owned(),
        value,
    }
}

pub(crate) fn table(table: &str, entries: u64, size: u64) -> v1::TableOccupancy {
    v1::TableOccupancy {
        table: table.to_owned(),
        entries,
        size,
    }
}

pub(crate) fn tuple(vpc: &str, source: (&str, u32), destination: (&str, u32)) -> Option<Tuple> {
    Some(Tuple {
        vpc: vpc.to_owned(),
        protocol: "tcp".to_owned(),
        source: source.0.to_owned(),
        source_port: source.1,
        destination: destination.0.to_owned(),
        destination_port: destination.1,
    })
}

pub(crate) fn flows() -> Vec<Flow> {
    vec![
        Flow {
            vpc: "red".to_owned(),
            to_vpc: "wan".to_owned(),
            original: tuple("red", ("10.0.0.2", 40000), ("192.0.2.80", 80)),
            reply: tuple("wan", ("192.0.2.80", 80), ("203.0.113.10", 5000)),
            state: "tcp_established".to_owned(),
            offload: "hardware".to_owned(),
            age_ms: 190_000,
            idle_ms: 800,
            software: Some(v1::Traffic {
                packets: 4,
                bytes: 240,
            }),
            hardware: Some(v1::Traffic {
                packets: 996,
                bytes: 1_400_000,
            }),
            total: Some(v1::Traffic {
                packets: 1_000,
                bytes: 1_400_240,
            }),
            worker: 0,
            switch: "sw1".to_owned(),
        },
        Flow {
            vpc: "wan".to_owned(),
            to_vpc: "blue".to_owned(),
            original: tuple("wan", ("2001:db8::2", 40000), ("2001:db8:1::1", 443)),
            reply: tuple("blue", ("2001:db8:1::1", 443), ("2001:db8::2", 40000)),
            state: "tcp_syn_sent".to_owned(),
            offload: "software".to_owned(),
            age_ms: 100,
            idle_ms: 100,
            software: Some(v1::Traffic {
                packets: 1,
                bytes: 80,
            }),
            hardware: Some(v1::Traffic::default()),
            total: Some(v1::Traffic {
                packets: 1,
                bytes: 80,
            }),
            worker: 1,
            switch: String::new(),
        },
    ]
}

pub(crate) fn ready_switch() -> v1::SwitchStatus {
    v1::SwitchStatus {
        name: "sw1".to_owned(),
        address: "127.0.0.1:9559".to_owned(),
        device_id: 1,
        state: "ready".to_owned(),
        role: "primary".to_owned(),
        pipeline_cookie: "00000000000000ab".to_owned(),
        pipeline_cookie_wanted: "00000000000000ab".to_owned(),
        entries: 75,
        pending: 0,
        refused: 0,
        sessions: 2,
        last_error: String::new(),
        tables: vec![table("route4", 23, 2_097_152), table("nexthop", 6, 65_536)],
        others: 0,
    }
}

pub(crate) fn restart(stage: &str) -> v1::Restart {
    v1::Restart {
        stage: stage.to_owned(),
        starting: false,
        restored: 7,
        adopted: 5,
        refused: vec![count("not_as_configured", 1), count("half", 0)],
        entries: 12,
        entries_done: 10,
        took_ms: 350,
    }
}
