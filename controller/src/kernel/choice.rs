//! From the kernel's routes of a prefix to the one that counts.

use std::collections::HashMap;
use std::num::NonZeroU16;

use shunt_p4::{InterfaceId, Nexthop, VpcId};

use super::message::{
    IFF_UP, LinkInfo, NexthopInfo, NexthopKind, Path, RTNH_F_DEAD, RTNH_F_LINKDOWN, RouteType,
};
use super::rib::Entry;

/// Which device is which interface.
pub(crate) type Taps = HashMap<u32, (InterfaceId, VpcId)>;

/// Why a prefix is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The kernel says so (unreachable, prohibit, throw).
    Said,
    /// None of its devices is up.
    Down,
    /// It leads through a device that is none of our taps.
    Foreign,
    /// It asks for something that shunt cannot do (a lightweight tunnel).
    Unsupported,
}

/// What a prefix is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Desired {
    /// At least one, each once, in order.
    Paths(Vec<(Nexthop, u16)>),
    Local,
    Blackhole,
    Unreachable(Why),
}

/// What choosing needs to know beside the routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) taps: &'a Taps,
    pub(crate) links: &'a HashMap<u32, LinkInfo>,
    pub(crate) nexthops: &'a HashMap<u32, NexthopInfo>,
}

/// The route that counts: the first, in the kernel's order, that the kernel would use for a
/// packet of TOS 0. `None`: there is none.
pub(crate) fn choose(entries: &[Entry], context: Context<'_>) -> Option<Desired> {
    let mut fallback = None;
    for entry in entries.iter().filter(|entry| entry.tos == 0) {
        let desired = match entry.kind {
            RouteType::Unicast => unicast(entry, context),
            RouteType::Local | RouteType::Broadcast | RouteType::Anycast => Desired::Local,
            RouteType::Blackhole => Desired::Blackhole,
            // The kernel would go on with its next rule; a VPC has one table, so here it ends.
            RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
                Desired::Unreachable(Why::Said)
            }
            RouteType::Multicast | RouteType::Other => continue,
        };
        // The kernel passes over a route all of whose devices are dead.
        if desired == Desired::Unreachable(Why::Down) {
            fallback = fallback.or(Some(desired));
        } else {
            return Some(desired);
        }
    }
    fallback
}

fn unicast(entry: &Entry, context: Context<'_>) -> Desired {
    let mut weights: Vec<(Nexthop, u32)> = Vec::new();
    let mut why = Why::Down;
    let mut add = |path: &Path, weight: u32| match usable(path, entry.mtu, context) {
        Ok(nexthop) => match weights.iter_mut().find(|(have, _)| *have == nexthop) {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => weights.push((nexthop, weight)),
        },
        // What is in the way when a device works tells more than that another is down.
        Err(reason) if why == Why::Down => why = reason,
        Err(_) => {}
    };
    let object = entry.nexthop.and_then(|id| context.nexthops.get(&id.get()));
    match object.map(|object| &object.kind) {
        Some(NexthopKind::Blackhole) => return Desired::Blackhole,
        Some(NexthopKind::Path(path)) => add(path, 1),
        Some(NexthopKind::Group(members)) => {
            for (id, weight) in members {
                match context.nexthops.get(id).map(|member| &member.kind) {
                    Some(NexthopKind::Path(path)) => add(path, *weight),
                    Some(NexthopKind::Blackhole) => return Desired::Blackhole,
                    _ => {}
                }
            }
        }
        None => entry.paths.iter().for_each(|path| add(path, path.weight)),
    }
    if weights.is_empty() {
        return Desired::Unreachable(why);
    }
    if let [(_, alone)] = weights.as_mut_slice() {
        // What is left of a multipath route keeps its weight or not, as the kernel likes.
        *alone = 1;
    }
    weights.sort_unstable_by_key(|&(nexthop, _)| nexthop);
    let clamp = |weight: u32| u16::try_from(weight.max(1)).unwrap_or(u16::MAX);
    Desired::Paths(
        weights
            .into_iter()
            .map(|(nexthop, weight)| (nexthop, clamp(weight)))
            .collect(),
    )
}

fn usable(path: &Path, mtu: Option<NonZeroU16>, context: Context<'_>) -> Result<Nexthop, Why> {
    let up = context
        .links
        .get(&path.index)
        .is_some_and(|link| link.flags & IFF_UP != 0);
    if !up || path.flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0 {
        return Err(Why::Down);
    }
    let &(interface, _) = context.taps.get(&path.index).ok_or(Why::Foreign)?;
    if path.encapsulated {
        return Err(Why::Unsupported);
    }
    Ok(Nexthop {
        interface,
        gateway: path.gateway,
        mtu,
    })
}
