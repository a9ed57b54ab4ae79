//! A timer wheel over the slots of the connection table.
//!
//! ```text
//!   lists: 2048 of 134 ms, 512 of 69 s ──▶ chunk, 1 to 15 slots ──▶ chunk, 15 ──▶ chunk, 15
//!                                            ▲ who is armed or cancelled fills or leaves this one
//! ```
//!
//! Two levels: 2048 lists of 134 ms, which hold what is due within three turns of 69 s, so all that
//! UDP waits for; then 512 lists of such a turn each, 9.8 h in all; later deadlines wait in the last
//! list and are put back. One timer a slot. Arming and cancelling cost the same however many there
//! are. Nothing is ever scanned; what is due is taken out one by one, and every turn one coarse list
//! is spread over the fine level.
//!
//! A list is made of cache lines of fifteen timers, all full but the first, so that what is due
//! is known before it is its turn, and its memory can be asked for. A list linked through the
//! timers themselves would cost a wait for memory each.

use shunt_dpdk::{huge_pages, prefetch};

/// One tick of the fine level, nanoseconds: 2^27, 134 ms.
const TICK_SHIFT: u32 = 27;
/// Ticks of a turn.
const TURN: u64 = 1 << TURN_BITS;
const TURN_BITS: u32 = 9;
/// Turns that the fine level holds: the one at hand and those after it.
const TURNS: u64 = 4;
/// Lists of the fine level, a tick each.
const FINE: u64 = TURNS * TURN;
/// Lists of the coarse level, a turn each.
const COARSE: u64 = 512;
/// No chunk, no slot.
const NONE: u32 = u32::MAX;
/// Deadlines beyond it (18 years) are due then.
const LAST_TICK: u64 = u32::MAX as u64 - 1;

/// The first tick not before that moment.
#[inline]
fn tick_of(deadline_ns: u64) -> u32 {
    ((deadline_ns >> TICK_SHIFT) + 1).min(LAST_TICK) as u32
}

/// A timer's place; it lies within what the timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Its chunk and its way there, four bits; `NONE` when not armed.
    at: u32,
    /// Its list.
    list: u32,
    /// When it is due, ticks.
    tick: u32,
}

/// A timer that is not armed.
pub(crate) const UNARMED: Link = Link {
    at: NONE,
    list: 0,
    tick: 0,
};

impl Link {
    /// While it is not armed, it may link something else.
    pub(crate) fn set_next(&mut self, next: u32) {
        self.list = next;
    }

    pub(crate) fn next(&self) -> u32 {
        self.list
    }

    /// Whether it is armed, and due no later than if it were armed for that moment.
    #[inline]
    pub(crate) fn fires_by(&self, deadline_ns: u64) -> bool {
        self.at != NONE && self.tick <= tick_of(deadline_ns)
    }
}

/// Where the timers lie.
pub(crate) trait Links {
    /// A slot's timer.
    fn link(&mut self, slot: u32) -> Option<&mut Link>;

    /// It will be put elsewhere soon.
    fn prefetch_link(&self, _slot: u32) {}

    /// It will be due soon.
    fn prefetch(&self, _slot: u32) {}
}

/// Timers of a chunk.
const WAYS: usize = 15;
const WAY_BITS: u32 = 4;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Chunk {
    slots: [u32; WAYS],
    /// The list's next chunk, or the next free one.
    next: u32,
}

const _: () = assert!(size_of::<Chunk>() == 64);

/// A list's first chunk, and how many timers are in it: one at least.
#[derive(Clone, Copy, Debug)]
struct List {
    chunk: u32,
    len: u32,
}

const EMPTY: List = List {
    chunk: NONE,
    len: 0,
};

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    lists: Vec<List>,
    chunks: Vec<Chunk>,
    /// The first chunk that no list has.
    free: u32,
    /// The tick whose list is being emptied.
    now: u64,
    armed: usize,
}

impl Wheel {
    /// For so many timers, without any.
    pub(crate) fn new(timers: usize) -> Self {
        let lists = (FINE + COARSE) as usize;
        // Each list has one chunk that is not full.
        let mut chunks = Vec::with_capacity(timers / WAYS + lists + 1);
        huge_pages(&mut chunks);
        Self {
            lists: vec![EMPTY; lists],
            chunks,
            free: NONE,
            now: 0,
            armed: 0,
        }
    }

