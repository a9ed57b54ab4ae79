//! Who may write: election ids and roles (P4Runtime, "Client arbitration and controller
//! replication"). Pure: it says who is to be told what, and sends nothing.

use std::collections::{BTreeMap, HashMap};

use p4runtime::google::rpc;
use p4runtime::p4::v1 as pb;
use tonic::Code;

use super::deviation::Deviations;
use super::fault::Fault;

/// A stream's number, in the order in which they were opened.
pub(crate) type StreamId = u64;

/// The most streams held at a time.
const MAX_STREAMS: usize = 64;
/// The most roles. Each is remembered for good, since its highest election id has to be.
const MAX_ROLES: usize = 64;

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
    rules: Deviations,
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

impl Role {
    /// Chooses the primary after `changed` came, or changed its id.
    fn elect(&mut self, changed: StreamId, promotes: bool) {
        if promotes {
            self.promote();
            return;
        }
        let id = self.clients.get(&changed).copied().flatten();
        if id.is_some() && id >= self.highest {
            self.highest = id;
            self.primary = Some(changed);
        } else if self.primary == Some(changed) {
            self.primary = None;
        }
    }

    /// Makes the client with the highest id primary, whatever ids were seen before.
    fn promote(&mut self) {
        let clients = self.clients.iter();
        let best = clients
            .filter_map(|(stream, id)| Some(((*id)?, *stream)))
            .max();
        self.primary = best.map(|b| b.1);
        if let Some((id, _)) = best {
            self.highest = Some(id);
        }
    }
}

impl Arbitration {
    /// Arbitration that departs from the specification as told.
    pub(crate) fn new(rules: Deviations) -> Self {
        Self {
            roles: HashMap::new(),
            rules,
        }
    }

    /// The role that a message or request means. PI knows the default one only.
    fn role_name(&self, name: &str) -> String {
        if self.rules.pi {
            String::new()
        } else {
            name.to_owned()
        }
    }

    /// A client's arbitration message. An error ends the client's stream.
    pub(crate) fn update(
        &mut self,
        stream: StreamId,
        request: &pb::MasterArbitrationUpdate,
        device_id: u64,
    ) -> Result<Notices, Fault> {
        let of_stream = |role: &Role| role.clients.contains_key(&stream);
        let known = self.roles.values().any(of_stream);
        if request.device_id != device_id {
            let device = request.device_id;
            return Err(if known {
                Fault::precondition(format!(
                    "a stream cannot change its device from {device_id} to {device}"
                ))
            } else {
                Fault::not_found(format!(
                    "device {device} is unknown; this is device {device_id}"
                ))
            });
        }
        let name = self.role_name(match &request.role {
            Some(role) if !self.rules.pi => checked_role(role)?,
            _ => "",
        });
        let moved = self
            .roles
            .iter()
            .any(|(other, role)| *other != name && of_stream(role));
        if moved {
            return Err(Fault::precondition("a stream cannot change its role"));
        }
        let streams: usize = self.roles.values().map(|r| r.clients.len()).sum();
        if streams >= MAX_STREAMS && !known {
            return Err(exhausted(format!("{MAX_STREAMS} clients are connected")));
        }
        if self.roles.len() >= MAX_ROLES && !self.roles.contains_key(&name) {
            return Err(exhausted(format!("{MAX_ROLES} roles are known")));
        }
        let mut id = request.election_id.as_ref().map(election_id);
        if self.rules.pi {
            id = Some(id.unwrap_or(0));
        }
        let promotes = self.rules.promotes();
        let role = self.roles.entry(name.clone()).or_default();
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
        let before = role.primary;
        let same = role.clients.insert(stream, id) == Some(id);
        if same && self.rules.pi {
            return Ok(Notices::new());
        }
        role.elect(stream, promotes);
        let changed = role.primary != before || (before == Some(stream) && !same);
        Ok(self.notices(&name, device_id, (!changed).then_some(stream)))
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
                if self.rules.promotes() {
                    role.promote();
                }
                notices.extend(self.notices(&name, device_id, None));
            }
        }
        notices
    }

    /// The notices to one client of a role, or to all; the primary's comes last.
    fn notices(&self, name: &str, device_id: u64, only: Option<StreamId>) -> Notices {
        let Some(role) = self.roles.get(name) else {
            return Notices::new();
        };
        let (code, message) = match role.primary {
            Some(_) => (Code::AlreadyExists, "another client is primary"),
            None => (Code::NotFound, "there is no primary"),
        };
        let wanted = |stream: &StreamId| only.is_none_or(|only| only == *stream);
        let mut streams: Vec<StreamId> = role.clients.keys().copied().filter(wanted).collect();
        streams.sort_by_key(|stream| role.primary == Some(*stream));
        let notice = |stream| {
            let status = if role.primary == Some(stream) {
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
            (stream, update)
        };
        streams.into_iter().map(notice).collect()
    }

    /// Whether a request of this role and election id comes from the primary.
    pub(crate) fn check(&self, role: &str, id: Option<&pb::Uint128>) -> Result<(), Fault> {
        let id = id.map(election_id);
        if self.rules.pi {
            return self.check_as_pi(id);
        }
        let Some(found) = self.roles.get(role) else {
            return if role.is_empty() {
                Err(Fault::denied("no client is primary"))
            } else {
                Err(Fault::not_found(format!("role `{role}` is unknown")))
            };
        };
        let primary = found.primary.and_then(|s| found.clients.get(&s).copied());
        match (primary.flatten(), id) {
            (Some(primary), Some(id)) if primary == id => Ok(()),
            (None, _) => Err(Fault::denied("no client is primary")),
            _ => Err(Fault::denied(
                "the request's election id is not the primary's",
            )),
        }
    }

    /// While no stream is open, PI takes whatever comes without an election id.
    fn check_as_pi(&self, id: Option<u128>) -> Result<(), Fault> {
        let role = self.roles.get("");
        let primary = role.and_then(|r| r.clients.get(&r.primary?).copied().flatten());
        match primary {
            None if id.is_none() => Ok(()),
            Some(primary) if primary == id.unwrap_or(0) => Ok(()),
            _ => Err(Fault::denied("Not primary")),
        }
    }

    /// The primary of every role; a role has the whole pipeline unless it is configured.
    pub(crate) fn primaries(&self) -> Vec<StreamId> {
        self.roles.values().filter_map(|r| r.primary).collect()
    }

    /// Whether the stream is its role's primary.
    pub(crate) fn is_primary(&self, stream: StreamId) -> bool {
        self.roles.values().any(|r| r.primary == Some(stream))
    }
}

