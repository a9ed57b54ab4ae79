//! Neighbours that somebody needs: asks the kernel to resolve them, and to keep the gateways
//! of next hops resolved. The kernel does the ARP and ND; this only pokes it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use shunt_p4::{InterfaceId, NetworkOp, NexthopId};
use tokio::time::Instant;

use super::message::{
    NTF_EXT_LEARNED, NUD_DELAY, NUD_NOARP, NUD_PERMANENT, NUD_PROBE, NUD_REACHABLE, NeighborInfo,
};
use super::socket::{NetlinkSocket, SocketError};

/// One address is asked for at most once in this time: the kernel repeats ARP once a second.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses whose last request is remembered.
const RECENT: usize = 16_384;
/// Requests to the kernel that may wait.
const QUEUE: usize = 16_384;

/// The neighbours of the taps, as the mirror knows them.
type Neighbors = HashMap<(u32, IpAddr), NeighborInfo>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Resolve it now.
    Use,
    /// Keep it resolved.
    Keep,
    /// No longer.
    Leave,
}

/// What it has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeeperCounts {
    pub(crate) sent: u64,
    pub(crate) limited: u64,
    pub(crate) refused: u64,
}

/// Asks the kernel for neighbours.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: NetlinkSocket,
    indices: HashMap<InterfaceId, u32>,
    gateways: HashMap<NexthopId, (u32, IpAddr)>,
    /// How many next hops lead to each gateway: those of different MTUs share one.
    users: HashMap<(u32, IpAddr), usize>,
    recent: HashMap<(u32, IpAddr), Instant>,
    queue: VecDeque<(u32, IpAddr, Wish)>,
    /// Whether the kernel keeps entries by itself (`NTF_EXT_MANAGED`, Linux 5.16).
    managed: bool,
    counts: KeeperCounts,
}

impl Keeper {
    pub(crate) fn new(socket: NetlinkSocket, indices: HashMap<InterfaceId, u32>) -> Self {
        Self {
            socket,
            indices,
            gateways: HashMap::new(),
            users: HashMap::new(),
            recent: HashMap::new(),
            queue: VecDeque::new(),
            managed: true,
            counts: KeeperCounts::default(),
        }
    }

    /// Other interfaces: their devices.
    pub(crate) fn set_devices(&mut self, indices: HashMap<InterfaceId, u32>) {
        self.indices = indices;
    }

    pub(crate) fn counts(&self) -> KeeperCounts {
        self.counts
    }

    /// Follows the next hops that a batch brings and takes.
    pub(crate) fn note(&mut self, ops: &[NetworkOp]) {
        for op in ops {
            match op {
                NetworkOp::SetNexthop(id, nexthop) => {
                    let index = self.indices.get(&nexthop.interface);
                    if let (Some(&index), Some(gateway)) = (index, nexthop.gateway) {
                        self.gateways.insert(*id, (index, gateway));
                        let users = self.users.entry((index, gateway)).or_default();
                        *users += 1;
                        if *users == 1 {
                            self.push(index, gateway, Wish::Keep);
                        }
                    }
                }
                NetworkOp::RemoveNexthop(id) => {
                    if let Some(key) = self.gateways.remove(id)
                        && let Entry::Occupied(mut users) = self.users.entry(key)
                    {
                        *users.get_mut() -= 1;
                        if *users.get() == 0 {
                            users.remove();
                            self.push(key.0, key.1, Wish::Leave);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks for one address, unless it was asked for just now.
    pub(crate) fn resolve(&mut self, interface: InterfaceId, address: IpAddr, now: Instant) {
        let Some(&index) = self.indices.get(&interface) else {
            self.counts.refused += 1;
            return;
        };
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        if address.is_multicast() || address.is_unspecified() || broadcast {
            self.counts.refused += 1;
            return;
        }
        let key = (index, address);
        let soon = |then: &Instant| now.duration_since(*then) < RESOLVE_INTERVAL;
        if self.recent.get(&key).is_some_and(soon) {
            self.counts.limited += 1;
            return;
        }
        if self.recent.len() >= RECENT {
            self.recent.retain(|_, then| soon(then));
        }
        if self.recent.len() >= RECENT {
            self.counts.limited += 1;
            return;
        }
        self.recent.insert(key, now);
        let kept = self.managed && self.users.contains_key(&key);
        self.push(index, address, if kept { Wish::Keep } else { Wish::Use });
    }

    /// Asks again for gateways that need it: every one that has no entry, and, where the kernel
    /// does not keep them by itself, every one whose entry is not fresh.
    pub(crate) fn refresh(&mut self, neighbors: &Neighbors) {
        const FRESH: u16 = NUD_REACHABLE | NUD_DELAY | NUD_PROBE;
        let managed = self.managed;
        let due: Vec<_> = self
            .users
            .keys()
            .filter(|key| match neighbors.get(key) {
                None => true,
                Some(info) => !managed && info.state & FRESH == 0,
            })
            .copied()
            .collect();
        for (index, gateway) in due {
            self.push(index, gateway, Wish::Keep);
        }
    }

    fn push(&mut self, index: u32, address: IpAddr, wish: Wish) {
        if self.queue.len() < QUEUE {
            self.queue.push_back((index, address, wish));
        } else {
            self.counts.limited += 1;
        }
    }

    async fn ask(&mut self, index: u32, address: IpAddr, keep: bool) -> Result<(), SocketError> {
        let message = RouteNetlinkMessage::NewNeighbour(message(index, address, keep));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.socket.request(message, flags).await
    }

    /// Sends what is due.
    pub(crate) async fn work(&mut self, neighbors: &Neighbors) {
        while let Some((index, address, wish)) = self.queue.pop_front() {
            // Asking for an entry that somebody set by hand would make it an ordinary one.
            let set_by_hand = neighbors.get(&(index, address)).is_some_and(|info| {
                info.state & (NUD_PERMANENT | NUD_NOARP) != 0 || info.flags & NTF_EXT_LEARNED != 0
            });
            if set_by_hand {
                continue;
            }
            if wish == Wish::Leave && !(self.managed && neighbors.contains_key(&(index, address))) {
                continue;
            }
            let keep = wish == Wish::Keep && self.managed;
            let mut result = self.ask(index, address, keep).await;
            if keep && matches!(&result, Err(error) if is_unknown(error.errno())) {
                tracing::info!("the kernel does not keep neighbours by itself; asking by timer");
                self.managed = false;
                result = self.ask(index, address, false).await;
            }
            match result {
                Ok(()) => self.counts.sent += 1,
                Err(error) => {
                    self.counts.refused += 1;
                    tracing::debug!(%address, index, %error, "neighbour not resolved");
                }
            }
        }
    }
}

/// How a kernel says that it does not know `NDA_FLAGS_EXT`.
fn is_unknown(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::EINVAL | Errno::EOPNOTSUPP))
}

/// `ip neigh … use`, or `managed`.
fn message(index: u32, address: IpAddr, keep: bool) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = index;
    let attributes = &mut message.attributes;
    attributes.push(NeighbourAttribute::Destination(address.into()));
    if keep {
        let flags = NeighbourExtFlags::Managed;
        attributes.push(NeighbourAttribute::ExtFlags(flags));
    } else {
        message.header.flags = NeighbourFlags::Use;
    }
    message
}
