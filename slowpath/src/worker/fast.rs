//! The short way of a plain packet of a connection that we have: whole UDP and TCP packets
//! without options, SYN, FIN or RST, between unicast addresses, whose route is known.
//!
//! It changes the frame in place, the switch's header into that for the switch, and does nothing
//! that the walk would not do; whatever is not plain takes the walk. A property test holds the
//! two against each other (`tests/fast.rs`).

use shunt_p4::flow::proto;
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{InterfaceId, SwitchIndex, VpcId};

use super::hops::Known;
use super::{Core, offload};
use crate::conntrack::{Direction, Hashed, Key, address};
use crate::fib::Fib;
use crate::icmp::is_martian;
use crate::packet::checksum::fold;
use crate::packet::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Segment, TcpFlags, Transport, ethertype};

const L3: usize = ENCAP_LEN + ETHERNET_LEN;
const UDP_LEN: usize = 8;
const TCP_LEN: usize = 20;

/// A frame that may take the short way. Written where it is read from: a copy of what has just
/// been written in smaller parts would wait for all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub(super) flow: Hashed,
    /// Where the transport header starts in the frame, and where the packet ends.
    l4: u16,
    end: u16,
    reason: u8,
    /// The interface that it came from.
    from: u16,
}

impl Plain {
    /// To be written.
    pub(super) const NONE: Plain = Plain {
        flow: Hashed::NONE,
        l4: 0,
        end: 0,
        reason: 0,
        from: 0,
    };
}

/// The interface and VPC of the last frame: that they exist, on that switch, is asked once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastIngress {
    interface: u16,
    vpc: u16,
}

impl LastIngress {
    /// `arrival`: the switch that the frame came from, where that is to be looked at.
    #[inline]
    fn is_known(
        &mut self,
        fib: &Fib,
        arrival: Option<SwitchIndex>,
        interface: u16,
        vpc: u16,
    ) -> Option<()> {
        if (self.interface, self.vpc) != (interface, vpc) {
            let known = fib.vpc(VpcId::new(vpc)?)?.id;
            let arrived = fib.interface(InterfaceId::new(interface)?)?;
            if arrived.vpc != known || arrival.is_some_and(|arrival| arrival != arrived.switch) {
                return None;
            }
            *self = Self { interface, vpc };
        }
        Some(())
    }
}

impl Core {
    /// Reads a frame as the switch sent it. `None`: it takes the walk.
    #[inline]
    pub(super) fn plain(
        &self,
        fib: &Fib,
        last: &mut LastIngress,
        frame: &[u8],
        plain: &mut Plain,
    ) -> Option<()> {
        let head: &[u8; L3 + IPV4_LEN + UDP_LEN] = frame.first_chunk()?;
        let header = ShuntHeader::parse(head)?;
        last.is_known(fib, self.arrival, header.interface, header.vpc)?;
        let vpc = VpcId::new(header.vpc)?;
        if head[ENCAP_LEN] & 1 != 0 {
            return None;
        }
        plain.reason = header.reason;
        plain.from = header.interface;
        match u16::from_be_bytes([head[L3 - 2], head[L3 - 1]]) {
            ethertype::IPV4 => ipv4(vpc, frame, plain)?,
            ethertype::IPV6 => ipv6(vpc, frame, plain)?,
            _ => return None,
        }
        self.table.hash_in_place(&mut plain.flow);
        Some(())
    }

    /// Asks for what a new connection of this packet will need, as far as that can be told.
    #[inline]
    pub(super) fn prefetch_new(&self, fib: &Fib, plain: &Plain) {
        let key = &plain.flow.key;
        if let Some(known) = self.hops.known(fib, key.vpc(), key.dst(), key.is_ipv6()) {
            self.nat.prefetch(key, known.interface.vpc);
        }
    }

    /// Whether the packet's connection is in that slot.
    #[inline]
    pub(super) fn is_of(&self, plain: &Plain, slot: u32, direction: Direction) -> bool {
        self.table
            .get(slot)
            .is_some_and(|connection| *connection.raw_key(direction) == plain.flow.key)
    }

