//! The short way of a plain packet of a connection that we have: whole UDP and TCP packets
//! without options, SYN, FIN or RST, between unicast addresses, whose route is known.
//!
//! It changes the frame in place, the switch's header into that for the switch, and does nothing
//! that the walk would not do; whatever is not plain takes the walk. A property test holds the
//! two against each other (`tests/fast.rs`).

use shunt_p4::flow::proto;
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{InterfaceId, SwitchIndex, VpcId};

use super::hops::Way;
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

    /// Why the switch sent it.
    #[inline]
    pub(super) const fn reason(&self) -> u8 {
        self.reason
    }

    /// The interface that it came from.
    #[inline]
    pub(super) const fn from(&self) -> u16 {
        self.from
    }

    /// Bytes of the IP packet.
    #[inline]
    pub(super) const fn ip_len(&self) -> usize {
        self.end as usize - L3
    }

    /// Makes the frame what leaves: its tuple is `to` reversed. Its new length.
    #[inline(always)]
    pub(super) fn dress(&self, to: &Key, way: &Way, frame: &mut [u8]) -> Option<usize> {
        let (from, end) = (&self.flow.key, usize::from(self.end));
        match from.is_ipv6() {
            false => rewrite4(frame, from, to, end)?,
            true => rewrite6(frame, from, to, end)?,
        }
        *frame.first_chunk_mut()? = way.head;
        Some(end)
    }
}

/// Interfaces whose VPC was found right in a burst: that they exist, on that switch, is asked
/// once. Directions alternate, so it is not the last one only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ingresses([(u16, u16); INGRESSES]);

const INGRESSES: usize = 8;

impl Ingresses {
    /// `arrival`: the switch that the frame came from, where that is to be looked at.
    #[inline]
    fn is_known(
        &mut self,
        fib: &Fib,
        arrival: Option<SwitchIndex>,
        interface: u16,
        vpc: u16,
    ) -> Option<()> {
        let known = &mut self.0[usize::from(interface) % INGRESSES];
        if *known != (interface, vpc) {
            look_up(fib, arrival, interface, vpc)?;
            *known = (interface, vpc);
        }
        Some(())
    }
}

#[inline(never)]
fn look_up(fib: &Fib, arrival: Option<SwitchIndex>, interface: u16, vpc: u16) -> Option<()> {
    let known = fib.vpc(VpcId::new(vpc)?)?.id;
    let arrived = fib.interface(InterfaceId::new(interface)?)?;
    let right = arrived.vpc == known && arrival.is_none_or(|arrival| arrival == arrived.switch);
    right.then_some(())
}

impl Core {
    /// Reads a frame as the switch sent it. `None`: it takes the walk.
    #[inline(always)]
    pub(super) fn plain(
        &self,
        fib: &Fib,
        known: &mut Ingresses,
        frame: &[u8],
        plain: &mut Plain,
    ) -> Option<()> {
        let head: &Head = frame.first_chunk()?;
        let header = ShuntHeader::parse(head)?;
        known.is_known(fib, self.arrival, header.interface, header.vpc)?;
        let vpc = VpcId::new(header.vpc)?;
        if head[ENCAP_LEN] & 1 != 0 {
            return None;
        }
        plain.reason = header.reason;
        plain.from = header.interface;
        match u16::from_be_bytes([head[L3 - 2], head[L3 - 1]]) {
            ethertype::IPV4 => ipv4(vpc, head, frame, plain)?,
            ethertype::IPV6 => ipv6(vpc, frame, plain)?,
            _ => return None,
        }
        self.table.hash_in_place(&mut plain.flow);
        Some(())
    }

