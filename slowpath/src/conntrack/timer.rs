//! A timer wheel over the slots of the connection table.
//!
//! Two levels of 512 lists: 128 ms a slot, then 65 s a slot, 9.3 h in all; later deadlines wait
//! in the last slot and are put back. One timer a slot, doubly linked, so arming and cancelling
//! cost the same however many there are. Nothing is ever scanned; what is due is taken out one
//! by one, and every 69 s one coarse list is spread over the fine level.

/// One tick of the fine level, nanoseconds: 2^27, 134 ms.
const TICK_SHIFT: u32 = 27;
/// Slots a level.
const SLOTS: u64 = 512;
const SLOT_BITS: u32 = 9;
/// No link.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    /// The list it is in, `NONE` when not armed.
    list: u32,
    /// When it is due, ticks.
    tick: u64,
}

const UNARMED: Link = Link {
    prev: NONE,
    next: NONE,
    list: NONE,
    tick: 0,
};

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    links: Vec<Link>,
    /// The tick whose list is being emptied.
    now: u64,
    armed: usize,
}

impl Wheel {
    /// Room for `slots` timers.
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            heads: vec![NONE; 2 * SLOTS as usize],
            links: Vec::with_capacity(slots),
            now: 0,
            armed: 0,
        }
    }

    /// Sets the slot's timer to the first tick not before `deadline_ns`.
    pub(crate) fn arm(&mut self, slot: u32, deadline_ns: u64) {
        self.cancel(slot);
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, UNARMED);
        }
        let tick = (deadline_ns >> TICK_SHIFT) + 1;
        self.link(slot, tick);
    }

    /// The tick at which the slot's timer is due, as nanoseconds; `None` when not armed.
    pub(crate) fn due_ns(&self, slot: u32) -> Option<u64> {
        let link = self.links.get(slot as usize)?;
        (link.list != NONE).then_some(link.tick << TICK_SHIFT)
    }

    /// Clears the slot's timer.
    pub(crate) fn cancel(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link {
            prev, next, list, ..
        } = std::mem::replace(link, UNARMED);
        if list == NONE {
            return;
        }
        self.armed -= 1;
        if let Some(next) = self.links.get_mut(next as usize) {
            next.prev = prev;
        }
        if let Some(prev) = self.links.get_mut(prev as usize) {
            prev.next = next;
        } else if let Some(head) = self.heads.get_mut(list as usize) {
            *head = next;
        }
    }

    /// Takes out one timer that is due at `now_ns`; it is no longer armed.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Option<u32> {
        let target = now_ns >> TICK_SHIFT;
        if self.armed == 0 {
            self.now = self.now.max(target);
            return None;
        }
        loop {
            let list = (self.now % SLOTS) as usize;
            let head = self.heads.get(list).copied().unwrap_or(NONE);
            if head != NONE {
                let tick = self.links.get(head as usize).map_or(0, |link| link.tick);
                if tick <= self.now {
                    self.cancel(head);
                    return Some(head);
                }
                // The fine level only holds what is due within one turn.
                debug_assert!(false, "tick {tick} in the list of {}", self.now);
            }
            if self.now >= target {
                return None;
            }
            self.now += 1;
            if self.now.is_multiple_of(SLOTS) {
                self.cascade();
            }
        }
    }

    /// Timers that are armed.
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    /// Moves the coarse list whose turn has come to the fine level.
    fn cascade(&mut self) {
        let list = SLOTS + (self.now >> SLOT_BITS) % SLOTS;
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let mut next = std::mem::replace(head, NONE);
        while next != NONE {
            let slot = next;
            let Some(link) = self.links.get_mut(slot as usize) else {
                return;
            };
            let old = std::mem::replace(link, UNARMED);
            next = old.next;
            self.armed -= 1;
            self.link(slot, old.tick);
        }
    }

    fn link(&mut self, slot: u32, tick: u64) {
        let tick = tick.max(self.now);
        // The coarse slot of the turn we are in has been emptied already.
        let turns = (tick >> SLOT_BITS) - (self.now >> SLOT_BITS);
        let list = if turns == 0 {
            tick % SLOTS
        } else {
            // Beyond the horizon: the last slot, from where it is linked again.
            SLOTS + ((self.now >> SLOT_BITS) + turns.min(SLOTS - 1)) % SLOTS
        };
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let next = std::mem::replace(head, slot);
        if let Some(next) = self.links.get_mut(next as usize) {
            next.prev = slot;
        }
        if let Some(link) = self.links.get_mut(slot as usize) {
            *link = Link {
                prev: NONE,
                next,
                list: list as u32,
                tick,
            };
            self.armed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TICK_NS: u64 = 1 << TICK_SHIFT;
    const HOUR_NS: u64 = 3_600_000_000_000;

    proptest! {
        #[test]
        fn every_timer_fires_once_and_in_time(
            ops in prop::collection::vec((0u32..16, 0u64..30 * HOUR_NS, 0u64..2 * HOUR_NS), 1..60)
        ) {
            let mut wheel = Wheel::new(16);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0;
            for (slot, after, step) in ops {
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
                prop_assert_eq!(wheel.armed(), model.len());
            }
        }
    }

    #[test]
    fn arming_again_replaces() {
        let mut wheel = Wheel::new(4);
        wheel.arm(1, TICK_NS);
        wheel.arm(1, 10 * TICK_NS);
        assert_eq!(wheel.expire(5 * TICK_NS), None);
        assert_eq!(wheel.expire(11 * TICK_NS), Some(1));
        assert_eq!(wheel.expire(100 * TICK_NS), None);
    }

    #[test]
    fn a_jump_of_a_year_is_quick_and_fires_all() {
        let mut wheel = Wheel::new(4);
        wheel.arm(0, 1);
        wheel.arm(1, 5 * HOUR_NS);
        let year = 365 * 24 * HOUR_NS;
        assert!(wheel.expire(year).is_some());
        assert!(wheel.expire(year).is_some());
        assert_eq!(wheel.expire(year), None);
    }
}