    /// The frame as it leaves, of its new length. `None`: it takes the walk; nothing was changed.
    #[inline]
    pub(super) fn forward(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        plain: &Plain,
        slot: u32,
        direction: Direction,
        frame: &mut [u8],
    ) -> Option<usize> {
        let (l4, end) = (usize::from(plain.l4), usize::from(plain.end));
        let connection = self.table.get(slot)?;
        if connection.is_revoked() {
            return None;
        }
        let key = connection.raw_key(direction.other());
        let [forward, reply] = connection.route_vpcs();
        let route_vpc = match direction {
            Direction::Forward => forward,
            Direction::Reply => reply,
        };
        // Reversed, the other direction's key is what this one's packets become.
        let to = Ends {
            src: key.dst(),
            dst: key.src(),
            ports: key.ports().rotate_left(16),
        };
        let egress_vpc = key.vpc();
        // Cut to 32 bits: taken for current after 2^32 publishes only.
        let generation = fib.generation() as u32;
        let number = self.table.hop(slot, direction, generation);
        let Known {
            interface,
            mac,
            mtu,
        } = match self.hops.numbered(fib, number) {
            Some(known) => known,
            None => {
                let v6 = plain.flow.key.is_ipv6();
                let (number, known) = self.hops.learn(fib, route_vpc, to.dst, v6)?;
                if known.interface.vpc != egress_vpc {
                    // A peering may allow it.
                    return None;
                }
                self.table.set_hop(slot, direction, generation, number);
                known
            }
        };
        if end - L3 > usize::from(mtu) {
            return None;
        }
        let transport = transport(&plain.flow.key, frame.get(l4..end)?)?;
        self.count_punt(plain.reason);
        self.seen(
            fib,
            now_ns,
            slot,
            direction,
            &offload::Arrived {
                transport: &transport,
                len: end - L3,
                fragment: false,
                from: plain.from,
                to: interface,
            },
        );
        rewrite(frame, &plain.flow.key, &to, l4, end)?;
        let head: &mut [u8; L3] = frame.first_chunk_mut()?;
        let (outer, inner) = head.split_at_mut(ENCAP_LEN);
        outer.copy_from_slice(&ShuntHeader::egress(interface.id).encode());
        inner.get_mut(..6)?.copy_from_slice(&mac.0);
        inner.get_mut(6..12)?.copy_from_slice(&interface.mac.0);
        Some(end)
    }
}

/// Addresses in words, and both ports, the source's above.
#[derive(Clone, Copy)]
struct Ends {
    src: [u64; 2],
    dst: [u64; 2],
    ports: u32,
}

#[inline(always)]
fn ipv4(vpc: VpcId, frame: &[u8], plain: &mut Plain) -> Option<()> {
    let head: &[u8; IPV4_LEN] = frame.get(L3..)?.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (l4, end) = (L3 + IPV4_LEN, L3 + len);
    let fragment = u16::from_be_bytes([head[6], head[7]]) & 0x3fff;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let half = |at: usize| u64::from(word(at));
    let sum = half(0) + half(4) + half(8) + half(12) + half(16);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let wrong = head[0] != 0x45
        || fragment != 0
        || head[8] <= 1
        || fold(sum as u32) != 0xffff
        || end > frame.len();
    if wrong {
        return None;
    }
    let (src, dst) = ([0, u64::from(word(12))], [0, u64::from(word(16))]);
    let ports = ports(head[9], frame.get(l4..end)?)?;
    (plain.l4, plain.end) = (l4 as u16, end as u16);
    plain.flow.key = Key::of_words(vpc, src, dst, head[9], ports, false);
    is_unicast(src, dst, false).then_some(())
}

#[inline]
fn ipv6(vpc: VpcId, frame: &[u8], plain: &mut Plain) -> Option<()> {
    let head: &[u8; IPV6_LEN] = frame.get(L3..)?.first_chunk()?;
    let len = IPV6_LEN + usize::from(u16::from_be_bytes([head[4], head[5]]));
    let (l4, end) = (L3 + IPV6_LEN, L3 + len);
    if head[0] >> 4 != 6 || head[7] <= 1 || end > frame.len() {
        return None;
    }
    let word =
        |at: usize| -> Option<u64> { Some(u64::from_be_bytes(*head.get(at..)?.first_chunk()?)) };
    let (src, dst) = ([word(8)?, word(16)?], [word(24)?, word(32)?]);
    let ports = ports(head[6], frame.get(l4..end)?)?;
    (plain.l4, plain.end) = (l4 as u16, end as u16);
    plain.flow.key = Key::of_words(vpc, src, dst, head[6], ports, true);
    is_unicast(src, dst, true).then_some(())
}

/// Both ports of a whole segment or datagram.
#[inline]
fn ports(protocol: u8, bytes: &[u8]) -> Option<u32> {
    let head: &[u8; UDP_LEN] = bytes.first_chunk()?;
    match protocol {
        proto::UDP => {
            let len = usize::from(u16::from_be_bytes([head[4], head[5]]));
            if len < UDP_LEN || len > bytes.len() {
                return None;
            }
        }
        proto::TCP => {
            let head: &[u8; TCP_LEN] = bytes.first_chunk()?;
            let offset = usize::from(head[12] >> 4) * 4;
            if head[13] & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) != 0
                || offset < TCP_LEN
                || offset > bytes.len()
            {
                return None;
            }
        }
        _ => return None,
    }
    Some(u32::from_be_bytes([head[0], head[1], head[2], head[3]]))
}

