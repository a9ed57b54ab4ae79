//! Who may write: election ids and roles (P4Runtime, "Client arbitration and controller
//! replication"). Pure: it says who is to be told what, and sends nothing.

use std::collections::{BTreeMap, HashMap};

use p4runtime::google::rpc;
use p4runtime::p4::v1 as pb;
use tonic::Code;

use super::fault::Fault;

/// A stream's number, in the order in which they were opened.
pub(crate) type StreamId = u64;

/// The most streams held at a time.
const MAX_STREAMS: usize = 64;

/// One role's clients.
#[derive(Debug, Default)]
struct Role {
    /// The highest id that ever was primary.
    highest: Option<u128>,
    primary: Option<StreamId>,
    clients: BTreeMap<StreamId, Option<u128>>,
}

/// All roles of the device.
#[derive(Debug, Default)]
pub(crate) struct Arbitration {
    roles: HashMap<String, Role>,
}

/// Messages to send, each to a stream.
pub(crate) type Notices = Vec<(StreamId, pb::MasterArbitrationUpdate)>;

/// The 128-bit election id.
pub(crate) fn election_id(id: &pb::Uint128) -> u128 {
    u128::from(id.high) << 64 | u128::from(id.low)
}

fn uint128(id: u128) -> pb::Uint128 {
    pb::Uint128 {
        high: (id >> 64) as u64,
        low: id as u64,
    }
}

impl Arbitration {
    /// A client's arbitration message. An error ends the client's stream.
    pub(crate) fn update(
        &mut self,
        stream: StreamId,
        request: &pb::MasterArbitrationUpdate,
        device_id: u64,
    ) -> Result<Notices, Fault> {
        if request.device_id != device_id {
            return Err(Fault::not_found(format!(
                "device {} is unknown; this is device {device_id}",
                request.device_id
            )));
        }
        let name = match &request.role {
            None => String::new(),
            Some(role) if role.config.is_some() => {
                return Err(Fault::unimplemented("role configuration"));
            }
            Some(role) => role.name.clone(),
        };
        let moved = self
            .roles
            .iter()
            .any(|(other, role)| *other != name && role.clients.contains_key(&stream));
        if moved {
            return Err(Fault::precondition("a stream cannot change its role"));
        }
        let streams: usize = self.roles.values().map(|r| r.clients.len()).sum();
        let id = request.election_id.as_ref().map(election_id);
        let role = self.roles.entry(name.clone()).or_default();
        if streams >= MAX_STREAMS && !role.clients.contains_key(&stream) {
            return Err(Fault::new(Code::ResourceExhausted, "too many clients"));
        }
        let taken = id.is_some()
            && role
                .clients
                .iter()
                .any(|(other, used)| *other != stream && *used == id);
        if taken {
            return Err(Fault::invalid(
                "the election id is in use by another client",
            ));
        }
        let was_primary = role.primary == Some(stream);
        let same = role.clients.insert(stream, id) == Some(id);
        if id.is_some() && id >= role.highest {
            role.highest = id;
            role.primary = Some(stream);
            let repeated = was_primary && same;
            return Ok(self.notices(&name, device_id, repeated.then_some(stream)));
        }
        if was_primary {
            role.primary = None;
            return Ok(self.notices(&name, device_id, None));
        }
        Ok(self.notices(&name, device_id, Some(stream)))
    }

    /// A stream ended. Nobody is promoted: a client has to come with a higher id.
    pub(crate) fn leave(&mut self, stream: StreamId, device_id: u64) -> Notices {
        let mut notices = Notices::new();
        let names: Vec<String> = self.roles.keys().cloned().collect();
        for name in names {
            let Some(role) = self.roles.get_mut(&name) else {
                continue;
            };
            if role.clients.remove(&stream).is_some() && role.primary == Some(stream) {
                role.primary = None;
                notices.extend(self.notices(&name, device_id, None));
            }
        }
        notices
    }

    /// The notices to one client of a role, or to all.
    fn notices(&self, name: &str, device_id: u64, only: Option<StreamId>) -> Notices {
        let Some(role) = self.roles.get(name) else {
            return Notices::new();
        };
        let (code, message) = match role.primary {
            Some(_) => (Code::AlreadyExists, "another client is primary"),
            None => (Code::NotFound, "there is no primary"),
        };
        role.clients
            .keys()
            .filter(|stream| only.is_none_or(|only| only == **stream))
            .map(|stream| {
                let status = if role.primary == Some(*stream) {
                    rpc::Status::default()
                } else {
                    rpc::Status {
                        code: code as i32,
                        message: message.into(),
                        details: Vec::new(),
                    }
                };
                let update = pb::MasterArbitrationUpdate {
                    device_id,
                    role: (!name.is_empty()).then(|| pb::Role {
                        name: name.to_owned(),
                        ..pb::Role::default()
                    }),
                    election_id: role.highest.map(uint128),
                    status: Some(status),
                };
                (*stream, update)
            })
            .collect()
    }

