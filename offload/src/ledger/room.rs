//! Room in the switch's tables: how much there is, who has it, who may have more.
//!
//! What a table takes is its size in the P4Info, until the switch says that it is full with less:
//! then that is the limit, which grows again bit by bit. VPCs may have a share each. Near a limit
//! idle units are evicted, so that a reserve stays free and new ones find room at once.

use shunt_p4::VpcId;

use crate::engine::{EnginePolicy, TableSizes, VpcShare};
use crate::lasting::Lasting;
use crate::queue::{EvictReason, RefuseReason};

/// The part of a table, or of a share, that eviction keeps free.
const RESERVE_PART: u64 = 32;
/// Entries of a table that eviction keeps free at most.
const RESERVE_MAX: u64 = 8_192;
/// A limit that was learned from the switch is not below so many entries.
const LIMIT_MIN: u64 = 64;
/// How often such a limit grows.
const GROW_EVERY_NS: u64 = 5_000_000_000;
/// By which part of itself.
const GROW_PART: u64 = 8;

/// `flow4` or `flow6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) const fn of(v6: bool) -> Self {
        if v6 { Self::V6 } else { Self::V4 }
    }
}

#[derive(Clone, Copy, Debug)]
struct TableRoom {
    /// Entries by the P4Info.
    size: u64,
    /// Entries that it takes as far as is known, at most `size`.
    limit: u64,
    /// Entries that units hold, on their way in and out included.
    occupied: u64,
    /// Entries of units that are evicted.
    evicting: u64,
    grow_ns: u64,
    /// Somebody found no room.
    full: Lasting,
}

impl TableRoom {
    const fn reserve(&self) -> u64 {
        let part = self.limit / RESERVE_PART;
        let part = if part > RESERVE_MAX {
            RESERVE_MAX
        } else {
            part
        };
        if part < 2 { 2 } else { part }
    }
}

/// Units of a VPC.
#[derive(Clone, Copy, Debug)]
struct VpcRoom {
    units: u64,
    max: u64,
    evicting: u64,
}

impl Default for VpcRoom {
    fn default() -> Self {
        Self {
            units: 0,
            max: u64::MAX,
            evicting: 0,
        }
    }
}

/// What a unit takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) family: Family,
    /// Entries.
    pub(super) entries: u64,
    /// Whose share; an orphan is nobody's.
    pub(super) vpc: Option<VpcId>,
}

/// Too little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) reason: EvictReason,
    pub(super) family: Option<Family>,
    pub(super) vpc: Option<VpcId>,
    /// Units that have to go.
    pub(super) units: u64,
}

#[derive(Debug)]
pub(super) struct Room {
    tables: [TableRoom; 2],
    /// By VPC id.
    vpcs: Vec<VpcRoom>,
    /// Those with a share.
    shared: Vec<VpcId>,
}

