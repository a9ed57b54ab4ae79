//! The mirror without its sockets: messages in, changes of the network out.
//!
//! ```text
//!  messages ──> links, next-hop objects, routes, neighbours     as the kernel has them
//!                 │ what a change touches becomes dirty
//!                 v
//!               choose the route that counts ──> compare with what is published ──> NetworkOps
//! ```
//!
//! A slow consumer costs nothing but time: what is dirty is a set, so that a prefix that changes
//! a hundred times before the next batch is looked at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use shunt_p4::{InterfaceId, MacAddr, NetworkOp, VpcId};

use super::choice::{Context, Desired, Taps, choose};
use super::message::{
    IFF_LOWER_UP, IFF_UP, LinkInfo, Message, NUD_DELAY, NUD_NOARP, NUD_PERMANENT, NUD_PROBE,
    NUD_REACHABLE, NUD_STALE, NeighborInfo, NexthopInfo, NexthopKind, RouteInfo, RouteType,
};
use super::output::{Gauges, Output};
use super::rib::{Outcome, Rib};

/// The kernel's table of its own addresses (`RT_TABLE_LOCAL`).
pub(crate) const LOCAL_TABLE: u32 = 255;

/// States in which a neighbour's MAC is used (`NUD_VALID` less what has none).
const NUD_USABLE: u16 =
    NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;

/// What can be dumped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DumpKind {
    Links,
    Nexthops,
    Neighbors,
    RoutesV4,
    RoutesV6,
}

impl DumpKind {
    /// All of them, in the order in which one needs the other.
    pub(crate) const ALL: [DumpKind; 5] = [
        DumpKind::Links,
        DumpKind::Nexthops,
        DumpKind::Neighbors,
        DumpKind::RoutesV4,
        DumpKind::RoutesV6,
    ];
}

/// A dump that is being read: complete before any of it counts.
#[derive(Debug)]
pub(crate) struct Dump {
    kind: DumpKind,
    links: HashMap<u32, LinkInfo>,
    nexthops: HashMap<u32, NexthopInfo>,
    neighbors: HashMap<(u32, IpAddr), NeighborInfo>,
    /// Prefixes that are not as known.
    rib: Rib,
}

/// The mirror's state.
#[derive(Debug)]
pub(crate) struct State {
    taps: Taps,
    tables: HashMap<u32, Vec<VpcId>>,
    table_of: HashMap<VpcId, u32>,
    links: HashMap<u32, LinkInfo>,
    nexthops: HashMap<u32, NexthopInfo>,
    neighbors: HashMap<(u32, IpAddr), NeighborInfo>,
    rib: Rib,
    dirty_routes: BTreeSet<(VpcId, IpNet)>,
    dirty_neighbors: BTreeSet<(u32, IpAddr)>,
    /// Changed devices and objects: the routes through them are looked for once a batch.
    changed_links: HashSet<u32>,
    changed_nexthops: HashSet<u32>,
    redump: BTreeSet<DumpKind>,
    output: Output,
}

impl State {
    /// An empty mirror of these devices and tables.
    pub(crate) fn new(
        taps: impl IntoIterator<Item = (u32, InterfaceId, VpcId)>,
        tables: impl IntoIterator<Item = (VpcId, u32)>,
    ) -> Self {
        let table_of: HashMap<VpcId, u32> = tables.into_iter().collect();
        Self {
            taps: taps
                .into_iter()
                .map(|(index, interface, vpc)| (index, (interface, vpc)))
                .collect(),
            tables: by_table(&table_of),
            table_of,
            links: HashMap::new(),
            nexthops: HashMap::new(),
            neighbors: HashMap::new(),
            rib: Rib::default(),
            dirty_routes: BTreeSet::new(),
            dirty_neighbors: BTreeSet::new(),
            changed_links: HashSet::new(),
            changed_nexthops: HashSet::new(),
            redump: BTreeSet::new(),
            output: Output::default(),
        }
    }

