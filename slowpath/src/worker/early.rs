//! Whose a plain packet is, told before the walk: as `owner.rs` says, but with what depends on the
//! destination only remembered, so that a packet of another worker costs little here.
//!
//! Destinations about which there is more to be said (static NAT, several paths, no route) are
//! remembered as such; their packets take the walk, as do those to forwarded ports.

use std::net::IpAddr;

use shunt_dpdk::huge_pages;
use shunt_p4::VpcId;

use super::Core;
use super::hops::stamp;
use crate::conntrack::{Key, KeyHasher, address};
use crate::fib::{Fib, Resolution};
use crate::nat::{Hidden, PortShare, SourceRule};

/// Destinations that are remembered, a worker: 640 KiB. One more takes the place of another.
pub const MAX_DESTINATIONS: usize = 1 << 14;

/// What there is to say of packets to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// More.
    Other,
    /// Masquerades lease these ports of it, those aside that are forwarded.
    Leased { first: u16, last: u16 },
    /// They leave through that VPC, those of some sources masqueraded. `hidden`: so would its own.
    Out {
        to: VpcId,
        hidden: bool,
        sources: Hidden,
    },
}

/// Direct mapped: a destination has one place.
#[derive(Clone, Copy, Debug)]
struct Entry {
    dst: [u64; 2],
    /// See [`stamp`]; 0: empty.
    stamp: u32,
    vpc: u16,
    kind: Kind,
}

const _: () = assert!(size_of::<Entry>() == 40);

const EMPTY: Entry = Entry {
    dst: [0; 2],
    stamp: 0,
    vpc: 0,
    kind: Kind::Other,
};

/// Destinations.
#[derive(Debug)]
pub(super) struct Destinations {
    /// Empty for a worker that is alone.
    entries: Vec<Entry>,
    hasher: KeyHasher,
}

impl Destinations {
    pub(super) fn new(seed: u64, share: PortShare) -> Self {
        let mut entries = Vec::new();
        if share.workers > 1 {
            entries.reserve_exact(MAX_DESTINATIONS);
            huge_pages(&mut entries);
            entries.resize(MAX_DESTINATIONS, EMPTY);
        }
        Self {
            entries,
            hasher: KeyHasher::new(seed),
        }
    }

    #[inline]
    fn kind(&mut self, fib: &Fib, key: &Key) -> Kind {
        let (vpc, dst) = (key.vpc(), key.dst());
        let hash = self.hasher.words(dst, [u64::from(vpc.get()), 0], 3);
        let stamp = stamp(fib, key.is_ipv6());
        // A power of two.
        let Some(entry) = self.entries.get_mut(hash as usize % MAX_DESTINATIONS) else {
            return Kind::Other;
        };
        if entry.dst != dst || entry.vpc != vpc.get() || entry.stamp != stamp || stamp == 0 {
            *entry = Entry {
                dst,
                stamp,
                vpc: vpc.get(),
                kind: look_up(fib, key),
            };
        }
        entry.kind
    }
}

#[inline(never)]
fn look_up(fib: &Fib, key: &Key) -> Kind {
    let (rules, vpc) = (fib.rules(), key.vpc());
    let dst = address(key.dst(), key.is_ipv6());
    if rules.is_outside(vpc, dst) {
        return match rules.leased_ports(vpc, dst) {
            Some(ports) => Kind::Leased {
                first: ports.first(),
                last: ports.last(),
            },
            None => Kind::Other,
        };
    }
    if !fib.has_one_path(vpc, dst) {
        return Kind::Other;
    }
    let Resolution::Via(hop) = fib.resolve(vpc, dst, 0) else {
        return Kind::Other;
    };
    let to = hop.interface.vpc;
    Kind::Out {
        to,
        hidden: is_hidden(fib, to, vpc, dst),
        sources: rules.hidden_sources(vpc, to, dst.is_ipv6()),
    }
}

#[inline(never)] // most VPCs have one prefix, and no static NAT
fn is_hidden(fib: &Fib, vpc: VpcId, to: VpcId, src: IpAddr) -> bool {
    matches!(
        fib.rules().source(vpc, to, src),
        Some(SourceRule::Masquerade(_))
    )
}

impl Core {
    /// The worker that a packet without a connection here belongs to. `None`: not told so easily.
    #[inline]
    pub(super) fn early_owner(&mut self, fib: &Fib, key: &Key) -> Option<u16> {
        let (src_port, dst_port) = key.port_pair();
        match self.destinations.kind(fib, key) {
            Kind::Leased { first, last } if (first..=last).contains(&dst_port) => {
                let dst = address(key.dst(), key.is_ipv6());
                let forwarded = fib
                    .rules()
                    .is_forwarded(key.vpc(), dst, key.proto(), dst_port);
                (!forwarded).then(|| PortShare::owner(dst_port, self.share.workers))
            }
            Kind::Out {
                to,
                hidden,
                sources,
            } => {
                let (vpc, src) = (key.vpc(), key.src());
                let source_hidden = match sources {
                    Hidden::None => false,
                    Hidden::Net { len: 0, .. } => true,
                    Hidden::Net { bits, len } => ((src[1] ^ u64::from(bits)) >> (32 - len)) == 0,
                    Hidden::Ask => is_hidden(fib, vpc, to, address(src, key.is_ipv6())),
                };
                Some(if source_hidden {
                    self.by_socket_words(vpc, src, src_port, key.proto())
                } else if hidden {
                    self.by_socket_words(to, key.dst(), dst_port, key.proto())
                } else {
                    self.by_ends(&key.tuple())
                })
            }
            Kind::Leased { .. } | Kind::Other => None,
        }
    }
}
