//! Numbers for next hops: one for each (interface, gateway, route's MTU), shared and counted.

use std::collections::HashMap;
use std::net::IpAddr;

use shunt_p4::{Nexthop, NexthopId};

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: NexthopId,
    users: usize,
}

/// The next hops in use. A number is drawn from the next hop itself: after a restart it is the
/// same again, so that the routes that a switch holds already stay right, and a number that a
/// slow consumer has not removed yet is not given to another (two that draw the same one apart,
/// once in 2³²).
#[derive(Debug, Default)]
pub(crate) struct NexthopIds {
    by_nexthop: HashMap<Nexthop, Slot>,
    by_id: HashMap<NexthopId, Nexthop>,
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
        let id = self.free_id(&nexthop)?;
        self.by_id.insert(id, nexthop);
        self.by_nexthop.insert(nexthop, Slot { id, users: 1 });
        Some((id, true))
    }

    fn free_id(&self, nexthop: &Nexthop) -> Option<NexthopId> {
        let mut number = draw(nexthop);
        // One of this many consecutive numbers is free, and zero is none.
        for _ in 0..=self.by_id.len() + 1 {
            if let Some(id) = NexthopId::new(number).filter(|id| !self.by_id.contains_key(id)) {
                return Some(id);
            }
            number = number.wrapping_add(1);
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

/// FNV-1a: the same on every machine and in every version.
fn draw(nexthop: &Nexthop) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    add(&nexthop.interface.get().to_be_bytes());
    match nexthop.gateway {
        None => {}
        Some(IpAddr::V4(gateway)) => add(&gateway.octets()),
        Some(IpAddr::V6(gateway)) => add(&gateway.octets()),
    }
    if let Some(mtu) = nexthop.mtu {
        add(&mtu.get().to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use shunt_p4::InterfaceId;

    fn hop(interface: u16) -> Nexthop {
        Nexthop {
            interface: InterfaceId::new(interface).unwrap(),
            gateway: None,
            mtu: None,
        }
    }

    #[test]
    fn shared_counted_and_the_same_again() {
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
        assert_ne!(ids.acquire(hop(2)).unwrap().0, a);
        assert_eq!(ids.acquire(hop(1)).unwrap(), (a, true));
        assert_eq!(NexthopIds::default().acquire(hop(1)).unwrap(), (a, true));
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn two_that_draw_one_number_get_two() {
        let mut ids = NexthopIds::default();
        let drawn = draw(&hop(1));
        let taken = NexthopId::new(drawn).unwrap();
        ids.by_id.insert(taken, hop(9));
        let (id, _) = ids.acquire(hop(1)).unwrap();
        assert_eq!(id.get(), drawn + 1);
    }
}
