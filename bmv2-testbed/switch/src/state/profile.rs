//! Action profiles: members and groups.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An action with its packed arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) slot: u16,
    pub(crate) args: Box<[u8]>,
}

/// A group's or a one-shot's weighted choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) weight: u32,
    /// The weight as the client gave it; 0 where a selector has none.
    pub(crate) given: i32,
    /// The port watched, as the client gave it.
    pub(crate) watch: Watch,
}

/// A watch port: none, or a port (bytes or the older number).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    None,
    Bytes(u32),
    Number(i32),
}

/// A group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<u32, Weight>,
    pub(crate) max_size: i32,
    /// Member ids, each as often as its weight: all once, in order, then the others. So does bmv2,
    /// where a weight is further members behind all others.
    order: Vec<u32>,
}

impl Group {
    /// A group of these members.
    pub(crate) fn new(members: BTreeMap<u32, Weight>, max_size: i32) -> Self {
        let more = |(id, w): (&u32, &Weight)| {
            std::iter::repeat_n(*id, (w.weight as usize).saturating_sub(1))
        };
        let once = members.iter().filter(|(_, w)| w.weight > 0).map(|m| *m.0);
        let order = once.chain(members.iter().flat_map(more)).collect();
        Self {
            members,
            max_size,
            order,
        }
    }

    /// The member for a hash; none if the group is empty.
    #[inline]
    pub(crate) fn choose(&self, hash: u64) -> Option<u32> {
        let len = self.order.len() as u64;
        let index = hash.checked_rem(len)?;
        self.order.get(index as usize).copied()
    }
}

/// The actions of a one-shot selector entry.
#[derive(Debug)]
pub(crate) struct OneShot {
    pub(crate) actions: Vec<(Call, Weight)>,
    /// Selection mode and size semantics, as the client gave them.
    pub(crate) wire: (i32, i32),
    order: Vec<u32>,
}

impl OneShot {
    /// A set of weighted actions.
    pub(crate) fn new(actions: Vec<(Call, Weight)>, wire: (i32, i32)) -> Self {
        let order = actions
            .iter()
            .enumerate()
            .flat_map(|(i, (_, w))| std::iter::repeat_n(i as u32, w.weight as usize))
            .collect();
        Self {
            actions,
            wire,
            order,
        }
    }

    /// Index and action for a hash.
    #[inline]
    pub(crate) fn choose(&self, hash: u64) -> Option<(u32, &Call)> {
        let index = hash.checked_rem(self.order.len() as u64)?;
        let action = *self.order.get(index as usize)?;
        let chosen = self.actions.get(action as usize)?;
        Some((action, &chosen.0))
    }
}

/// What a profile holds.
#[derive(Debug, Default)]
pub(crate) struct ProfileState {
    pub(crate) members: HashMap<u32, Arc<Call>>,
    pub(crate) groups: HashMap<u32, Group>,
    /// How many entries and groups refer to each member, and how many entries to each group.
    pub(crate) member_uses: HashMap<u32, usize>,
    pub(crate) group_uses: HashMap<u32, usize>,
    /// Entries with an action set.
    pub(crate) one_shots: usize,
}

impl ProfileState {
    /// Notes one more (or one less) use of a member.
    pub(crate) fn use_member(&mut self, id: u32, more: bool) {
        adjust(&mut self.member_uses, id, more);
    }

    /// Notes one more (or one less) entry with an action set.
    pub(crate) fn use_one_shot(&mut self, more: bool) {
        self.one_shots = match more {
            true => self.one_shots + 1,
            false => self.one_shots.saturating_sub(1),
        };
    }

    /// Sets or removes a group, and counts its members' uses.
    pub(crate) fn set_group(&mut self, id: u32, group: Option<Group>) {
        for member in group.iter().flat_map(|g| g.members.keys()) {
            adjust(&mut self.member_uses, *member, true);
        }
        let old = match group {
            Some(group) => self.groups.insert(id, group),
            None => self.groups.remove(&id),
        };
        for member in old.iter().flat_map(|g| g.members.keys()) {
            adjust(&mut self.member_uses, *member, false);
        }
    }

    /// Notes one more (or one less) use of a group.
    pub(crate) fn use_group(&mut self, id: u32, more: bool) {
        adjust(&mut self.group_uses, id, more);
    }
}

fn adjust(uses: &mut HashMap<u32, usize>, id: u32, more: bool) {
    if more {
        *uses.entry(id).or_default() += 1;
    } else if let Some(count) = uses.get_mut(&id) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            uses.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_repeat_members() {
        let weight = |weight| Weight {
            weight,
            given: weight as i32,
            watch: Watch::None,
        };
        let group = Group::new([(7, weight(2)), (3, weight(3))].into(), 0);
        let chosen: Vec<_> = (0..6).map(|h| group.choose(h)).collect();
        assert_eq!(chosen, [3, 7, 3, 3, 7, 3].map(Some));
        assert_eq!(Group::default().choose(5), None);
    }
}