    /// Other devices and tables. What they have to do with becomes dirty; everything has to be
    /// dumped, for of what was not mapped nothing is known.
    pub(crate) fn configure(
        &mut self,
        taps: impl IntoIterator<Item = (u32, InterfaceId, VpcId)>,
        tables: impl IntoIterator<Item = (VpcId, u32)>,
    ) {
        let taps: Taps = taps
            .into_iter()
            .map(|(index, interface, vpc)| (index, (interface, vpc)))
            .collect();
        let table_of: HashMap<VpcId, u32> = tables.into_iter().collect();
        let moved: HashSet<u32> = differences(&self.taps, &taps).into_iter().collect();
        let (output, old) = (&mut self.output, &self.taps);
        self.neighbors.retain(|(index, address), _| {
            if let Some(&(interface, _)) = old.get(index).filter(|_| moved.contains(index)) {
                output.set_neighbor((interface, *address), None);
            }
            !moved.contains(index)
        });
        self.dirty_neighbors
            .retain(|(index, _)| !moved.contains(index));
        let mut vpcs: HashSet<VpcId> = differences(&self.table_of, &table_of).into_iter().collect();
        // The local addresses of a device are its VPC's.
        let of = |taps: &Taps| -> Vec<VpcId> {
            let found = moved.iter().filter_map(|index| taps.get(index));
            found.map(|&(_, vpc)| vpc).collect()
        };
        vpcs.extend(of(&self.taps));
        vpcs.extend(of(&taps));
        let published = self.output.prefixes().filter(|(vpc, _)| vpcs.contains(vpc));
        self.dirty_routes.extend(published);
        self.changed_links.extend(&moved);
        self.taps = taps;
        self.tables = by_table(&table_of);
        self.table_of = table_of;
        for (&key, _) in self.rib.iter() {
            let of_table = self.tables.get(&key.0).into_iter().flatten().copied();
            let touched: Vec<VpcId> = match key.0 {
                LOCAL_TABLE => vpcs.iter().copied().collect(),
                _ => of_table.filter(|vpc| vpcs.contains(vpc)).collect(),
            };
            self.dirty_routes
                .extend(touched.into_iter().map(|vpc| (vpc, key.1)));
        }
        self.request_dump(DumpKind::ALL);
    }

    pub(crate) fn taps(&self) -> &Taps {
        &self.taps
    }

    pub(crate) fn tables(&self) -> &HashMap<u32, Vec<VpcId>> {
        &self.tables
    }

    pub(crate) fn links(&self) -> &HashMap<u32, LinkInfo> {
        &self.links
    }

    pub(crate) fn nexthops(&self) -> &HashMap<u32, NexthopInfo> {
        &self.nexthops
    }

    pub(crate) fn neighbors(&self) -> &HashMap<(u32, IpAddr), NeighborInfo> {
        &self.neighbors
    }

    pub(crate) fn rib(&self) -> &Rib {
        &self.rib
    }

    /// Takes one notification.
    pub(crate) fn apply(&mut self, message: Message) {
        match message {
            Message::NewLink(info) => self.set_link(info.index, Some(info)),
            Message::DelLink(info) => self.set_link(info.index, None),
            Message::Address { removed, family } => {
                // With an address go the routes that prefer it as their source, silently.
                if removed {
                    self.redump.insert(if family == AddressFamily::Inet {
                        DumpKind::RoutesV4
                    } else {
                        DumpKind::RoutesV6
                    });
                }
            }
            Message::NewNeighbor(info) => {
                let key = (info.index, info.address);
                if self.taps.contains_key(&key.0) && !key.1.is_multicast() {
                    self.neighbors.insert(key, info);
                    self.dirty_neighbors.insert(key);
                }
            }
            Message::DelNeighbor(info) => {
                let key = (info.index, info.address);
                if self.neighbors.remove(&key).is_some() {
                    self.dirty_neighbors.insert(key);
                }
            }
            Message::NewNexthop(info) => {
                self.changed_nexthops.insert(info.id);
                self.nexthops.insert(info.id, info);
            }
            Message::DelNexthop(id) => {
                if self.nexthops.remove(&id).is_some() {
                    self.changed_nexthops.insert(id);
                }
                // Its IPv4 routes went with it, silently.
                for key in self.rib.remove_nexthop(id) {
                    mark(&self.tables, key, &mut self.dirty_routes);
                }
            }
            Message::NewRoute(info, placement) => {
                self.change_route(info, |rib, info| rib.insert(info, placement));
            }
            Message::DelRoute(info) => self.change_route(info, Rib::remove),
            Message::Ignored => {}
        }
    }