/// The name of a role as a client describes it.
fn checked_role(role: &pb::Role) -> Result<&str, Fault> {
    if role.id != 0 {
        return Err(Fault::invalid(
            "numeric role ids are of P4Runtime before 1.4; give the role a name",
        ));
    }
    if role.config.is_some() {
        return Err(Fault::invalid(format!(
            "role `{}`: no configuration scheme is agreed on; without a configuration the role \
             has the whole pipeline",
            role.name
        )));
    }
    Ok(&role.name)
}

fn exhausted(why: String) -> Fault {
    Fault::new(Code::ResourceExhausted, why)
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
    fn a_live_stream_keeps_its_device() {
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(5)), 1).unwrap();
        let mut other = hello(Some(5));
        other.device_id = 2;
        let refused = a.update(1, &other, 1).unwrap_err();
        assert_eq!(refused.code, Code::FailedPrecondition);
        assert_eq!(a.update(2, &other, 1).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn roles_have_names_and_the_whole_pipeline() {
        let role = |name: &str| pb::MasterArbitrationUpdate {
            role: Some(pb::Role {
                name: name.into(),
                ..Default::default()
            }),
            ..hello(Some(5))
        };
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(5)), 1).unwrap();
        let notices = a.update(2, &role("acl"), 1).unwrap();
        assert_eq!(notices[0].1.role.as_ref().unwrap().name, "acl");
        assert_eq!(codes(notices), [(2, OK)]);
        let five = pb::Uint128 { high: 0, low: 5 };
        assert!(a.check("acl", Some(&five)).is_ok());
        assert_eq!(a.primaries().len(), 2);
        let mut configured = role("other");
        configured.role.as_mut().unwrap().config = Some(Default::default());
        let refused = a.update(3, &configured, 1).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
        for number in 0..MAX_ROLES as u64 {
            let _ = a.update(100 + number, &role(&format!("r{number}")), 1);
            a.leave(100 + number, 1);
        }
        let refused = a.update(3, &role("one too many"), 1).unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
    }

    #[test]
    fn others_hear_of_a_new_primary_before_it_does() {
        let mut a = Arbitration::default();
        a.update(2, &hello(Some(5)), 1).unwrap();
        a.update(1, &hello(Some(1)), 1).unwrap();
        let both = codes(a.update(1, &hello(Some(9)), 1).unwrap());
        assert_eq!(both, [(2, BACKUP), (1, OK)]);
    }

    #[test]
    fn a_server_that_promotes() {
        let mut a = Arbitration::new(Deviations {
            promote: true,
            ..Deviations::default()
        });
        a.update(1, &hello(Some(9)), 1).unwrap();
        a.update(2, &hello(Some(5)), 1).unwrap();
        a.update(3, &hello(None), 1).unwrap();
        assert_eq!(codes(a.leave(1, 1)), [(3, BACKUP), (2, OK)]);
        assert_eq!(codes(a.leave(2, 1)), [(3, NONE)]);
    }

    #[test]
    fn pi_has_no_roles_and_takes_writes_without_a_client() {
        let mut a = Arbitration::new(Deviations {
            pi: true,
            ..Deviations::default()
        });
        assert!(a.check("any", None).is_ok());
        let five = pb::Uint128 { high: 0, low: 5 };
        assert!(a.check("", Some(&five)).is_err());
        // An unset id is 0, and 0 may be primary.
        assert_eq!(codes(a.update(1, &hello(None), 1).unwrap()), [(1, OK)]);
        assert!(a.check("", None).is_ok());
        assert_eq!(a.update(1, &hello(None), 1).unwrap(), []);
        let mut named = hello(Some(5));
        named.role = Some(pb::Role {
            name: "b".into(),
            ..Default::default()
        });
        let notices = a.update(2, &named, 1).unwrap();
        assert_eq!(notices[0].1.role, None);
        assert_eq!(codes(notices), [(1, BACKUP), (2, OK)]);
        assert!(a.check("c", Some(&five)).is_ok());
        assert_eq!(codes(a.leave(2, 1)), [(1, OK)]);
    }

    #[test]
    fn a_primary_that_lowers_its_id_steps_down() {
        let mut a = Arbitration::default();
        a.update(1, &hello(Some(5)), 1).unwrap();
        assert_eq!(codes(a.update(1, &hello(Some(4)), 1).unwrap()), [(1, NONE)]);
    }
}
