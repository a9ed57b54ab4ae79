//! Hand-made inputs, from which the fuzzer goes on.

use super::*;

fn step(op: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![op];
    out.extend((message.len() as u16).to_be_bytes());
    out.extend(message);
    out
}

fn frame(port: u8, frame: &[u8]) -> Vec<u8> {
    let mut out = vec![port, frame.len() as u8];
    out.extend(frame);
    out
}

fn entry(
    table: &str,
    fields: &[(u32, pb::field_match::FieldMatchType)],
    action: pb::Action,
) -> pb::TableEntry {
    let info = FORWARD.info.clone();
    let heads = info.tables.iter().filter_map(|t| t.preamble.as_ref());
    pb::TableEntry {
        table_id: heads.into_iter().find(|p| p.alias == table).unwrap().id,
        r#match: fields
            .iter()
            .map(|(field_id, kind)| pb::FieldMatch {
                field_id: *field_id,
                field_match_type: Some(kind.clone()),
            })
            .collect(),
        action: Some(pb::TableAction {
            r#type: Some(pb::table_action::Type::Action(action)),
        }),
        ..pb::TableEntry::default()
    }
}

fn call(name: &str, args: &[&[u8]]) -> pb::Action {
    let info = FORWARD.info.clone();
    let heads = info.actions.iter().filter_map(|t| t.preamble.as_ref());
    pb::Action {
        action_id: heads.into_iter().find(|p| p.alias == name).unwrap().id,
        params: args
            .iter()
            .zip(1..)
            .map(|(value, param_id)| pb::action::Param {
                param_id,
                value: value.to_vec(),
            })
            .collect(),
    }
}

fn entities() -> Vec<pb::entity::Entity> {
    use pb::entity::Entity;
    use pb::field_match::{Exact, FieldMatchType, Lpm, Range, Ternary};
    let exact = |value: &[u8]| {
        FieldMatchType::Exact(Exact {
            value: value.to_vec(),
        })
    };
    let info = FORWARD.info.clone();
    let id = |p: &Option<p4runtime::p4::config::v1::Preamble>| p.as_ref().map_or(0, |p| p.id);
    let profile = id(&info.action_profiles[0].preamble);
    let route = entry(
        "route",
        &[(
            1,
            FieldMatchType::Lpm(Lpm {
                value: vec![10, 0, 0, 0],
                prefix_len: 8,
            }),
        )],
        call("use_nexthop", &[&[7]]),
    );
    let acl = pb::TableEntry {
        priority: 10,
        ..entry(
            "acl",
            &[
                (
                    2,
                    FieldMatchType::Ternary(Ternary {
                        value: vec![10, 0, 0, 0],
                        mask: vec![255, 0, 0, 0],
                    }),
                ),
                (
                    3,
                    FieldMatchType::Range(Range {
                        low: vec![1],
                        high: vec![9],
                    }),
                ),
            ],
            call("replicate", &[&[1]]),
        )
    };
    let nexthop = entry(
        "nexthop",
        &[(1, exact(&[7]))],
        call("send", &[&[2], &[2, 0, 0, 0, 0, 9]]),
    );
    let mut group_entry = entry("ecmp", &[(1, exact(&[5]))], pb::Action::default());
    group_entry.action = Some(pb::TableAction {
        r#type: Some(pb::table_action::Type::ActionProfileGroupId(1)),
    });
    let mut out = vec![
        Entity::TableEntry(route),
        Entity::TableEntry(acl),
        Entity::TableEntry(nexthop),
        Entity::ActionProfileMember(pb::ActionProfileMember {
            action_profile_id: profile,
            member_id: 3,
            action: Some(call("send", &[&[2], &[2, 0, 0, 0, 0, 9]])),
        }),
        Entity::ActionProfileGroup(pb::ActionProfileGroup {
            action_profile_id: profile,
            group_id: 1,
            members: vec![pb::action_profile_group::Member {
                member_id: 3,
                weight: 2,
                ..Default::default()
            }],
            max_size: 4,
        }),
        Entity::TableEntry(group_entry),
        Entity::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(
                pb::packet_replication_engine_entry::Type::MulticastGroupEntry(
                    pb::MulticastGroupEntry {
                        multicast_group_id: 1,
                        replicas: vec![pb::Replica {
                            instance: 1,
                            port_kind: Some(pb::replica::PortKind::Port(vec![2])),
                            ..Default::default()
                        }],
                        ..Default::default()
                    },
                ),
            ),
        }),
    ];
    for counter in &info.counters {
        out.push(Entity::CounterEntry(pb::CounterEntry {
            counter_id: id(&counter.preamble),
            ..Default::default()
        }));
    }
    for meter in &info.meters {
        out.push(Entity::MeterEntry(pb::MeterEntry {
            meter_id: id(&meter.preamble),
            index: Some(pb::Index { index: 0 }),
            config: Some(pb::MeterConfig {
                cir: 1,
                cburst: 2,
                pir: 3,
                pburst: 4,
                ..Default::default()
            }),
            ..Default::default()
        }));
    }
    for register in &info.registers {
        out.push(Entity::RegisterEntry(pb::RegisterEntry {
            register_id: id(&register.preamble),
            ..Default::default()
        }));
    }
    for digest in &info.digests {
        out.push(Entity::DigestEntry(pb::DigestEntry {
            digest_id: id(&digest.preamble),
            config: Some(pb::digest_entry::Config::default()),
        }));
    }
    out
}