    /// Whether a request of this role and election id comes from the primary.
    pub(crate) fn check(&self, role: &str, id: Option<&pb::Uint128>) -> Result<(), Fault> {
        let Some(found) = self.roles.get(role) else {
            return if role.is_empty() {
                Err(Fault::denied("no client is primary"))
            } else {
                Err(Fault::not_found(format!("role `{role}` is unknown")))
            };
        };
        let primary = found.primary.and_then(|s| found.clients.get(&s).copied());
        match (primary.flatten(), id.map(election_id)) {
            (Some(primary), Some(id)) if primary == id => Ok(()),
            (None, _) => Err(Fault::denied("no client is primary")),
            _ => Err(Fault::denied(
                "the request's election id is not the primary's",
            )),
        }
    }

    /// The default role's primary.
    pub(crate) fn primary(&self) -> Option<StreamId> {
        self.roles.get("").and_then(|r| r.primary)
    }

    /// Whether the stream is its role's primary.
    pub(crate) fn is_primary(&self, stream: StreamId) -> bool {
        self.roles.values().any(|r| r.primary == Some(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(id: Option<u64>) -> pb::MasterArbitrationUpdate {
        pb::MasterArbitrationUpdate {
            device_id: 1,
            election_id: id.map(|low| pb::Uint128 { high: 0, low }),
            ..Default::default()
        }
    }

    fn codes(notices: Notices) -> Vec<(StreamId, i32)> {
        notices
            .into_iter()
            .map(|(s, n)| (s, n.status.unwrap().code))
            .collect()
    }

    const OK: i32 = Code::Ok as i32;
    const BACKUP: i32 = Code::AlreadyExists as i32;
    const NONE: i32 = Code::NotFound as i32;

    #[test]
    fn the_highest_id_is_primary_and_all_hear_of_it() {
        let mut a = Arbitration::default();
        assert_eq!(codes(a.update(1, &hello(Some(5)), 1).unwrap()), [(1, OK)]);
        let both = codes(a.update(2, &hello(Some(9)), 1).unwrap());
        assert_eq!(both, [(1, BACKUP), (2, OK)]);
        assert_eq!(
            codes(a.update(3, &hello(Some(7)), 1).unwrap()),
            [(3, BACKUP)]
        );
        let nine = pb::Uint128 { high: 0, low: 9 };
        assert!(a.check("", Some(&nine)).is_ok());
        assert!(a.check("", None).is_err());
        assert_eq!(a.check("x", None).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn nobody_is_promoted_by_itself() {
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(9)), 1).unwrap();
        a.update(2, &hello(Some(5)), 1).unwrap();
        assert_eq!(codes(a.leave(1, 1)), [(2, NONE)]);
        assert_eq!(codes(a.update(2, &hello(Some(6)), 1).unwrap()), [(2, NONE)]);
        assert_eq!(codes(a.update(2, &hello(Some(9)), 1).unwrap()), [(2, OK)]);
    }

    #[test]
    fn an_unset_id_is_never_primary() {
        let mut a = Arbitration::default();
        assert_eq!(codes(a.update(1, &hello(None), 1).unwrap()), [(1, NONE)]);
        assert_eq!(
            codes(a.update(2, &hello(Some(0)), 1).unwrap()),
            [(1, BACKUP), (2, OK)]
        );
    }

    #[test]
    fn what_is_refused() {
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(5)), 1).unwrap();
        let code = |r: Result<Notices, Fault>| r.unwrap_err().code;
        assert_eq!(code(a.update(2, &hello(Some(5)), 1)), Code::InvalidArgument);
        assert_eq!(code(a.update(2, &hello(Some(6)), 7)), Code::NotFound);
        let mut other = hello(Some(6));
        other.role = Some(pb::Role {
            name: "b".into(),
            ..Default::default()
        });
        assert_eq!(code(a.update(1, &other, 1)), Code::FailedPrecondition);
    }

    #[test]
    fn a_primary_that_lowers_its_id_steps_down() {
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(5)), 1).unwrap();
        assert_eq!(codes(a.update(1, &hello(Some(4)), 1).unwrap()), [(1, NONE)]);
    }
}
