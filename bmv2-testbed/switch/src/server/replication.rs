//! Multicast groups and clone sessions on the wire.

use std::collections::{HashMap, HashSet};

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
/// `egress_rid` has 16 bits.
const MAX_INSTANCE: u32 = 65_535;
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
    let mut taken = HashSet::new();
    let mut take = |port: u32, instance: u32| {
        if instance > MAX_INSTANCE {
            return Err(Fault::invalid(format!(
                "{what}: instance {instance} is over {MAX_INSTANCE}"
            )));
        }
        if !taken.insert((port, instance)) {
            return Err(Fault::invalid(format!(
                "{what}: port {port} with instance {instance} is given twice"
            )));
        }
        Ok(())
    };
    for replica in wire {
        use pb::replica::PortKind;
        let (number, by_bytes) = match &replica.port_kind {
            None => return Err(Fault::invalid(format!("{what}: a replica has no port"))),
            Some(PortKind::EgressPort(number)) => (*number, false),
            Some(PortKind::Port(bytes)) => (port(bytes, what)?, true),
        };
        take(number, replica.instance)?;
        let mut backups = Vec::new();
        for backup in &replica.backup_replicas {
            let spare = port(&backup.port, what)?;
            if spare == number {
                return Err(Fault::invalid(format!(
                    "{what}: port {number} is a backup of itself"
                )));
            }
            take(spare, backup.instance)?;
            backups.push((Watch::Bytes(spare), backup.instance));
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
                let new = || {
                    Ok(MulticastGroup {
                        replicas: replicas(&wire.replicas, &what)?,
                        metadata: wire.metadata.clone(),
                    })
                };
                let old = set(kind, &mut state.groups, id, new, &what)?;
                self.log.note(|| {
                    move |w: &Writer<'_>| {
                        let groups = &mut write(&w.loaded.state.replication).groups;
                        restore(groups, id, old);
                    }
                });
            }
            Kind::CloneSessionEntry(wire) => {
                let id = wire.session_id;
                let what = format!("clone session {id}");
                check_id(id, MAX_SESSION_ID, &what)?;
                let new = || {
                    if wire.packet_length_bytes < 0 {
                        return Err(Fault::invalid(format!("{what}: negative length")));
                    }
                    Ok(CloneSession {
                        replicas: replicas(&wire.replicas, &what)?,
                        class_of_service: wire.class_of_service,
                        packet_length_bytes: wire.packet_length_bytes,
                    })
                };
                let old = set(kind, &mut state.sessions, id, new, &what)?;
                self.log.note(|| {
                    move |w: &Writer<'_>| {
                        let sessions = &mut write(&w.loaded.state.replication).sessions;
                        restore(sessions, id, old);
                    }
                });
            }
        }
        Ok(())
    }
}

/// Inserts, replaces or removes one; returns what was there.
fn set<T>(
    kind: Type,
    all: &mut HashMap<u32, T>,
    id: u32,
    new: impl FnOnce() -> Result<T, Fault>,
    what: &str,
) -> Result<Option<T>, Fault> {
    let known = all.contains_key(&id);
    match (kind, known) {
        (Type::Insert, true) => return Err(Fault::exists(format!("{what} exists already"))),
        (Type::Modify | Type::Delete, false) => {
            return Err(Fault::not_found(format!("{what}: unknown")));
        }
        _ => {}
    }
    if kind == Type::Delete {
        return Ok(all.remove(&id));
    }
    if !known && all.len() >= MAX_GROUPS {
        return Err(Fault::new(
            Code::ResourceExhausted,
            format!("{what}: there are {MAX_GROUPS} already"),
        ));
    }
    Ok(all.insert(id, new()?))
}

fn restore<T>(all: &mut HashMap<u32, T>, id: u32, old: Option<T>) {
    match old {
        Some(old) => all.insert(id, old),
        None => all.remove(&id),
    };
}

fn check_id(id: u32, limit: u32, what: &str) -> Result<(), Fault> {
    if id == 0 {
        return Err(Fault::invalid(format!("{what}: the id must not be 0")));
    }
    if id > limit {
        let fault = Fault::out_of_range(format!("{what}: ids go up to {limit}"));
        let pi = match limit {
            MAX_SESSION_ID => Code::InvalidArgument,
            _ => Code::OutOfRange,
        };
        return Err(fault.pi(pi));
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
