//! Numbers for next hops: one for each (interface, gateway), shared and counted.

use std::collections::HashMap;

use shunt_p4::{Nexthop, NexthopId};

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: NexthopId,
    users: usize,
}

/// The next hops in use. A number is taken anew only after all 2³² − 1 have had their turn, so
/// one that a slow consumer has not removed yet is not given away.
#[derive(Debug, Default)]
pub(crate) struct NexthopIds {
    by_nexthop: HashMap<Nexthop, Slot>,
    by_id: HashMap<NexthopId, Nexthop>,
    last: u32,
    /// Without users since the last sweep, perhaps used again meanwhile.
    idle: Vec<Nexthop>,
}

impl NexthopIds {
    /// The number of a next hop, one user more; and whether it is new. `None`: all are in use.
    pub(crate) fn acquire(&mut self, nexthop: Nexthop) -> Option<(NexthopId, bool)> {
        if let Some(slot) = self.by_nexthop.get_mut(&nexthop) {
            slot.users += 1;
            return Some((slot.id, false));
        }
        let id = self.free_id()?;
        self.by_id.insert(id, nexthop);
        self.by_nexthop.insert(nexthop, Slot { id, users: 1 });
        Some((id, true))
    }

    fn free_id(&mut self) -> Option<NexthopId> {
        // One of this many consecutive numbers is free.
        for _ in 0..=self.by_id.len() {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if let Some(id) = NexthopId::new(self.last).filter(|id| !self.by_id.contains_key(id)) {
                return Some(id);
            }
        }
        None
    }

    /// One user less. The number stays until [`NexthopIds::sweep`].
    pub(crate) fn release(&mut self, id: NexthopId) {
        let Some(nexthop) = self.by_id.get(&id) else {
            return;
        };
        if let Some(slot) = self.by_nexthop.get_mut(nexthop) {
            slot.users = slot.users.saturating_sub(1);
            if slot.users == 0 {
                self.idle.push(*nexthop);
            }
        }
    }

    /// The numbers that nothing uses any more; they are free from now on.
    pub(crate) fn sweep(&mut self) -> Vec<NexthopId> {
        let mut gone = Vec::new();
        for nexthop in std::mem::take(&mut self.idle) {
            if let Some(slot) = self.by_nexthop.get(&nexthop).filter(|slot| slot.users == 0) {
                gone.push(slot.id);
                self.by_id.remove(&slot.id);
                self.by_nexthop.remove(&nexthop);
            }
        }
        gone
    }

    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shunt_p4::InterfaceId;

    fn hop(interface: u16) -> Nexthop {
        Nexthop {
            interface: InterfaceId::new(interface).unwrap(),
            gateway: None,
        }
    }

    #[test]
    fn shared_counted_and_not_reused() {
        let mut ids = NexthopIds::default();
        let (a, new) = ids.acquire(hop(1)).unwrap();
        assert!(new);
        assert_eq!(ids.acquire(hop(1)).unwrap(), (a, false));
        ids.release(a);
        assert!(ids.sweep().is_empty());
        ids.release(a);
        // Used again before the sweep: it stays.
        assert_eq!(ids.acquire(hop(1)).unwrap(), (a, false));
        assert!(ids.sweep().is_empty());
        ids.release(a);
        assert_eq!(ids.sweep(), [a]);
        let (b, _) = ids.acquire(hop(1)).unwrap();
        assert_ne!(a, b);
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn numbers_wrap_past_those_in_use() {
        let mut ids = NexthopIds {
            last: u32::MAX - 1,
            ..NexthopIds::default()
        };
        assert_eq!(ids.acquire(hop(1)).unwrap().0, NexthopId::MAX);
        assert_eq!(ids.acquire(hop(2)).unwrap().0, NexthopId::MIN);
        ids.last = u32::MAX - 1;
        assert_eq!(ids.acquire(hop(3)).unwrap().0.get(), 2);
    }
}
