//! Multicast groups and clone sessions on the wire.

use p4runtime::p4::v1 as pb;
use pb::packet_replication_engine_entry::Type as Kind;
use pb::update::Type;
use tonic::Code;

use super::fault::Fault;
use super::value::{canonical, port};
use super::write::Writer;
use crate::state::profile::Watch;
use crate::state::replication::{CloneSession, MulticastGroup, Replica};
use crate::state::{read, write};

/// The most groups, sessions, and replicas of one.
const MAX_GROUPS: usize = 65_536;
const MAX_REPLICAS: usize = 4096;
/// `mcast_grp` has 16 bits.
const MAX_GROUP_ID: u32 = 65_535;
/// What simple_switch's clone primitives can name.
const MAX_SESSION_ID: u32 = 32_767;

fn replicas(wire: &[pb::Replica], what: &str) -> Result<Vec<Replica>, Fault> {
    if wire.len() > MAX_REPLICAS {
        return Err(Fault::new(
            Code::ResourceExhausted,
            format!("{what}: more than {MAX_REPLICAS} replicas"),
        ));
    }
    let mut out: Vec<Replica> = Vec::with_capacity(wire.len());
    for replica in wire {
        use pb::replica::PortKind;
        let (number, by_bytes) = match &replica.port_kind {
            None => return Err(Fault::invalid(format!("{what}: a replica has no port"))),
            Some(PortKind::EgressPort(number)) => (*number, false),
            Some(PortKind::Port(bytes)) => (port(bytes, what)?, true),
        };
        let mut backups = Vec::new();
        for backup in &replica.backup_replicas {
            backups.push((Watch::Bytes(port(&backup.port, what)?), backup.instance));
        }
        if out
            .iter()
            .any(|r| r.port == number && r.instance == replica.instance)
        {
            return Err(Fault::invalid(format!(
                "{what}: port {number} with instance {} is given twice",
                replica.instance
            )));
        }
        out.push(Replica {
            port: number,
            instance: replica.instance,
            by_bytes,
            backups,
        });
    }
    Ok(out)
}

fn wire_replicas(replicas: &[Replica]) -> Vec<pb::Replica> {
    use pb::replica::PortKind;
    let wire = |r: &Replica| pb::Replica {
        instance: r.instance,
        backup_replicas: r
            .backups
            .iter()
            .map(|(port, instance)| pb::BackupReplica {
                port: match port {
                    Watch::Bytes(port) => canonical(&port.to_be_bytes()),
                    Watch::None | Watch::Number(_) => vec![0],
                },
                instance: *instance,
            })
            .collect(),
        port_kind: Some(if r.by_bytes {
            PortKind::Port(canonical(&r.port.to_be_bytes()))
        } else {
            PortKind::EgressPort(r.port)
        }),
    };
    replicas.iter().map(wire).collect()
}

impl Writer<'_> {
    /// Writes a group or session.
    pub(crate) fn replication(
        &self,
        kind: Type,
        wire: &pb::PacketReplicationEngineEntry,
    ) -> Result<(), Fault> {
        let entry = wire.r#type.as_ref();
        let entry = entry.ok_or_else(|| Fault::invalid("empty packet replication entry"))?;
        let mut state = write(&self.loaded.state.replication);
        match entry {
            Kind::MulticastGroupEntry(wire) => {
                let id = wire.multicast_group_id;
                let what = format!("multicast group {id}");
                check_id(id, MAX_GROUP_ID, &what)?;
                check_known(kind, state.groups.contains_key(&id), &what)?;
                check_room(kind, state.groups.len(), &what)?;
                if kind == Type::Delete {
                    state.groups.remove(&id);
                    return Ok(());
                }
                let group = MulticastGroup {
                    replicas: replicas(&wire.replicas, &what)?,
                    metadata: wire.metadata.clone(),
                };
                state.groups.insert(id, group);
            }
            Kind::CloneSessionEntry(wire) => {
                let id = wire.session_id;
                let what = format!("clone session {id}");
                check_id(id, MAX_SESSION_ID, &what)?;
                check_known(kind, state.sessions.contains_key(&id), &what)?;
                check_room(kind, state.sessions.len(), &what)?;
                if kind == Type::Delete {
                    state.sessions.remove(&id);
                    return Ok(());
                }
                if wire.packet_length_bytes < 0 {
                    return Err(Fault::invalid(format!("{what}: negative length")));
                }
                let session = CloneSession {
                    replicas: replicas(&wire.replicas, &what)?,
                    class_of_service: wire.class_of_service,
                    packet_length_bytes: wire.packet_length_bytes,
                };
                state.sessions.insert(id, session);
            }
        }
        Ok(())
    }
}

fn check_id(id: u32, limit: u32, what: &str) -> Result<(), Fault> {
    if id == 0 {
        return Err(Fault::invalid(format!("{what}: the id must not be 0")));
    }
    if id > limit {
        return Err(Fault::out_of_range(format!("{what}: ids go up to {limit}")));
    }
    Ok(())
}

fn check_known(kind: Type, known: bool, what: &str) -> Result<(), Fault> {
    match (kind, known) {
        (Type::Insert, true) => Err(Fault::exists(format!("{what} exists already"))),
        (Type::Modify | Type::Delete, false) => Err(Fault::not_found(format!("{what}: unknown"))),
        _ => Ok(()),
    }
}

fn check_room(kind: Type, len: usize, what: &str) -> Result<(), Fault> {
    if kind == Type::Insert && len >= MAX_GROUPS {
        return Err(Fault::new(
            Code::ResourceExhausted,
            format!("{what}: there are {MAX_GROUPS} already"),
        ));
    }
    Ok(())
}

/// Reads groups or sessions; id 0 means all.
pub(crate) fn read_entries(
    state: &crate::state::State,
    wire: &pb::PacketReplicationEngineEntry,
) -> Result<Vec<pb::PacketReplicationEngineEntry>, Fault> {
    let entry = wire.r#type.as_ref();
    let entry = entry.ok_or_else(|| Fault::invalid("empty packet replication entry"))?;
    let state = read(&state.replication);
    let wanted = |wanted: u32, id: u32| wanted == 0 || wanted == id;
    let mut out: Vec<(u32, Kind)> = match entry {
        Kind::MulticastGroupEntry(wire) => state
            .groups
            .iter()
            .filter(|(id, _)| wanted(wire.multicast_group_id, **id))
            .map(|(id, group)| {
                let entry = pb::MulticastGroupEntry {
                    multicast_group_id: *id,
                    replicas: wire_replicas(&group.replicas),
                    metadata: group.metadata.clone(),
                };
                (*id, Kind::MulticastGroupEntry(entry))
            })
            .collect(),
        Kind::CloneSessionEntry(wire) => state
            .sessions
            .iter()
            .filter(|(id, _)| wanted(wire.session_id, **id))
            .map(|(id, session)| {
                let entry = pb::CloneSessionEntry {
                    session_id: *id,
                    replicas: wire_replicas(&session.replicas),
                    class_of_service: session.class_of_service,
                    packet_length_bytes: session.packet_length_bytes,
                };
                (*id, Kind::CloneSessionEntry(entry))
            })
            .collect(),
    };
    out.sort_by_key(|(id, _)| *id);
    let entries = out.into_iter();
    let entries = entries.map(|(_, kind)| pb::PacketReplicationEngineEntry { r#type: Some(kind) });
    Ok(entries.collect())
}