/// Neither address is one that the walk has a word about.
#[inline]
fn is_unicast(src: [u64; 2], dst: [u64; 2], v6: bool) -> bool {
    if v6 {
        let group = dst[0] >> 56 == 0xff;
        let link_local = [src, dst].iter().any(|[high, _]| high >> 54 == 0xfe80 >> 6);
        !group && !link_local && !is_martian(address(src, true))
    } else {
        let (src, dst) = (src[1] as u32, dst[1] as u32);
        // 0/8, 127/8, multicast and above are no sources; multicast and broadcast no destinations.
        let (first, group) = (src >> 24, dst >> 28 == 0xe || dst == u32::MAX);
        let link_local = src >> 16 == 0xa9fe || dst >> 16 == 0xa9fe;
        !group && !link_local && first != 0 && first != 127 && first < 224
    }
}

/// What connection tracking reads. `None`: not what [`ports`] let through.
#[inline]
fn transport(key: &Key, bytes: &[u8]) -> Option<Transport> {
    let (src_port, dst_port) = key.port_pair();
    if key.proto() == proto::UDP {
        return Some(Transport::Udp { src_port, dst_port });
    }
    let head: &[u8; TCP_LEN] = bytes.first_chunk()?;
    let offset = usize::from(head[12] >> 4) * 4;
    Some(Transport::Tcp {
        src_port,
        dst_port,
        flags: TcpFlags(head[13]),
        segment: Segment {
            seq: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            ack: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
            window: u16::from_be_bytes([head[14], head[15]]),
            len: u16::try_from(bytes.len().checked_sub(offset)?).ok()?,
            syn: false,
            fin: false,
            scale: None,
        },
    })
}

/// The one's complement sum of the 16-bit words of both; of IPv4 the lower half of the second.
#[inline]
fn sum([high, low]: [u64; 2]) -> u32 {
    let halves = |word: u64| {
        let word = (word & 0xffff_ffff) + (word >> 32);
        ((word & 0xffff) + (word >> 16)) as u32
    };
    halves(high) + halves(low)
}

/// One from the TTL; addresses and ports of `from` become `to`; checksums by RFC 1624.
#[inline(always)]
fn rewrite(frame: &mut [u8], from: &Key, to: &Ends, l4: usize, end: usize) -> Option<()> {
    let v6 = from.is_ipv6();
    let (old_ports, new_ports) = (from.ports(), to.ports);
    let (src, dst) = (to.src, to.dst);
    let same = src == from.src() && dst == from.dst() && old_ports == new_ports;
    // Of IPv4 only 32 bits are there to be complemented.
    let not = |[high, low]: [u64; 2]| match v6 {
        true => [!high, !low],
        false => [0, u64::from(!(low as u32))],
    };
    let addresses = match same {
        true => 0,
        false => u32::from(fold(
            sum(not(from.src())) + sum(not(from.dst())) + sum(src) + sum(dst),
        )),
    };
    let (head, rest) = frame.get_mut(L3..end)?.split_at_mut_checked(l4 - L3)?;
    if v6 {
        let head: &mut [u8; IPV6_LEN] = head.first_chunk_mut()?;
        head[7] -= 1;
        for (at, word) in [(8, src[0]), (16, src[1]), (24, dst[0]), (32, dst[1])] {
            head.get_mut(at..at + 8)?
                .copy_from_slice(&word.to_be_bytes());
        }
    } else {
        let head: &mut [u8; IPV4_LEN] = head.first_chunk_mut()?;
        let ttl = u32::from(!u16::from_be_bytes([head[8], head[9]]))
            + u32::from(u16::from_be_bytes([head[8] - 1, head[9]]));
        head[8] -= 1;
        let old = u16::from_be_bytes([head[10], head[11]]);
        let new = !fold(u32::from(!old) + addresses + ttl);
        head[10..12].copy_from_slice(&new.to_be_bytes());
        head[12..16].copy_from_slice(&(src[1] as u32).to_be_bytes());
        head[16..20].copy_from_slice(&(dst[1] as u32).to_be_bytes());
    }
    if same {
        return Some(());
    }
    let ports = sum([0, u64::from(!old_ports)]) + sum([0, u64::from(new_ports)]);
    let delta = addresses + ports;
    rest.get_mut(..4)?.copy_from_slice(&new_ports.to_be_bytes());
    let udp = from.proto() == proto::UDP;
    let at = if udp { 6 } else { 16 };
    let checksum: &mut [u8; 2] = rest.get_mut(at..)?.first_chunk_mut()?;
    let old = u16::from_be_bytes(*checksum);
    if udp && old == 0 {
        return Some(());
    }
    let new = !fold(u32::from(!old) + delta);
    // A UDP checksum of zero means none (RFC 768).
    let new = if udp && new == 0 { 0xffff } else { new };
    *checksum = new.to_be_bytes();
    Some(())
}