    /// Sets the slot's timer to the first tick not before `deadline_ns`.
    pub(crate) fn arm(&mut self, links: &mut impl Links, slot: u32, deadline_ns: u64) {
        self.cancel(links, slot);
        self.put(links, slot, tick_of(deadline_ns));
    }

    /// Clears the slot's timer: the list's first one takes its place.
    pub(crate) fn cancel(&mut self, links: &mut impl Links, slot: u32) {
        let Some(link) = links.link(slot) else {
            return;
        };
        let Link { at, list, .. } = std::mem::replace(link, UNARMED);
        if at == NONE {
            return;
        }
        let Some(first) = self.pop(list as usize) else {
            return;
        };
        if first != slot {
            if let Some(place) = self.place(at) {
                *place = first;
            }
            if let Some(link) = links.link(first) {
                link.at = at;
            }
        }
    }

    /// Takes out one timer that is due at `now_ns`; it is no longer armed.
    pub(crate) fn expire(&mut self, links: &mut impl Links, now_ns: u64) -> Option<u32> {
        let target = now_ns >> TICK_SHIFT;
        if self.armed == 0 {
            self.now = self.now.max(target);
            return None;
        }
        loop {
            let list = (self.now % FINE) as usize;
            if let Some(slot) = self.ahead(list) {
                links.prefetch(slot);
            }
            if let Some(slot) = self.pop(list) {
                if let Some(link) = links.link(slot) {
                    // The fine level holds no more than it has lists for.
                    debug_assert!(u64::from(link.tick) <= self.now);
                    *link = UNARMED;
                }
                return Some(slot);
            }
            if self.now >= target {
                return None;
            }
            self.now += 1;
            if self.now.is_multiple_of(TURN) {
                self.cascade(links);
            }
        }
    }

    /// Timers that are armed.
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    /// Moves the coarse list of the turn that the fine level now reaches to it.
    fn cascade(&mut self, links: &mut impl Links) {
        let turn = (self.now >> TURN_BITS) + TURNS - 1;
        let list = (FINE + turn % COARSE) as usize;
        // What is put back for another round of the coarse level goes to another list.
        loop {
            if let Some(slot) = self.ahead(list) {
                links.prefetch_link(slot);
            }
            let Some(slot) = self.pop(list) else { return };
            let Some(link) = links.link(slot) else {
                continue;
            };
            let tick = std::mem::replace(link, UNARMED).tick;
            self.put(links, slot, tick);
        }
    }

    /// The timer that comes two chunks later than the list's first; asks for the chunk after that.
    #[inline]
    fn ahead(&self, list: usize) -> Option<u32> {
        let List { chunk, len } = self.lists.get(list)?;
        let of = |chunk: u32| self.chunks.get(chunk as usize);
        let next = of(of(of(*chunk)?.next)?.next)?;
        if let Some(after) = of(next.next) {
            prefetch(after);
        }
        next.slots.get((*len as usize).wrapping_sub(1)).copied()
    }

    /// Takes the first timer out of a list; its link is the caller's.
    #[inline]
    fn pop(&mut self, list: usize) -> Option<u32> {
        let first = self.lists.get_mut(list)?;
        let chunk = self.chunks.get_mut(first.chunk as usize)?;
        first.len -= 1;
        let slot = *chunk.slots.get(first.len as usize)?;
        if first.len == 0 {
            let next = std::mem::replace(&mut chunk.next, self.free);
            self.free = std::mem::replace(&mut first.chunk, next);
            first.len = match next {
                NONE => 0,
                _ => WAYS as u32,
            };
        }
        self.armed -= 1;
        Some(slot)
    }

    fn place(&mut self, at: u32) -> Option<&mut u32> {
        let chunk = self.chunks.get_mut((at >> WAY_BITS) as usize)?;
        chunk.slots.get_mut((at & ((1 << WAY_BITS) - 1)) as usize)
    }

