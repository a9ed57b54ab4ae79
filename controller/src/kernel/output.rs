//! What has been published, and the difference to what is desired.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use shunt_p4::{InterfaceId, MacAddr, NetworkOp, NexthopId, Route, VpcId};

use super::choice::{Desired, Why};
use super::nexthop_ids::NexthopIds;

/// A route as published. Small, for there may be a million, and nearly all have one path.
#[derive(Debug, PartialEq, Eq)]
enum Published {
    Path(NexthopId),
    /// Of several, by number.
    Paths(Box<[(NexthopId, u16)]>),
    Local,
    Blackhole,
    Unreachable(Why),
}

impl Published {
    /// Why it is unreachable.
    fn why(&self) -> Option<Why> {
        match self {
            Self::Unreachable(why) => Some(*why),
            _ => None,
        }
    }

    fn route(&self) -> Route {
        match self {
            // A single path has all there is, whatever its weight.
            Self::Path(id) => Route::Nexthops(vec![(*id, 1)]),
            Self::Paths(paths) => Route::Nexthops(paths.to_vec()),
            Self::Local => Route::Local,
            Self::Blackhole => Route::Blackhole,
            Self::Unreachable(_) => Route::Unreachable,
        }
    }
}

/// How much is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) routes: usize,
    pub(crate) nexthops: usize,
    pub(crate) neighbors: usize,
    pub(crate) foreign: usize,
    pub(crate) unsupported: usize,
    pub(crate) down: usize,
}

/// The published side of the mirror. A batch goes out as: next hops, neighbours, routes (make),
/// then routes, next hops, neighbours that end (break).
#[derive(Debug, Default)]
pub(crate) struct Output {
    routes: HashMap<(VpcId, IpNet), Published>,
    neighbors: HashMap<(InterfaceId, IpAddr), MacAddr>,
    ids: NexthopIds,
    gauges: Gauges,
    make: Make,
    end: End,
}

#[derive(Debug, Default)]
struct Make {
    nexthops: Vec<NetworkOp>,
    neighbors: Vec<NetworkOp>,
    routes: Vec<NetworkOp>,
}

#[derive(Debug, Default)]
struct End {
    routes: Vec<NetworkOp>,
    neighbors: Vec<NetworkOp>,
}

impl Output {
    /// Every prefix that is published.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (VpcId, IpNet)> {
        self.routes.keys().copied()
    }

    /// Notes what a prefix is to be; `None`: nothing.
    pub(crate) fn set_route(&mut self, key: (VpcId, IpNet), desired: Option<Desired>) {
        let before = self.routes.remove(&key);
        let why = before.as_ref().and_then(Published::why);
        if let Some(count) = why.and_then(|why| self.gauge(why)) {
            *count = count.saturating_sub(1);
        }
        let Some(desired) = desired else {
            if let Some(before) = before {
                self.release(&before);
                self.end.routes.push(NetworkOp::RemoveRoute(key.0, key.1));
            }
            return;
        };
        let published = self.number(desired);
        if let Some(count) = published.why().and_then(|why| self.gauge(why)) {
            *count += 1;
        }
        let same = |before: &Published| match (before, &published) {
            (Published::Unreachable(_), Published::Unreachable(_)) => true,
            (before, published) => before == published,
        };
        if !before.as_ref().is_some_and(same) {
            let op = NetworkOp::SetRoute(key.0, key.1, published.route());
            self.make.routes.push(op);
        }
        if let Some(before) = before {
            self.release(&before);
        }
        self.routes.insert(key, published);
    }

    /// Gives every path its number, one user more each.
    fn number(&mut self, desired: Desired) -> Published {
        let paths = match desired {
            Desired::Local => return Published::Local,
            Desired::Blackhole => return Published::Blackhole,
            Desired::Unreachable(why) => return Published::Unreachable(why),
            Desired::Paths(paths) => paths,
        };
        let mut numbered: Vec<(NexthopId, u16)> = Vec::with_capacity(paths.len());
        for (nexthop, weight) in paths {
            let Some((id, new)) = self.ids.acquire(nexthop) else {
                continue;
            };
            if new {
                self.make.nexthops.push(NetworkOp::SetNexthop(id, nexthop));
            }
            numbered.push((id, weight));
        }
        numbered.sort_unstable_by_key(|&(id, _)| id);
        match numbered.as_slice() {
            [] => Published::Unreachable(Why::Unsupported),
            [(id, _)] => Published::Path(*id),
            _ => Published::Paths(numbered.into()),
        }
    }

    fn release(&mut self, published: &Published) {
        match published {
            Published::Path(id) => self.ids.release(*id),
            Published::Paths(paths) => paths.iter().for_each(|&(id, _)| self.ids.release(id)),
            _ => {}
        }
    }

    fn gauge(&mut self, why: Why) -> Option<&mut usize> {
        match why {
            Why::Said => None,
            Why::Down => Some(&mut self.gauges.down),
            Why::Foreign => Some(&mut self.gauges.foreign),
            Why::Unsupported => Some(&mut self.gauges.unsupported),
        }
    }

    /// Notes a neighbour's address; `None`: it has none.
    pub(crate) fn set_neighbor(&mut self, key: (InterfaceId, IpAddr), mac: Option<MacAddr>) {
        match mac {
            Some(mac) => {
                if self.neighbors.insert(key, mac) != Some(mac) {
                    let op = NetworkOp::SetNeighbor(key.0, key.1, mac);
                    self.make.neighbors.push(op);
                }
            }
            None => {
                if self.neighbors.remove(&key).is_some() {
                    let op = NetworkOp::RemoveNeighbor(key.0, key.1);
                    self.end.neighbors.push(op);
                }
            }
        }
    }

    /// The changes since the last call, in the order in which they may be applied.
    pub(crate) fn take(&mut self) -> Vec<NetworkOp> {
        let make = std::mem::take(&mut self.make);
        let end = std::mem::take(&mut self.end);
        let mut ops = make.nexthops;
        ops.extend(make.neighbors);
        ops.extend(make.routes);
        ops.extend(end.routes);
        let idle = self.ids.sweep();
        ops.extend(idle.into_iter().map(NetworkOp::RemoveNexthop));
        ops.extend(end.neighbors);
        ops
    }

    /// How much is published.
    pub(crate) fn gauges(&self) -> Gauges {
        Gauges {
            routes: self.routes.len(),
            nexthops: self.ids.len(),
            neighbors: self.neighbors.len(),
            ..self.gauges
        }
    }
}