    fn set_link(&mut self, index: u32, info: Option<LinkInfo>) {
        const STATE: u32 = IFF_UP | IFF_LOWER_UP;
        let state = |info: &LinkInfo| info.flags & STATE;
        let before = match &info {
            Some(info) => self.links.insert(index, info.clone()),
            None => self.links.remove(&index),
        };
        if let (Some(before), Some(info)) = (&before, &info)
            && before.mtu != info.mtu
        {
            // IPv6 changes its routes' own MTU with the device's, silently (`rt6_mtu_change`).
            self.redump.insert(DumpKind::RoutesV6);
        }
        if before.as_ref().map(state) == info.as_ref().map(state) {
            return;
        }
        self.changed_links.insert(index);
        // A device that goes down takes IPv4 routes and next-hop objects with it, silently;
        // one that comes up may bring some back.
        if before.is_some() {
            self.redump.extend([
                DumpKind::Nexthops,
                DumpKind::Neighbors,
                DumpKind::RoutesV4,
                DumpKind::RoutesV6,
            ]);
        }
    }

    fn change_route(
        &mut self,
        info: RouteInfo,
        change: impl FnOnce(&mut Rib, RouteInfo) -> Outcome,
    ) {
        if !self.wanted(&info) {
            return;
        }
        let key = (info.table, info.prefix);
        let vpcs = self.vpcs_of(&info);
        let v4 = matches!(info.prefix, IpNet::V4(_));
        let outcome = change(&mut self.rib, info);
        if outcome != Outcome::Unchanged {
            let dirty = vpcs.into_iter().map(|vpc| (vpc, key.1));
            self.dirty_routes.extend(dirty);
        }
        if outcome == Outcome::Unclear {
            self.redump.insert(if v4 {
                DumpKind::RoutesV4
            } else {
                DumpKind::RoutesV6
            });
        }
    }

    /// Routes of mapped tables, and our own addresses on our devices.
    fn wanted(&self, info: &RouteInfo) -> bool {
        self.tables.contains_key(&info.table) || self.is_own(info)
    }

    fn is_own(&self, info: &RouteInfo) -> bool {
        info.table == LOCAL_TABLE
            && matches!(
                info.kind,
                RouteType::Local | RouteType::Broadcast | RouteType::Anycast
            )
            && info
                .paths
                .iter()
                .any(|path| self.taps.contains_key(&path.index))
    }

    fn vpcs_of(&self, info: &RouteInfo) -> Vec<VpcId> {
        let of_table = self.tables.get(&info.table).into_iter().flatten().copied();
        let own = info
            .paths
            .iter()
            .filter(|_| info.table == LOCAL_TABLE)
            .filter_map(|path| self.taps.get(&path.index))
            .map(|&(_, vpc)| vpc);
        of_table.chain(own).collect()
    }

    /// Asks for everything anew: after an overrun, or when it is time.
    pub(crate) fn request_dump(&mut self, kinds: impl IntoIterator<Item = DumpKind>) {
        self.redump.extend(kinds);
    }

    /// Whether something has to be dumped.
    pub(crate) fn needs_dump(&self) -> bool {
        !self.redump.is_empty()
    }