    /// The frame as it leaves, of its new length, if its connection is in that slot. `None`: it
    /// takes the walk; nothing was changed.
    #[inline(always)]
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
        // Cut to 32 bits: taken for current after 2^32 publishes only.
        let generation = fib.generation() as u32;
        let (connection, number) = self.table.seat(slot, direction, generation)?;
        let from = &plain.flow.key;
        if connection.raw_key(direction) != from || connection.takes_the_walk() {
            return None;
        }
        let learned;
        let (to, way) = match self.hops.numbered(number) {
            Some(way) => (connection.raw_key(direction.other()), way),
            None => {
                let to = *connection.raw_key(direction.other());
                learned = (to, self.way(fib, slot, direction)?);
                (&learned.0, &learned.1)
            }
        };
        let len = plain.ip_len();
        if len > usize::from(way.mtu) {
            return None;
        }
        let interfaces = (plain.from, way.interface);
        plain.dress(to, way, frame)?;
        self.count_punt(plain.reason);
        let place = (slot, direction);
        if from.proto() != proto::UDP || !self.seen_again(fib, now_ns, place, interfaces, len) {
            let transport = transport(from, frame.get(l4..end)?)?;
            self.seen_anew(fib, now_ns, place, interfaces, len, &transport);
        }
        Some(end)
    }

    /// A packet that may change its connection. `l4`: its transport header and what follows.
    #[inline(never)]
    fn seen_anew(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        (slot, direction): (u32, Direction),
        (from, to): (u16, InterfaceId),
        len: usize,
        transport: &Transport,
    ) {
        let packet = offload::Arrived {
            transport,
            len,
            fragment: false,
            from,
            to,
        };
        self.seen(fib, now_ns, slot, direction, &packet);
    }

    /// The way out of a connection's packets. `None`: there is more to be known about it.
    #[inline(never)]
    fn way(&mut self, fib: &Fib, slot: u32, direction: Direction) -> Option<Way> {
        let connection = self.table.get(slot)?;
        // Reversed, the other direction's key is what this one's packets become.
        let to = *connection.raw_key(direction.other());
        let route_vpc = connection.route_vpcs()[direction.index()];
        let known = self.hops.learn(fib, route_vpc, to.src(), to.is_ipv6())?;
        if known.interface.vpc != to.vpc() {
            // A peering may allow it.
            return None;
        }
        let generation = fib.generation() as u32;
        self.table
            .set_hop(slot, direction, generation, known.number);
        Some(match self.hops.numbered(known.number) {
            Some(way) => *way,
            None => Way::new(&known),
        })
    }
}

/// The least that a frame that may take the short way has.
type Head = [u8; L3 + IPV4_LEN + UDP_LEN];

#[inline(always)]
fn ipv4(vpc: VpcId, head: &Head, frame: &[u8], plain: &mut Plain) -> Option<()> {
    let at = |at: usize| {
        [
            head[L3 + at],
            head[L3 + at + 1],
            head[L3 + at + 2],
            head[L3 + at + 3],
        ]
    };
    // Its sum does not depend on the order of the bytes.
    let sum = |n: usize| u64::from(u32::from_ne_bytes(at(n)));
    let sum = sum(0) + sum(4) + sum(8) + sum(12) + sum(16);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let [version, _, len, low] = at(0);
    let len = usize::from(u16::from_be_bytes([len, low]));
    let fragment = u32::from_be_bytes(at(4)) & 0x3fff;
    let [ttl, protocol, ..] = at(8);
    let (l4, end) = (L3 + IPV4_LEN, L3 + len);
    let wrong = version != 0x45
        || fragment != 0
        || ttl <= 1
        || fold(sum as u32) != 0xffff
        || end > frame.len()
        || len < IPV4_LEN + UDP_LEN;
    if wrong {
        return None;
    }
    is_whole(
        protocol,
        head[IPV4_LEN + L3 + 4..].first_chunk()?,
        frame,
        l4,
        end,
    )?;
    let (src, dst) = (u32::from_be_bytes(at(12)), u32::from_be_bytes(at(16)));
    let ports = u32::from_be_bytes(at(IPV4_LEN));
    (plain.l4, plain.end) = (l4 as u16, end as u16);
    let (src, dst) = ([0, u64::from(src)], [0, u64::from(dst)]);
    plain.flow.key = Key::of_words(vpc, src, dst, protocol, ports, false);
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
    let ports: &[u8; UDP_LEN] = frame.get(l4..end)?.first_chunk()?;
    let [a, b, c, d, rest @ ..] = *ports;
    is_whole(head[6], &rest, frame, l4, end)?;
    let ports = u32::from_be_bytes([a, b, c, d]);
    (plain.l4, plain.end) = (l4 as u16, end as u16);
    plain.flow.key = Key::of_words(vpc, src, dst, head[6], ports, true);
    is_unicast(src, dst, true).then_some(())
}