impl Room {
    pub(super) fn new(sizes: TableSizes) -> Self {
        Self {
            tables: [sizes.flow4, sizes.flow6].map(|size| TableRoom {
                size,
                limit: size,
                occupied: 0,
                evicting: 0,
                grow_ns: 0,
                full: Lasting::default(),
            }),
            vpcs: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// The shares, from now on; who has more keeps it until it leaves or is evicted.
    pub(super) fn set_shares(&mut self, policy: &EnginePolicy) {
        for vpc in &mut self.vpcs {
            vpc.max = u64::MAX;
        }
        self.shared.clear();
        for (vpc, share) in &policy.shares {
            let max = self.units_of(*share);
            self.vpc_mut(*vpc).max = max;
            self.shared.push(*vpc);
        }
    }

    /// A share in units: the smaller of both ways to say it.
    fn units_of(&self, share: VpcShare) -> u64 {
        // Two entries each; a connection is in one of the tables.
        let [flow4, flow6] = self.tables.map(|table| table.size / 2);
        let part = share.percent.map(|percent| {
            let all = u128::from(flow4.max(flow6));
            u64::try_from(all * u128::from(percent) / 100).unwrap_or(u64::MAX)
        });
        let absolute = share.connections.map(u64::from);
        part.into_iter().chain(absolute).min().unwrap_or(u64::MAX)
    }

    fn vpc_mut(&mut self, vpc: VpcId) -> &mut VpcRoom {
        let at = usize::from(vpc.get());
        if at >= self.vpcs.len() {
            self.vpcs.resize(at + 1, VpcRoom::default());
        }
        &mut self.vpcs[at]
    }

    const fn table(&self, family: Family) -> &TableRoom {
        let [v4, v6] = &self.tables;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    const fn table_mut(&mut self, family: Family) -> &mut TableRoom {
        let [v4, v6] = &mut self.tables;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Takes the place, unless there is no room for it.
    pub(super) fn take(&mut self, place: &Place, now_ns: u64) -> Result<(), RefuseReason> {
        let table = self.table_mut(place.family);
        if table.occupied.saturating_add(place.entries) > table.limit {
            table.full.see(now_ns);
            return Err(RefuseReason::TableFull);
        }
        if let Some(vpc) = place.vpc {
            let vpc = self.vpc_mut(vpc);
            if vpc.units >= vpc.max {
                return Err(RefuseReason::VpcShare);
            }
        }
        self.occupy(place);
        Ok(())
    }

    /// Takes the place whether there is room or not: it is taken in the switch.
    pub(super) fn occupy(&mut self, place: &Place) {
        self.table_mut(place.family).occupied += place.entries;
        if let Some(vpc) = place.vpc {
            self.vpc_mut(vpc).units += 1;
        }
    }

    pub(super) fn give_back(&mut self, place: &Place) {
        let table = self.table_mut(place.family);
        table.occupied = table.occupied.saturating_sub(place.entries);
        if let Some(vpc) = place.vpc {
            let vpc = self.vpc_mut(vpc);
            vpc.units = vpc.units.saturating_sub(1);
        }
    }

    /// It will be given back: nobody else has to go in its stead.
    pub(super) fn evicting(&mut self, place: &Place) {
        self.table_mut(place.family).evicting += place.entries;
        if let Some(vpc) = place.vpc {
            self.vpc_mut(vpc).evicting += 1;
        }
    }

    /// The reverse of [`Room::evicting`].
    pub(super) fn evicted(&mut self, place: &Place) {
        let table = self.table_mut(place.family);
        table.evicting = table.evicting.saturating_sub(place.entries);
        if let Some(vpc) = place.vpc {
            let vpc = self.vpc_mut(vpc);
            vpc.evicting = vpc.evicting.saturating_sub(1);
        }
    }

    /// The switch has refused an entry for want of room; what that unit had is given back.
    pub(super) fn learn_full(&mut self, family: Family, now_ns: u64) {
        let table = self.table_mut(family);
        let learned = table.occupied.max(LIMIT_MIN);
        table.limit = table.limit.min(learned);
        table.full.see(now_ns);
        table.grow_ns = now_ns.saturating_add(GROW_EVERY_NS);
    }

    /// Lets learned limits grow.
    pub(super) fn advance(&mut self, now_ns: u64) {
        for table in &mut self.tables {
            if table.limit < table.size && table.grow_ns <= now_ns {
                let step = (table.limit / GROW_PART).max(2);
                table.limit = table.limit.saturating_add(step).min(table.size);
                table.grow_ns = now_ns.saturating_add(GROW_EVERY_NS);
            }
        }
    }

    /// Entries that units hold, and entries that fit.
    pub(super) const fn occupancy(&self, family: Family) -> (u64, u64) {
        let table = self.table(family);
        (table.occupied, table.limit)
    }

    /// Since when connections find no room in a table.
    pub(super) fn full_since_ns(&self, family: Family, now_ns: u64) -> Option<u64> {
        self.table(family).full.since_ns(now_ns)
    }

    /// The VPCs that have a share: what they have of it, and how much it is.
    pub(super) fn share_use(&self) -> impl Iterator<Item = (VpcId, u64, u64)> {
        self.shared.iter().filter_map(|id| {
            let vpc = self.vpcs.get(usize::from(id.get()))?;
            Some((*id, vpc.units, vpc.max))
        })
    }

    pub(super) fn has_share(&self, vpc: VpcId) -> bool {
        let vpc = self.vpcs.get(usize::from(vpc.get()));
        vpc.is_some_and(|vpc| vpc.max < u64::MAX)
    }

    /// Where less is free than the reserve.
    pub(super) fn pressures(&self) -> impl Iterator<Item = Pressure> {
        let tables = Family::ALL.into_iter().filter_map(|family| {
            let table = self.table(family);
            let staying = table.occupied.saturating_sub(table.evicting);
            let over = staying
                .saturating_add(table.reserve())
                .saturating_sub(table.limit);
            (over > 0).then_some(Pressure {
                reason: EvictReason::TableFull,
                family: Some(family),
                vpc: None,
                units: over.div_ceil(2),
            })
        });
        let shares = self.shared.iter().filter_map(|id| {
            let vpc = self.vpcs.get(usize::from(id.get()))?;
            let reserve = (vpc.max / RESERVE_PART).clamp(1, RESERVE_MAX);
            let staying = vpc.units.saturating_sub(vpc.evicting);
            let over = staying.saturating_add(reserve).saturating_sub(vpc.max);
            let over = over.min(staying);
            (over > 0).then_some(Pressure {
                reason: EvictReason::VpcShare,
                family: None,
                vpc: Some(*id),
                units: over,
            })
        });
        tables.chain(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: TableSizes = TableSizes {
        flow4: 1_000,
        flow6: 1_000,
    };

    fn place(vpc: u16) -> Place {
        Place {
            family: Family::V4,
            entries: 2,
            vpc: VpcId::new(vpc),
        }
    }

    fn fill(room: &mut Room, place: &Place) -> u64 {
        let mut taken = 0;
        while room.take(place, 0).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_table_takes_its_size() {
        let mut room = Room::new(SIZES);
        assert_eq!(fill(&mut room, &place(1)), 500);
        assert_eq!(room.take(&place(1), 0), Err(RefuseReason::TableFull));
        let v6 = Place {
            family: Family::V6,
            ..place(1)
        };
        assert_eq!(room.take(&v6, 0), Ok(()), "another table");
        room.give_back(&place(1));
        assert_eq!(room.take(&place(2), 0), Ok(()));
    }

    #[test]
    fn the_reserve_is_pressed_for_until_enough_are_on_their_way_out() {
        let mut room = Room::new(SIZES);
        assert_eq!(room.pressures().count(), 0);
        fill(&mut room, &place(1));
        // 31 entries are to be free.
        for left in (1..=16).rev() {
            let pressure: Vec<_> = room.pressures().collect();
            assert_eq!(pressure[0].units, left);
            room.evicting(&place(1));
        }
        assert_eq!(room.pressures().count(), 0);
        for _ in 0..16 {
            room.evicted(&place(1));
            room.give_back(&place(1));
        }
        assert_eq!(room.pressures().count(), 0);
        assert_eq!(room.occupancy(Family::V4), (968, 1_000));
    }

    #[test]
    fn a_vpc_has_no_more_than_the_smaller_of_its_shares() {
        let share = |connections, percent| VpcShare {
            connections,
            percent,
        };
        for (share, units) in [
            (share(Some(10), None), 10),
            (share(None, Some(10)), 50),
            (share(Some(60), Some(10)), 50),
            (share(Some(0), None), 0),
            (share(None, None), 500),
        ] {
            let mut room = Room::new(SIZES);
            room.set_shares(&EnginePolicy {
                shares: vec![(VpcId::MIN, share)],
                ..EnginePolicy::default()
            });
            assert_eq!(fill(&mut room, &place(1)), units, "{share:?}");
            if units < 500 {
                assert_eq!(room.take(&place(1), 0), Err(RefuseReason::VpcShare));
                assert_eq!(room.take(&place(2), 0), Ok(()), "not the other's share");
            }
            let pressed = room.pressures().any(|p| p.vpc == VpcId::new(1));
            assert_eq!(pressed, units > 0 && units < 500, "{share:?}");
        }
    }

    #[test]
    fn a_smaller_table_is_learned_and_unlearned() {
        let mut room = Room::new(TableSizes::UNKNOWN);
        for _ in 0..200 {
            room.take(&place(1), 0).unwrap();
        }
        room.give_back(&place(1));
        room.learn_full(Family::V4, 0);
        assert_eq!(room.occupancy(Family::V4), (398, 398));
        assert_eq!(room.take(&place(1), 0), Err(RefuseReason::TableFull));
        room.advance(GROW_EVERY_NS - 1);
        assert_eq!(room.take(&place(1), 0), Err(RefuseReason::TableFull));
        room.advance(GROW_EVERY_NS);
        assert_eq!(room.take(&place(1), 0), Ok(()), "it is tried again");
        for n in 2..400 {
            room.advance(n * GROW_EVERY_NS);
        }
        assert_eq!(room.occupancy(Family::V4).1, u64::MAX);
    }

    #[test]
    fn a_refusal_of_an_empty_table_does_not_close_it() {
        let mut room = Room::new(SIZES);
        room.learn_full(Family::V4, 0);
        assert_eq!(fill(&mut room, &place(1)), LIMIT_MIN / 2);
    }
}
