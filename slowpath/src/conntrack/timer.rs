//! A timer wheel over the slots of the connection table.
//!
//! Two levels of 512 lists: 128 ms a slot, then 65 s a slot, 9.3 h in all; later deadlines wait
//! in the last slot and are put back. One timer a slot, doubly linked within the slots, so arming and cancelling
//! cost the same however many there are. Nothing is ever scanned; what is due is taken out one
//! by one, and every 69 s one coarse list is spread over the fine level.

/// One tick of the fine level, nanoseconds: 2^27, 134 ms.
const TICK_SHIFT: u32 = 27;
/// Slots a level.
const SLOTS: u64 = 512;
const SLOT_BITS: u32 = 9;
/// No neighbour.
const NONE: u32 = u32::MAX;
/// In `prev`: the timer is its list's first, and this is the list. Slots stay below it.
const HEAD: u32 = 1 << 31;
/// Deadlines beyond it (18 years) are due then.
const LAST_TICK: u64 = u32::MAX as u64 - 1;

/// A timer's place in its list; it lies within what the timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The timer before it, `HEAD` with the list's number, or `NONE` when not armed.
    prev: u32,
    next: u32,
    /// When it is due, ticks.
    tick: u32,
}

/// A timer that is not armed.
pub(crate) const UNARMED: Link = Link {
    prev: NONE,
    next: NONE,
    tick: 0,
};

impl Link {
    /// While it is not armed, it may link something else.
    pub(crate) fn set_next(&mut self, next: u32) {
        self.next = next;
    }

    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// The tick at which it is due, as nanoseconds; `None` when not armed.
    #[inline]
    pub(crate) fn due_ns(&self) -> Option<u64> {
        (self.prev != NONE).then_some(u64::from(self.tick) << TICK_SHIFT)
    }
}

/// Where the timers lie.
pub(crate) trait Links {
    /// A slot's timer.
    fn link(&mut self, slot: u32) -> Option<&mut Link>;

    /// It will be asked for soon.
    fn prefetch(&self, _slot: u32) {}
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    /// The tick whose list is being emptied.
    now: u64,
    armed: usize,
}

impl Wheel {
    /// Without timers.
    pub(crate) fn new() -> Self {
        Self {
            heads: vec![NONE; 2 * SLOTS as usize],
            now: 0,
            armed: 0,
        }
    }

    /// Sets the slot's timer to the first tick not before `deadline_ns`.
    pub(crate) fn arm(&mut self, links: &mut impl Links, slot: u32, deadline_ns: u64) {
        self.cancel(links, slot);
        let tick = (deadline_ns >> TICK_SHIFT) + 1;
        self.link(links, slot, tick.min(LAST_TICK) as u32);
    }

    /// Clears the slot's timer.
    pub(crate) fn cancel(&mut self, links: &mut impl Links, slot: u32) {
        let Some(link) = links.link(slot) else {
            return;
        };
        let Link { prev, next, .. } = std::mem::replace(link, UNARMED);
        if prev == NONE {
            return;
        }
        self.armed -= 1;
        if next != NONE
            && let Some(next) = links.link(next)
        {
            next.prev = prev;
        }
        if prev & HEAD != 0 {
            if let Some(head) = self.heads.get_mut((prev & !HEAD) as usize) {
                *head = next;
            }
        } else if let Some(prev) = links.link(prev) {
            prev.next = next;
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
            let list = (self.now % SLOTS) as usize;
            let head = self.heads.get(list).copied().unwrap_or(NONE);
            if head != NONE {
                // The fine level only holds what is due within one turn.
                debug_assert!(
                    links
                        .link(head)
                        .is_some_and(|link| u64::from(link.tick) <= self.now)
                );
                self.cancel(links, head);
                if let Some(&next) = self.heads.get(list) {
                    links.prefetch(next);
                }
                return Some(head);
            }
            if self.now >= target {
                return None;
            }
            self.now += 1;
            if self.now.is_multiple_of(SLOTS) {
                self.cascade(links);
            }
        }
    }

    /// Timers that are armed.
    pub(crate) fn armed(&self) -> usize {
        self.armed
    }

    /// Moves the coarse list whose turn has come to the fine level.
    fn cascade(&mut self, links: &mut impl Links) {
        let list = SLOTS + (self.now >> SLOT_BITS) % SLOTS;
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let mut next = std::mem::replace(head, NONE);
        while next != NONE {
            let slot = next;
            let Some(link) = links.link(slot) else {
                return;
            };
            let old = std::mem::replace(link, UNARMED);
            next = old.next;
            links.prefetch(next);
            self.armed -= 1;
            self.link(links, slot, old.tick);
        }
    }

    fn link(&mut self, links: &mut impl Links, slot: u32, tick: u32) {
        let at = u64::from(tick).max(self.now);
        // The coarse slot of the turn we are in has been emptied already.
        let turns = (at >> SLOT_BITS) - (self.now >> SLOT_BITS);
        let list = if turns == 0 {
            at % SLOTS
        } else {
            // Beyond the horizon: the last slot, from where it is linked again.
            SLOTS + ((self.now >> SLOT_BITS) + turns.min(SLOTS - 1)) % SLOTS
        };
        let Some(head) = self.heads.get_mut(list as usize) else {
            return;
        };
        let next = std::mem::replace(head, slot);
        if next != NONE
            && let Some(next) = links.link(next)
        {
            next.prev = slot;
        }
        if let Some(link) = links.link(slot) {
            *link = Link {
                prev: HEAD | list as u32,
                next,
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

    /// Timers and nothing else.
    struct Timers(Wheel, Vec<Link>);

    impl Links for Vec<Link> {
        fn link(&mut self, slot: u32) -> Option<&mut Link> {
            self.get_mut(slot as usize)
        }
    }

    impl Timers {
        fn new(slots: usize) -> Self {
            Self(Wheel::new(), vec![UNARMED; slots])
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
            ops in prop::collection::vec((0u32..16, 0u64..30 * HOUR_NS, 0u64..2 * HOUR_NS), 1..60)
        ) {
            let mut wheel = Timers::new(16);
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
                prop_assert_eq!(wheel.0.armed(), model.len());
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