/// Whether it is a whole segment or datagram. `rest`: behind its ports.
#[inline(always)]
fn is_whole(protocol: u8, rest: &[u8; 4], frame: &[u8], l4: usize, end: usize) -> Option<()> {
    match protocol {
        proto::UDP => {
            let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
            (len >= UDP_LEN && len <= end - l4).then_some(())
        }
        proto::TCP => {
            let head: &[u8; TCP_LEN] = frame.get(l4..end)?.first_chunk()?;
            let offset = usize::from(head[12] >> 4) * 4;
            let plain = head[13] & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) == 0;
            (plain && offset >= TCP_LEN && offset <= end - l4).then_some(())
        }
        _ => None,
    }
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

/// One's complement sum of the 16-bit words; not 0 unless all are.
#[inline]
fn fold64(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    fold(sum as u32)
}

/// What a TTL less one adds to a checksum's complement, whatever the protocol beside it.
const TTL: u64 = 0xfeff;

/// One from the TTL; what was `from` becomes `to` reversed; checksums by RFC 1624.
#[inline(always)]
fn rewrite4(frame: &mut [u8], from: &Key, to: &Key, end: usize) -> Option<()> {
    let words = |key: &Key| (key.src()[1], key.dst()[1], u64::from(key.ports()));
    let ((old_src, old_dst, old_ports), (dst, src, ports)) = (words(from), words(to));
    let ports = u64::from((ports as u32).rotate_left(16));
    let not = |word: u64| u64::from(!(word as u32));
    let addresses = not(old_src) + not(old_dst) + src + dst;
    let same = src == old_src && dst == old_dst && ports == old_ports;
    let packet = frame.get_mut(L3..end)?;
    let (head, rest) = packet.split_first_chunk_mut::<IPV4_LEN>()?;
    let old = u64::from(!u16::from_be_bytes([head[10], head[11]]));
    let new = !fold64(old + addresses + TTL);
    head[8] -= 1;
    head[10..12].copy_from_slice(&new.to_be_bytes());
    head[12..20].copy_from_slice(&(src << 32 | dst).to_be_bytes());
    if same {
        return Some(());
    }
    ports_and_checksum(rest, from, ports as u32, addresses + not(old_ports) + ports)
}

/// The same.
#[inline(never)]
fn rewrite6(frame: &mut [u8], from: &Key, to: &Key, end: usize) -> Option<()> {
    let ports = to.ports().rotate_left(16);
    let (src, dst) = (to.dst(), to.src());
    let same = src == from.src() && dst == from.dst() && ports == from.ports();
    let packet = frame.get_mut(L3..end)?;
    let (head, rest) = packet.split_first_chunk_mut::<IPV6_LEN>()?;
    head[7] -= 1;
    if same {
        return Some(());
    }
    let mut delta = u64::from(!from.ports()) + u64::from(ports);
    for (old, new) in [(from.src(), src), (from.dst(), dst)] {
        for (old, new) in old.into_iter().zip(new) {
            delta += u64::from(fold64(!old)) + u64::from(fold64(new));
        }
    }
    for (at, word) in [(8, src[0]), (16, src[1]), (24, dst[0]), (32, dst[1])] {
        head.get_mut(at..at + 8)?
            .copy_from_slice(&word.to_be_bytes());
    }
    ports_and_checksum(rest, from, ports, delta)
}

/// Ports, and by how much the checksum's complement changes.
#[inline(always)]
fn ports_and_checksum(l4: &mut [u8], from: &Key, ports: u32, delta: u64) -> Option<()> {
    let udp = from.proto() == proto::UDP;
    let at = if udp { 6 } else { 16 };
    let checksum: &mut [u8; 2] = l4.get_mut(at..)?.first_chunk_mut()?;
    let old = u16::from_be_bytes(*checksum);
    if !(udp && old == 0) {
        let new = !fold64(u64::from(!old) + delta);
        // A UDP checksum of zero means none (RFC 768).
        let new = if udp && new == 0 { 0xffff } else { new };
        *checksum = new.to_be_bytes();
    }
    *l4.first_chunk_mut()? = ports.to_be_bytes();
    Some(())
}
