//! Writes the members and groups of action profiles.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use p4runtime::p4::v1 as pb;
use pb::update::Type;
use tonic::Code;

use super::entry;
use super::fault::Fault;
use super::write::Writer;
use crate::info::{ProfileInfo, SizeBy};
use crate::state::profile::{Group, ProfileState, Watch, Weight};
use crate::state::write;

/// The largest weight of one action or member.
const MAX_WEIGHT: i32 = 65_536;

impl ProfileInfo {
    /// The weight of a member or one-shot action. Where weights are not allowed, all are alike.
    pub(crate) fn weight(&self, weight: i32, watch: Watch, what: &str) -> Result<Weight, Fault> {
        let refused = |why: String| Err(Fault::invalid(format!("{what}: weight {weight} {why}")));
        if self.weights_disallowed {
            if weight != 0 {
                return refused("is given, the selector has none".into());
            }
            return Ok(Weight {
                weight: 1,
                given: 0,
                watch,
            });
        }
        let limit = match self.size_by {
            SizeBy::Members { max_weight } if max_weight > 0 => max_weight.min(MAX_WEIGHT),
            _ => MAX_WEIGHT,
        };
        match u32::try_from(weight) {
            Ok(found) if found > 0 && weight <= limit => Ok(Weight {
                weight: found,
                given: weight,
                watch,
            }),
            _ => refused(format!("is not within 1 and {limit}")),
        }
    }

    /// The size of a group of these members, as the selector counts it.
    pub(crate) fn size_of<'w>(&self, weights: impl Iterator<Item = &'w Weight>) -> usize {
        match self.size_by {
            SizeBy::Weights => weights.map(|w| w.weight as usize).sum(),
            SizeBy::Members { .. } => weights.count(),
        }
    }
}

impl Writer<'_> {
    fn profile(&self, id: u32) -> Result<(&ProfileInfo, &RwLock<ProfileState>), Fault> {
        let found = self.loaded.info.profiles.get(&id);
        let state = found.and_then(|p| self.loaded.state.profiles.get(p.index));
        found.zip(state).ok_or_else(|| {
            let fault = Fault::not_found(format!("there is no action profile of id {id:#x}"));
            fault.pi(Code::InvalidArgument)
        })
    }

    pub(crate) fn member(&self, kind: Type, wire: &pb::ActionProfileMember) -> Result<(), Fault> {
        let (profile, state) = self.profile(wire.action_profile_id)?;
        let table = entry::table(&self.loaded.info, profile.table)?;
        let id = wire.member_id;
        let what = || format!("action profile {}, member {id}", profile.name);
        if id == 0 {
            return Err(Fault::invalid(format!("{}: the id must not be 0", what())));
        }
        let mut state = write(state);
        check_manual(&state, profile)?;
        let old = state.members.get(&id).cloned();
        if kind == Type::Delete {
            if old.is_none() {
                return Err(unknown(&what()));
            }
            if state.member_uses.contains_key(&id) {
                return Err(in_use(&what()));
            }
            state.members.remove(&id);
        } else {
            let action = wire.action.as_ref();
            let action =
                action.ok_or_else(|| Fault::invalid(format!("{}: it has no action", what())))?;
            let call = Arc::new(entry::call(&self.loaded.info, table, action, false)?);
            match (kind, &old) {
                (Type::Insert, Some(_)) => return Err(exists(&what())),
                (Type::Insert, None) if state.members.len() >= profile.size => {
                    let why = format!("action profile {} is full", profile.name);
                    return Err(Fault::new(Code::ResourceExhausted, why).pi(Code::Unknown));
                }
                (Type::Modify, None) => return Err(unknown(&what())),
                _ => {}
            }
            state.members.insert(id, call);
        }
        let index = profile.index;
        self.log.note(|| {
            move |w: &Writer<'_>| {
                let Some(state) = w.loaded.state.profiles.get(index) else {
                    return;
                };
                match old {
                    Some(old) => write(state).members.insert(id, old),
                    None => write(state).members.remove(&id),
                };
            }
        });
        Ok(())
    }

    pub(crate) fn group(&self, kind: Type, wire: &pb::ActionProfileGroup) -> Result<(), Fault> {
        let (profile, state) = self.profile(wire.action_profile_id)?;
        let id = wire.group_id;
        let what = || format!("action profile {}, group {id}", profile.name);
        if !profile.with_selector {
            return Err(Fault::invalid(format!("{}: it has no selector", what())));
        }
        if id == 0 {
            return Err(Fault::invalid(format!("{}: the id must not be 0", what())));
        }
        let mut state = write(state);
        check_manual(&state, profile)?;
        let old = state.groups.get(&id).cloned();
        if kind == Type::Delete {
            if old.is_none() {
                return Err(unknown(&what()));
            }
            if state.group_uses.contains_key(&id) {
                return Err(in_use(&what()));
            }
            state.set_group(id, None);
        } else {
            match (kind, &old) {
                (Type::Insert, Some(_)) => return Err(exists(&what())),
                (Type::Insert, None) => check_max_size(profile, wire.max_size, &what())?,
                (_, None) => return Err(unknown(&what())),
                (_, Some(old)) if old.max_size != wire.max_size => {
                    return Err(Fault::invalid(format!(
                        "{}: max_size is {}, which cannot change",
                        what(),
                        old.max_size
                    )));
                }
                _ => {}
            }
            let members = group_members(profile, &state, wire, &what())?;
            state.set_group(id, Some(Group::new(members, wire.max_size)));
        }
        let index = profile.index;
        self.log.note(|| {
            move |w: &Writer<'_>| {
                if let Some(state) = w.loaded.state.profiles.get(index) {
                    write(state).set_group(id, old);
                }
            }
        });
        Ok(())
    }
}