    /// What has to be dumped; the caller does it.
    pub(crate) fn take_dumps(&mut self) -> BTreeSet<DumpKind> {
        std::mem::take(&mut self.redump)
    }

    /// Starts a dump.
    pub(crate) fn begin_dump(&mut self, kind: DumpKind) -> Dump {
        self.rib.begin_comparison();
        Dump {
            kind,
            links: HashMap::new(),
            nexthops: HashMap::new(),
            neighbors: HashMap::new(),
            rib: Rib::default(),
        }
    }

    /// Takes one message of a dump.
    pub(crate) fn add_to_dump(&mut self, dump: &mut Dump, message: Message) {
        match message {
            Message::NewLink(info) => {
                dump.links.insert(info.index, info);
            }
            Message::NewNexthop(info) => {
                dump.nexthops.insert(info.id, info);
            }
            Message::NewNeighbor(info) => {
                let key = (info.index, info.address);
                if self.taps.contains_key(&key.0) && !key.1.is_multicast() {
                    dump.neighbors.insert(key, info);
                }
            }
            Message::NewRoute(info, _) if self.wanted(&info) => {
                self.rib.compare(&mut dump.rib, info);
            }
            _ => {}
        }
    }

    /// Ends a dump: what it holds replaces what was known, and the differences become dirty.
    /// Returns how many there are.
    pub(crate) fn end_dump(&mut self, dump: Dump) -> usize {
        match dump.kind {
            DumpKind::Links => {
                let changed = differences(&self.links, &dump.links);
                let count = changed.len();
                self.changed_links.extend(changed);
                self.links = dump.links;
                count
            }
            DumpKind::Nexthops => {
                let changed = differences(&self.nexthops, &dump.nexthops);
                let count = changed.len();
                self.changed_nexthops.extend(changed);
                self.nexthops = dump.nexthops;
                count
            }
            DumpKind::Neighbors => {
                let changed = differences(&self.neighbors, &dump.neighbors);
                let count = changed.len();
                self.dirty_neighbors.extend(changed);
                self.neighbors = dump.neighbors;
                count
            }
            DumpKind::RoutesV4 => self.replace_routes(dump.rib, |net| matches!(net, IpNet::V4(_))),
            DumpKind::RoutesV6 => self.replace_routes(dump.rib, |net| matches!(net, IpNet::V6(_))),
        }
    }

    fn replace_routes(&mut self, fresh: Rib, family: impl Fn(&IpNet) -> bool) -> usize {
        let Self {
            rib,
            taps,
            tables,
            dirty_routes,
            ..
        } = self;
        let mut changed = 0;
        rib.end_comparison(fresh, family, |&key, before, after| {
            changed += 1;
            if key.0 == LOCAL_TABLE {
                for path in before.iter().chain(after).flat_map(|entry| &*entry.paths) {
                    if let Some(&(_, vpc)) = taps.get(&path.index) {
                        dirty_routes.insert((vpc, key.1));
                    }
                }
            }
            mark(tables, key, dirty_routes);
        });
        changed
    }

    /// Whether [`State::flush`] has something to look at.
    pub(crate) fn is_dirty(&self) -> bool {
        !(self.dirty_routes.is_empty()
            && self.dirty_neighbors.is_empty()
            && self.changed_links.is_empty()
            && self.changed_nexthops.is_empty())
    }

    /// The next batch: at most `limit` prefixes and as many neighbours are looked at. Each batch
    /// stands by itself: nothing that it refers to comes in a later one.
    pub(crate) fn flush(&mut self, limit: usize) -> Vec<NetworkOp> {
        self.mark_users();
        for _ in 0..limit {
            let Some(key) = self.dirty_neighbors.pop_first() else {
                break;
            };
            if let Some(&(interface, _)) = self.taps.get(&key.0) {
                let mac = self.neighbors.get(&key).and_then(usable_mac);
                self.output.set_neighbor((interface, key.1), mac);
            }
        }
        for _ in 0..limit {
            let Some((vpc, prefix)) = self.dirty_routes.pop_first() else {
                break;
            };
            let desired = self.desired(vpc, prefix);
            self.output.set_route((vpc, prefix), desired);
        }
        self.output.take()
    }

