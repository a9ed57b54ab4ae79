//! Walks the control flow: tables, conditions, action calls.

use super::code::copy_short;
use super::memo;
use super::trace::{Event, Found, Via, trace};
use super::{Context, Packet};
use crate::code::At;
use crate::program::Node;
use crate::program::table::{Key, KeyStep, MAX_KEY_BYTES, Table};
use crate::state::entry::{Entry, Target};
use crate::state::profile::Call;
use crate::state::table::TableState;
use crate::state::{lock, read};

/// A flow that visits more nodes than this loops; p4c writes none.
const MAX_NODES: usize = 100_000;

impl Context<'_> {
    /// Runs a pipeline from its first node, or its code if nobody wants to know the way.
    pub(crate) fn pipeline(&mut self, start: Option<usize>, code: Option<At>, packet: &mut Packet) {
        if self.trace.is_none()
            && !packet.exited
            && let Some(code) = code
        {
            // Nothing but a parser ends with an error.
            let _ = self.execute(code, false, packet);
            return;
        }
        let program = self.program;
        let mut next = start;
        for _ in 0..MAX_NODES {
            let Some((index, node)) = next.and_then(|n| Some((n, program.nodes.get(n)?))) else {
                return;
            };
            next = match node {
                Node::Table(table) => match program.tables.get(*table) {
                    Some(found) => self.table(*table, found, packet),
                    None => None,
                },
                Node::Condition {
                    condition, yes, no, ..
                } => {
                    let holds = condition.test(&packet.buf);
                    trace!(self, Event::Condition { node: index, holds });
                    if holds { *yes } else { *no }
                }
                Node::Call { action, next } => {
                    self.run(*action, packet);
                    *next
                }
            };
            if packet.exited {
                return;
            }
        }
    }

    /// Looks the packet up, runs the action and says where to go.
    fn table(&mut self, index: usize, table: &Table, packet: &mut Packet) -> Option<usize> {
        // The compiler makes a table of every bare statement: no key, one constant action.
        if table.key.is_empty()
            && table.const_default
            && let Some(default) = &table.default
        {
            self.load_args(&default.args, packet);
            self.trace_lookup(index, &[], || Found::Nothing);
            return self.finish(table, (false, Some(default.slot)), packet);
        }
        let found = self.look_up(index, table, packet);
        self.finish(table, found, packet)
    }

    /// Builds the key and finds the entry; see [`Context::find`].
    #[inline]
    pub(super) fn look_up(
        &mut self,
        index: usize,
        table: &Table,
        packet: &mut Packet,
    ) -> (bool, Option<u16>) {
        let Some(state) = self.state.tables.get(index) else {
            return (false, None);
        };
        if table.key_bytes <= memo::KEY_BYTES && !table.key.is_empty() && self.trace.is_none() {
            self.look_up_short(index, table, state, packet)
        } else {
            let mut space = [0; MAX_KEY_BYTES];
            let key = space.get_mut(..table.key_bytes).unwrap_or_default();
            build_key(table, packet, key);
            self.find(index, table, state, key, packet)
        }
    }

    /// As [`Context::find`], unless the last packet had the same key.
    #[inline]
    fn look_up_short(
        &mut self,
        index: usize,
        table: &Table,
        state: &TableState,
        packet: &mut Packet,
    ) -> (bool, Option<u16>) {
        let mut space = [0; memo::KEY_BYTES];
        let key = space.get_mut(..table.key_bytes).unwrap_or_default();
        build_key(table, packet, key);
        let version = state.version();
        let bytes = packet.ingress_length;
        let known = self
            .memos
            .take(index, version, &space, table.key_bytes, bytes);
        let key = space.get(..table.key_bytes).unwrap_or_default();
        let slot = match known {
            Some(entry) => {
                let slot = self.apply(index, table, key, &entry, packet);
                self.memos.keep(index, entry);
                slot
            }
            None => {
                // Not while the table is locked, for it is locked to count.
                self.memos.settle(index, self.state, self.now_ns);
                state.look_up(key, |entry| {
                    self.memos
                        .note(index, version, &space, table.key_bytes, entry);
                    self.used(index, table, key, entry, packet)
                })
            }
        };
        match slot {
            None => self.miss(state, packet),
            slot => (true, slot),
        }
    }

    fn finish(
        &mut self,
        table: &Table,
        (hit, slot): (bool, Option<u16>),
        packet: &mut Packet,
    ) -> Option<usize> {
        if let Some(slot) = slot {
            if let Some(action) = table.actions.get(usize::from(slot)) {
                self.run(*action, packet);
            }
        } else {
            trace!(self, Event::NoAction);
        }
        table.next.after(hit, slot)
    }

    /// Finds the entry, counts, and loads the arguments. Returns whether it hit and the action's
    /// slot.
    fn find(
        &mut self,
        index: usize,
        table: &Table,
        state: &TableState,
        key: &[u8],
        packet: &mut Packet,
    ) -> (bool, Option<u16>) {
        // A table without key has nothing but its default action.
        if table.key.is_empty() {
            self.trace_lookup(index, key, || Found::Miss);
            return self.miss(state, packet);
        }
        let used = |entry: Option<&Entry>| self.used(index, table, key, entry, packet);
        match state.look_up(key, used) {
            // An empty group does what a miss does.
            None => self.miss(state, packet),
            slot => (true, slot),
        }
    }

    /// Uses what a look-up found; none if that is nothing to run.
    #[inline]
    pub(super) fn used(
        &mut self,
        index: usize,
        table: &Table,
        key: &[u8],
        entry: Option<&Entry>,
        packet: &mut Packet,
    ) -> Option<u16> {
        match entry {
            Some(entry) => self.use_entry(index, table, key, entry, packet),
            None => {
                self.trace_lookup(index, key, || Found::Miss);
                None
            }
        }
    }

    /// Loads the default action's arguments.
    pub(super) fn miss(&self, state: &TableState, packet: &mut Packet) -> (bool, Option<u16>) {
        let default = state.default.load();
        let Some(default) = default.as_deref() else {
            return (false, None);
        };
        self.load_args(&default.args, packet);
        (false, Some(default.slot))
    }

    /// Counts a hit and loads the action's arguments; none if the entry's group is empty.
    fn use_entry(
        &mut self,
        index: usize,
        table: &Table,
        key: &[u8],
        entry: &Entry,
        packet: &mut Packet,
    ) -> Option<u16> {
        let bytes = packet.ingress_length as u64;
        entry.hit(table.with_counters, 1, bytes, self.now_ns);
        self.apply(index, table, key, entry, packet)
    }

    /// What an entry does, once it is counted.
    #[inline]
    fn apply(
        &mut self,
        index: usize,
        table: &Table,
        key: &[u8],
        entry: &Entry,
        packet: &mut Packet,
    ) -> Option<u16> {
        if let (Some((meter, target)), Some(cell)) = (table.meter, entry.meter()) {
            let bytes = self.program.meters.get(meter).is_some_and(|m| m.bytes);
            let units = if bytes {
                packet.ingress_length as u64
            } else {
                1
            };
            let colour = lock(cell).execute(units, packet.ingress_length, self.now_ns);
            target.store(&mut packet.buf, i128::from(colour));
            trace!(self, Event::DirectMeter { meter, colour });
        } else if let Some((_, target)) = table.meter {
            // An entry without rates: green.
            target.store(&mut packet.buf, 0);
        }
        let (slot, via) = match entry.target() {
            Target::Call { slot, args } => {
                self.load_args(args, packet);
                (Some(slot), Via::Action)
            }
            Target::OneShot(set) => {
                let chosen = set.choose(self.selector_hash(table, packet));
                let slot = chosen.map(|(_, call)| self.load(call, packet));
                (slot, Via::OneShot(chosen.map(|(index, _)| index)))
            }
            Target::Member(id) => (self.member(table, id, packet), Via::Member(id)),
            Target::Group(id) => {
                let (slot, member) = self.group(table, id, packet).unzip();
                (slot, Via::Group(id, member))
            }
        };
        self.trace_lookup(index, key, || Found::Entry(entry.pattern(), via));
        slot
    }

    fn member(&self, table: &Table, id: u32, packet: &mut Packet) -> Option<u16> {
        let profile = read(self.state.profiles.get(table.profile?)?);
        let call = profile.members.get(&id)?;
        Some(self.load(call, packet))
    }

    /// Slot and id of the member that the group's choice falls on.
    fn group(&self, table: &Table, id: u32, packet: &mut Packet) -> Option<(u16, u32)> {
        let profile = read(self.state.profiles.get(table.profile?)?);
        let group = profile.groups.get(&id)?;
        let member = group.choose(self.selector_hash(table, packet))?;
        let call = profile.members.get(&member)?;
        Some((self.load(call, packet), member))
    }

    fn selector_hash(&self, table: &Table, packet: &Packet) -> u64 {
        let profile = table.profile.and_then(|p| self.program.profiles.get(p));
        match profile.and_then(|p| p.selector.as_ref()) {
            Some((algorithm, input)) => self.hash(*algorithm, input, None, packet),
            None => 0,
        }
    }

    fn load(&self, call: &Call, packet: &mut Packet) -> u16 {
        self.load_args(&call.args, packet);
        call.slot
    }

    #[inline]
    fn load_args(&self, args: &[u8], packet: &mut Packet) {
        let start = self.program.layout.args_start;
        if let Some(to) = packet.buf.get_mut(start..start + args.len()) {
            copy_short(to, args);
        }
    }

    #[inline]
    fn trace_lookup(&mut self, table: usize, key: &[u8], found: impl FnOnce() -> Found) {
        trace!(
            self,
            Event::Lookup {
                table,
                key: key.into(),
                found: found(),
            }
        );
    }
}

/// Builds the key of a packet in zeroed bytes.
#[inline]
pub(super) fn build_key(table: &Table, packet: &Packet, key: &mut [u8]) {
    for step in &table.steps {
        match *step {
            KeyStep::Copy {
                from,
                to,
                len,
                valid,
            } => {
                if valid.is_none_or(|flag| packet.is_valid(flag))
                    && let Some(from) = packet.buf.get(from..from + len)
                    && let Some(to) = key.get_mut(to..to + len)
                {
                    copy_short(to, from);
                }
            }
            KeyStep::Field(position) => {
                if let Some(part) = table.key.get(position) {
                    build_part(part, packet, key);
                }
            }
        }
    }
}

fn build_part(part: &Key, packet: &Packet, key: &mut [u8]) {
    let Some(out) = key.get_mut(part.offset..part.offset + part.bytes) else {
        return;
    };
    if part.valid.is_none_or(|flag| packet.is_valid(flag)) {
        part.field.export(&packet.buf, out);
        if let Some(mask) = &part.mask {
            for (byte, mask) in out.iter_mut().zip(mask) {
                *byte &= mask;
            }
        }
    }
}