/// The members that a group is to have.
fn group_members(
    profile: &ProfileInfo,
    state: &ProfileState,
    wire: &pb::ActionProfileGroup,
    what: &str,
) -> Result<BTreeMap<u32, Weight>, Fault> {
    let mut members = BTreeMap::new();
    for member in &wire.members {
        use pb::action_profile_group::member::WatchKind;
        let id = member.member_id;
        let watch = match &member.watch_kind {
            None => Watch::None,
            Some(WatchKind::Watch(port)) => Watch::Number(*port),
            Some(WatchKind::WatchPort(port)) => {
                Watch::Bytes(super::value::port(port, "watch_port")?)
            }
        };
        let weight = profile.weight(member.weight, watch, &format!("{what}, member {id}"))?;
        if !state.members.contains_key(&id) {
            return Err(Fault::not_found(format!("{what}: there is no member {id}")));
        }
        if members.insert(id, weight).is_some() {
            let why = format!("{what}: member {id} is given twice");
            return Err(Fault::invalid(why));
        }
    }
    let size = profile.size_of(members.values());
    let limit = match usize::try_from(wire.max_size) {
        Ok(limit) if limit > 0 => limit,
        _ => profile.max_group_size,
    };
    if limit > 0 && size > limit {
        let why = format!("{what}: its size is {size}, over {limit}");
        return Err(Fault::new(Code::ResourceExhausted, why));
    }
    Ok(members)
}

/// P4Runtime, "Rules on Setting max_size".
fn check_max_size(profile: &ProfileInfo, max_size: i32, what: &str) -> Result<(), Fault> {
    let limit = profile.max_group_size;
    let size = usize::try_from(max_size)
        .map_err(|_| Fault::invalid(format!("{what}: max_size {max_size} is negative")))?;
    if limit > 0 && (size == 0 || size > limit) {
        return Err(Fault::invalid(format!(
            "{what}: max_size {size} is not within 1 and {limit}, the selector's max_group_size"
        )));
    }
    Ok(())
}

/// A selector is programmed either by members and groups, or in one shot.
fn check_manual(state: &ProfileState, profile: &ProfileInfo) -> Result<(), Fault> {
    if state.one_shots == 0 {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "action profile {}: entries have action sets, and so it takes no members and groups",
        profile.name
    )))
}

fn exists(what: &str) -> Fault {
    Fault::exists(format!("{what}: it exists already"))
}

fn unknown(what: &str) -> Fault {
    Fault::not_found(format!("{what}: unknown"))
}

fn in_use(what: &str) -> Fault {
    Fault::precondition(format!("{what}: it is in use")).pi(Code::Unknown)
}