    fn desired(&self, vpc: VpcId, prefix: IpNet) -> Option<Desired> {
        // The table of local addresses comes before every other (rule 0).
        let own = self.rib.get(&(LOCAL_TABLE, prefix)).iter();
        let mut of_vpc = own.filter(|entry| {
            let mut paths = entry.paths.iter();
            paths.any(|path| self.taps.get(&path.index).is_some_and(|tap| tap.1 == vpc))
        });
        if of_vpc.next().is_some() {
            return Some(Desired::Local);
        }
        let context = Context {
            taps: &self.taps,
            links: &self.links,
            nexthops: &self.nexthops,
        };
        let &table = self.table_of.get(&vpc)?;
        choose(self.rib.get(&(table, prefix)), context)
    }

    /// Marks the routes that use a changed device or next-hop object.
    fn mark_users(&mut self) {
        let links = std::mem::take(&mut self.changed_links);
        let mut objects = std::mem::take(&mut self.changed_nexthops);
        if links.is_empty() && objects.is_empty() {
            return;
        }
        for (&id, object) in &self.nexthops {
            if matches!(&object.kind, NexthopKind::Path(path) if links.contains(&path.index)) {
                objects.insert(id);
            }
        }
        let groups: Vec<u32> = self
            .nexthops
            .iter()
            .filter(|(_, object)| {
                matches!(&object.kind, NexthopKind::Group(members)
                    if members.iter().any(|(id, _)| objects.contains(id)))
            })
            .map(|(&id, _)| id)
            .collect();
        objects.extend(groups);
        for (&key, list) in self.rib.iter() {
            let touched = list.iter().any(|entry| {
                entry.nexthop.is_some_and(|id| objects.contains(&id.get()))
                    || entry.paths.iter().any(|path| links.contains(&path.index))
            });
            if touched {
                mark(&self.tables, key, &mut self.dirty_routes);
            }
        }
    }

    /// How much is published.
    pub(crate) fn gauges(&self) -> Gauges {
        self.output.gauges()
    }
}

fn by_table(table_of: &HashMap<VpcId, u32>) -> HashMap<u32, Vec<VpcId>> {
    let mut by_table: HashMap<u32, Vec<VpcId>> = HashMap::new();
    for (&vpc, &table) in table_of {
        by_table.entry(table).or_default().push(vpc);
    }
    by_table
}

/// Marks a prefix in every VPC that the table belongs to.
fn mark(
    tables: &HashMap<u32, Vec<VpcId>>,
    (table, prefix): (u32, IpNet),
    dirty: &mut BTreeSet<(VpcId, IpNet)>,
) {
    let vpcs = tables.get(&table).into_iter().flatten();
    dirty.extend(vpcs.map(|&vpc| (vpc, prefix)));
}

/// The keys whose values differ.
fn differences<K: Copy + Eq + std::hash::Hash, V: PartialEq>(
    before: &HashMap<K, V>,
    after: &HashMap<K, V>,
) -> Vec<K> {
    let changed = after
        .iter()
        .filter(|(key, value)| before.get(key) != Some(value));
    let gone = before.keys().filter(|key| !after.contains_key(key));
    changed.map(|(key, _)| key).chain(gone).copied().collect()
}

/// The address to send to, if the kernel would use it.
fn usable_mac(info: &NeighborInfo) -> Option<MacAddr> {
    let usable = info.state & NUD_USABLE != 0;
    info.mac
        .filter(|mac| usable && !mac.is_multicast() && *mac != MacAddr::default())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