fn server_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut all = Vec::new();
    let wrap = |entity| pb::Entity {
        entity: Some(entity),
    };
    for (i, entity) in entities().into_iter().enumerate() {
        let kind = match entity {
            pb::entity::Entity::CounterEntry(_)
            | pb::entity::Entity::MeterEntry(_)
            | pb::entity::Entity::RegisterEntry(_) => pb::update::Type::Modify,
            _ => pb::update::Type::Insert,
        };
        let write = |kind: pb::update::Type| pb::WriteRequest {
            updates: vec![pb::Update {
                r#type: kind.into(),
                entity: Some(wrap(entity.clone())),
            }],
            ..pb::WriteRequest::default()
        };
        let read = pb::ReadRequest {
            entities: vec![wrap(entity.clone())],
            ..pb::ReadRequest::default()
        };
        let mut bytes = step(0, &write(kind).encode_to_vec());
        all.extend(bytes.clone());
        bytes.extend(step(1, &read.encode_to_vec()));
        bytes.extend(step(0, &write(pb::update::Type::Modify).encode_to_vec()));
        bytes.extend(step(0, &write(pb::update::Type::Delete).encode_to_vec()));
        out.push(("server", format!("entity-{i:02}"), bytes));
    }
    all.extend(step(8, &ipv4_frame()));
    all.extend(step(
        1,
        &pb::ReadRequest {
            entities: vec![wrap(pb::entity::Entity::TableEntry(Default::default()))],
            ..pb::ReadRequest::default()
        }
        .encode_to_vec(),
    ));
    out.push(("server", "all-entities".into(), all));
    use pb::set_forwarding_pipeline_config_request::Action;
    let mut bytes = Vec::new();
    for action in [
        Action::Verify,
        Action::VerifyAndSave,
        Action::ReconcileAndCommit,
    ] {
        let set = pb::SetForwardingPipelineConfigRequest {
            action: action.into(),
            config: Some(pb::ForwardingPipelineConfig::default()),
            ..Default::default()
        };
        bytes.extend(step(5, &set.encode_to_vec()));
    }
    out.push(("server", "pipeline".into(), bytes));
    use pb::stream_message_request::Update;
    let message = |update| {
        pb::StreamMessageRequest {
            update: Some(update),
        }
        .encode_to_vec()
    };
    let packet = pb::PacketOut {
        payload: ipv4_frame(),
        metadata: vec![pb::PacketMetadata {
            metadata_id: 1,
            value: vec![2],
        }],
    };
    let second = pb::MasterArbitrationUpdate {
        device_id: 1,
        election_id: Some(pb::Uint128 { high: 0, low: 2 }),
        role: Some(pb::Role {
            name: "r".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut bytes = step(3, &message(Update::Packet(packet)));
    bytes.extend(step(4, &message(Update::Arbitration(second))));
    bytes.extend(step(6, &[8, 1]));
    bytes.extend(step(7, &[0; 20]));
    out.push(("server", "stream".into(), bytes));
    out
}

/// Target, name and bytes of each seed.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out = server_seeds();
    for which in 0..3 {
        let mut bytes = vec![which];
        bytes.extend(frame(0, &ipv4_frame()));
        bytes.extend(frame(1, &ipv4_frame()));
        out.push(("packets", format!("ipv4-{which}"), bytes));
    }
    for op in 0..64 {
        let mut bytes = vec![1];
        let mut data = vec![op, 0];
        data.extend(1..80);
        bytes.extend(frame(0, &data));
        out.push(("packets", format!("construct-{op:02}"), bytes));
    }
    let (client, server) = ((gateway::CLIENT, 1234), (gateway::SERVER, 80));
    let public = (gateway::PUBLIC, 5000);
    let mut vlan = gateway::udp(2, client, server, 64);
    vlan.splice(12..12, [0x81, 0, 0, 20]);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0xaa, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 20]);
    for (name, port, bytes) in [
        ("flow", 0, gateway::udp(1, client, server, 64)),
        ("back", 3, gateway::udp(4, server, public, 64)),
        ("miss", 0, gateway::udp(1, client, public, 64)),
        ("ttl", 0, gateway::udp(1, client, server, 1)),
        ("vlan", 1, vlan),
        ("arp", 0, arp),
    ] {
        let mut input = vec![2];
        input.extend(frame(port, &bytes));
        out.push(("packets", format!("shunt-{name}"), input));
    }
    for mode in [6, 7] {
        for choice in 0..12 {
            let mut bytes = vec![mode];
            bytes.extend([3, choice * 7, 1, choice, choice, 2]);
            bytes.extend([9, choice * 11, 2, choice, choice, 200]);
            out.push(("loader", format!("edit-{mode}-{choice:02}"), bytes));
        }
    }
    out.push(("loader", "p4info".into(), vec![2, 0, 9, 3, 1, 1, 7]));
    out.push((
        "loader",
        "p4info-text".into(),
        b"\x04tables { preamble { id: 1 name: \"x\" } }".to_vec(),
    ));
    out.push((
        "loader",
        "json".into(),
        b"\x00{\"parsers\":[],\"headers\":[]}".to_vec(),
    ));
    out
}