    fn put(&mut self, links: &mut impl Links, slot: u32, tick: u32) {
        let due = u64::from(tick).max(self.now);
        let turn = self.now >> TURN_BITS;
        let turns = (due >> TURN_BITS) - turn;
        let list = if turns < TURNS {
            due % FINE
        } else {
            // The coarse lists of the turns before have been emptied already. Beyond the horizon:
            // the last list, from where it is put again.
            FINE + (turn + turns.min(TURNS + COARSE - 2)) % COARSE
        } as usize;
        let Some(first) = self.lists.get_mut(list) else {
            return;
        };
        if first.chunk == NONE || first.len == WAYS as u32 {
            let fresh = Chunk {
                slots: [NONE; WAYS],
                next: first.chunk,
            };
            let at = match self.chunks.get_mut(self.free as usize) {
                Some(chunk) => {
                    let at = std::mem::replace(&mut self.free, chunk.next);
                    chunk.next = first.chunk;
                    at
                }
                None => {
                    self.chunks.push(fresh);
                    (self.chunks.len() - 1) as u32
                }
            };
            *first = List { chunk: at, len: 0 };
        }
        let at = first.chunk << WAY_BITS | first.len;
        first.len += 1;
        if let Some(place) = self.place(at) {
            *place = slot;
        }
        self.armed += 1;
        if let Some(link) = links.link(slot) {
            *link = Link {
                at,
                list: list as u32,
                tick,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Timers and nothing else.
    struct Timers(Wheel, Vec<Link>);

    impl Links for Vec<Link> {
        fn link(&mut self, slot: u32) -> Option<&mut Link> {
            self.get_mut(slot as usize)
        }
    }

    impl Timers {
        fn new(slots: usize) -> Self {
            Self(Wheel::new(slots), vec![UNARMED; slots])
        }

        fn arm(&mut self, slot: u32, deadline_ns: u64) {
            self.0.arm(&mut self.1, slot, deadline_ns);
        }

        fn cancel(&mut self, slot: u32) {
            self.0.cancel(&mut self.1, slot);
        }

        fn expire(&mut self, now_ns: u64) -> Option<u32> {
            self.0.expire(&mut self.1, now_ns)
        }
    }

    const TICK_NS: u64 = 1 << TICK_SHIFT;
    const HOUR_NS: u64 = 3_600_000_000_000;

    proptest! {
        #[test]
        fn every_timer_fires_once_and_in_time(
            ops in prop::collection::vec((0u32..64, 0u64..30 * HOUR_NS, 0u64..2 * HOUR_NS), 1..200),
            // Many in one list, or few in many.
            crowd in prop::sample::select(vec![1, TICK_NS, 30 * HOUR_NS]),
        ) {
            let mut wheel = Timers::new(64);
            let room = wheel.0.chunks.capacity();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (slot, after, step) in ops {
                let (after, step) = (after % crowd, if crowd > TICK_NS { step } else { step % TICK_NS });
                if after % 7 == 0 {
                    wheel.cancel(slot);
                    model.remove(&slot);
                } else {
                    wheel.arm(slot, now + after);
                    model.insert(slot, now + after);
                }
                now += step;
                while let Some(slot) = wheel.expire(now) {
                    let deadline = model.remove(&slot);
                    prop_assert!(deadline.is_some_and(|d| d <= now), "{slot} at {deadline:?}, now {now}");
                }
                prop_assert!(model.values().all(|d| d + 2 * TICK_NS > now), "late: {model:?} at {now}");
                prop_assert_eq!(wheel.0.armed(), model.len());
                prop_assert_eq!(wheel.0.chunks.capacity(), room);
            }
        }
    }

    #[test]
    fn arming_again_replaces() {
        let mut wheel = Timers::new(4);
        wheel.arm(1, TICK_NS);
        wheel.arm(1, 10 * TICK_NS);
        assert_eq!(wheel.expire(5 * TICK_NS), None);
        assert_eq!(wheel.expire(11 * TICK_NS), Some(1));
        assert_eq!(wheel.expire(100 * TICK_NS), None);
    }

    #[test]
    fn a_timer_that_is_due_early_enough_is_told() {
        let mut wheel = Timers::new(4);
        assert!(!wheel.1[0].fires_by(u64::MAX));
        let deadline = 10 * TICK_NS + 1;
        wheel.arm(0, deadline);
        // The same tick, and later ones.
        for later in [0, TICK_NS - 2, TICK_NS, HOUR_NS] {
            assert!(wheel.1[0].fires_by(deadline + later));
        }
        assert!(!wheel.1[0].fires_by(deadline - TICK_NS));
        wheel.cancel(0);
        assert!(!wheel.1[0].fires_by(deadline));
    }

    #[test]
    fn a_jump_of_a_year_is_quick_and_fires_all() {
        let mut wheel = Timers::new(4);
        wheel.arm(0, 1);
        wheel.arm(1, 5 * HOUR_NS);
        let year = 365 * 24 * HOUR_NS;
        assert!(wheel.expire(year).is_some());
        assert!(wheel.expire(year).is_some());
        assert_eq!(wheel.expire(year), None);
    }
}
