//! Parser value sets on the wire (P4Runtime, "ValueSetEntry").

use std::collections::HashSet;

use p4runtime::p4::v1 as pb;
use tonic::Code;

use super::entry::pack;
use super::fault::Fault;
use super::wire;
use super::write::Writer;
use crate::info::ValueSetInfo;
use crate::program::table::Match;
use crate::state::value_set::{Member, ValueSetState};
use crate::state::{read, write};
use crate::switch::Loaded;

fn unknown(id: u32) -> Fault {
    Fault::not_found(format!("there is no value set of id {id:#x}"))
}

impl Writer<'_> {
    /// Replaces a set's members.
    pub(super) fn value_set(&self, wire: &pb::ValueSetEntry) -> Result<(), Fault> {
        let (index, new) = members(self.loaded, wire)?;
        let Some(state) = self.loaded.state.value_sets.get(index) else {
            return Ok(());
        };
        let old = std::mem::replace(&mut *write(state), new);
        self.log.note(|| {
            move |w: &Writer<'_>| {
                if let Some(state) = w.loaded.state.value_sets.get(index) {
                    *write(state) = old;
                }
            }
        });
        Ok(())
    }
}

/// The set's index, and what it is to hold.
fn members(loaded: &Loaded, wire: &pb::ValueSetEntry) -> Result<(usize, ValueSetState), Fault> {
    let id = wire.value_set_id;
    let set = loaded.info.value_sets.get(&id).ok_or_else(|| unknown(id))?;
    if wire.members.len() > set.size {
        return Err(Fault::new(
            Code::ResourceExhausted,
            format!(
                "value set {}: {} members were given, it holds {}",
                set.name,
                wire.members.len(),
                set.size
            ),
        ));
    }
    let mut members = Vec::with_capacity(wire.members.len());
    let mut known = HashSet::new();
    for (i, member) in wire.members.iter().enumerate() {
        let owner = || format!("value set {}, member {i}", set.name);
        let mut value = vec![0; set.key_bytes];
        let mut mask = vec![0; set.key_bytes];
        pack(&set.fields, &member.r#match, &mut value, &mut mask, &owner)?;
        let member = Member {
            value: value.into(),
            mask: mask.into(),
        };
        if !known.insert(member.clone()) {
            return Err(Fault::invalid(format!("{}: it is given twice", owner())));
        }
        members.push(member);
    }
    let ranges = set.fields.iter().filter(|f| f.kind == Match::Range);
    let new = ValueSetState {
        members,
        ranges: ranges.map(|f| (f.offset, f.bytes)).collect(),
    };
    Ok((set.index, new))
}

/// One set, or all if the id is 0.
pub(crate) fn read_entries(
    loaded: &Loaded,
    wire: &pb::ValueSetEntry,
) -> Result<Vec<pb::ValueSetEntry>, Fault> {
    let sets = &loaded.info.value_sets;
    if wire.value_set_id != 0 {
        let id = wire.value_set_id;
        let set = sets.get(&id).ok_or_else(|| unknown(id))?;
        return Ok(vec![entry(loaded, set)]);
    }
    let mut all: Vec<_> = sets.values().collect();
    all.sort_by_key(|set| set.id);
    Ok(all.into_iter().map(|set| entry(loaded, set)).collect())
}

fn entry(loaded: &Loaded, set: &ValueSetInfo) -> pb::ValueSetEntry {
    let members = loaded.state.value_sets.get(set.index);
    let members = members.map_or_else(Vec::new, |state| read(state).members.clone());
    let members = members.iter().map(|member| pb::ValueSetMember {
        r#match: wire::matches(&set.fields, &member.value, &member.mask),
    });
    pb::ValueSetEntry {
        value_set_id: set.id,
        members: members.collect(),
    }
}
