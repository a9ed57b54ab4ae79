//! The short way of a connection's first packet: a plain UDP datagram from a source that is
//! masqueraded to a destination about which no NAT rule has anything to say.
//!
//! ```text
//!   all of a burst:  ask    which rule, which next hop, where a port will be looked for
//!   all of a burst:  look   for a free port there
//!   all of a burst:  grant  the port, and with it what replies look like
//!   one by one:      begin  limits, table, rewrite
//! ```
//!
//! Each step asks for the memory of the next, so that of a burst's connections all wait at once
//! for memory, not one after the other. It decides what the walk decides; whatever it does not
//! know takes the walk. A property test holds the two against each other (`tests/fast.rs`).

use shunt_p4::VpcId;
use shunt_p4::flow::proto;

use super::burst::{Found, STAGED};
use super::fast::Plain;
use super::{Core, Verdict};
use crate::conntrack::{Direction, Hashed, Key, Tracker, address, words};
use crate::fib::Fib;
use crate::nat::{Ask, Lease, SourceRule};
use crate::packet::{PacketBuf, Transport};
use crate::policy::Masquerade;
use crate::stats::DropReason;

/// The masquerades between two VPCs, looked up once for a burst's packets that follow each other.
/// `None`: static NAT has to be asked, too.
#[derive(Clone, Copy)]
struct Between<'a> {
    vpc: VpcId,
    to: VpcId,
    masquerades: Option<&'a [Masquerade]>,
}

/// A connection that may be begun, and where its port will be looked for. Written where it is read
/// from, as all that a step leaves for the next: a copy would wait for its parts.
struct Asked<'a> {
    /// `None`: the packet takes the walk.
    rule: Option<&'a Masquerade>,
    /// The VPC that it leaves through.
    to: VpcId,
    /// Its next hop's number.
    hop: u16,
    ask: Ask,
}

impl Asked<'_> {
    /// To be written.
    const NONE: Self = Self {
        rule: None,
        to: VpcId::MIN,
        hop: 0,
        ask: Ask::NONE,
    };
}

/// The same with its port: not begun, that is to be given back.
pub(super) struct Granted {
    /// `None`: the packet takes the walk.
    lease: Option<Lease>,
    hop: u16,
    reply: Hashed,
}

impl Granted {
    /// To be written.
    pub(super) const NONE: Self = Self {
        lease: None,
        hop: 0,
        reply: Hashed::NONE,
    };
}

impl Core {
    /// Ports for the connections that a burst begins, as far as they are told so easily.
    #[inline(never)]
    pub(super) fn grants(
        &mut self,
        fib: &Fib,
        plain: &[Plain; STAGED],
        found: &[Found; STAGED],
        granted: &mut [Granted; STAGED],
    ) {
        let mut asked = [const { Asked::NONE }; STAGED];
        let mut between = None;
        for ((plain, found), asked) in plain.iter().zip(found).zip(&mut asked) {
            if *found == Found::Ours {
                self.ask(fib, plain, &mut between, asked);
            }
        }
        // Memory is asked for in loops of their own: they are so short that the CPU has many of
        // these look-ups under way at once, with their page walks.
        for asked in asked.iter().filter(|asked| asked.rule.is_some()) {
            self.nat.prefetch_asked(&asked.ask);
        }
        for asked in &mut asked {
            if let Some(rule) = asked.rule {
                self.nat.look(rule, &mut asked.ask);
            }
        }
        for asked in asked.iter().filter(|asked| asked.rule.is_some()) {
            self.nat.prefetch_start(&asked.ask);
        }
        for ((plain, asked), granted) in plain.iter().zip(&asked).zip(granted.iter_mut()) {
            if let Some(rule) = asked.rule {
                self.grant(fib, plain, rule, asked, granted);
            }
        }
        for granted in granted.iter().filter(|granted| granted.lease.is_some()) {
            self.table.prefetch(&granted.reply);
        }
    }

    /// `None`: the packet takes the walk.
    #[inline(always)]
    fn ask<'a>(
        &mut self,
        fib: &'a Fib,
        plain: &Plain,
        between: &mut Option<Between<'a>>,
        asked: &mut Asked<'a>,
    ) -> Option<()> {
        let key = &plain.flow.key;
        let (vpc, v6) = (key.vpc(), key.is_ipv6());
        if key.proto() != proto::UDP || self.starting || fib.vpc(vpc)?.stateless {
            return None;
        }
        let known = self.hops.learn(fib, vpc, key.dst(), v6)?;
        if !known.clear || known.number == 0 || plain.ip_len() > usize::from(known.mtu) {
            return None;
        }
        let (to, src) = (known.interface.vpc, address(key.src(), v6));
        let masquerades = match between {
            Some(last) if (last.vpc, last.to) == (vpc, to) => last.masquerades,
            _ => {
                let masquerades = fib.rules().only_masquerades(vpc, to);
                *between = Some(Between {
                    vpc,
                    to,
                    masquerades,
                });
                masquerades
            }
        };
        let rule = match masquerades {
            Some(rules) => rules.iter().find(|rule| rule.hides(src))?,
            None => match fib.rules().source(vpc, to, src)? {
                SourceRule::Masquerade(rule) => rule,
                SourceRule::Static(_) => return None,
            },
        };
        self.nat.ask(rule, key, &mut asked.ask).ok()?;
        asked.rule = Some(rule);
        asked.to = to;
        asked.hop = known.number;
        Some(())
    }

    /// Nothing is granted if there is no port; the walk knows what to do.
    #[inline(always)]
    fn grant(
        &mut self,
        fib: &Fib,
        plain: &Plain,
        rule: &Masquerade,
        asked: &Asked<'_>,
        granted: &mut Granted,
    ) {
        let Ok(leased) = self.nat.grant(fib.rules(), rule, &asked.ask) else {
            return;
        };
        let key = &plain.flow.key;
        let (_, dst_port) = key.port_pair();
        granted.hop = asked.hop;
        granted.reply.key = Key::of_words(
            asked.to,
            key.dst(),
            words(leased.address),
            key.proto(),
            u32::from(dst_port) << 16 | u32::from(leased.port),
            key.is_ipv6(),
        );
        granted.lease = Some(leased.lease);
        self.table.hash_in_place(&mut granted.reply);
    }

    /// `None`: it takes the walk after all; nothing was changed, and the port is given back.
    pub(super) fn begin<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        plain: &Plain,
        granted: &mut Granted,
        frame: &mut B,
    ) -> Option<Verdict> {
        let lease = granted.lease.take()?;
        let (flow, reply) = (&plain.flow, &granted.reply);
        // A packet before it in the burst may have begun it.
        if self.table.find_hashed(flow).is_some() {
            self.nat.release(lease);
            return None;
        }
        let vpc = flow.key.vpc();
        let source = (vpc, address(flow.key.src(), flow.key.is_ipv6()));
        let limits = &fib.policy().limits;
        let counted = match self.quotas.admit(now_ns, limits, source, false) {
            Ok(counted) => counted,
            Err(reason) => {
                self.nat.release(lease);
                return Some(self.refuse(plain, reason));
            }
        };
        let (src_port, dst_port) = flow.key.port_pair();
        let tracker = Tracker::begin(&Transport::Udp { src_port, dst_port });
        let slot = tracker.and_then(|tracker| {
            let keys = [flow, reply];
            self.table
                .insert_hashed(now_ns, keys, [vpc; 2], tracker)
                .ok()
        });
        let Some((slot, connection)) =
            slot.and_then(|slot| Some((slot, self.table.get_mut(slot)?)))
        else {
            // A tuple that a connection without NAT has, or no room.
            self.quotas.release(counted, source);
            self.nat.release(lease);
            return None;
        };
        connection.lease = Some(lease);
        connection.set_counted(counted.source);
        self.record(slot);
        self.stats.connections_created += 1;
        let way = self.hops.numbered(granted.hop);
        let dressed = way.and_then(|way| {
            let len = plain.dress(&reply.key, way, frame.data_mut())?;
            Some((len, way.interface))
        });
        let Some((len, interface)) = dressed else {
            return Some(self.refuse(plain, DropReason::Malformed));
        };
        self.count_punt(plain.reason());
        let place = (slot, Direction::Forward);
        let generation = fib.generation() as u32;
        self.table
            .set_hop(slot, Direction::Forward, generation, granted.hop);
        let interfaces = (plain.from(), interface);
        let seen = self.seen_again(fib, now_ns, place, interfaces, plain.ip_len());
        debug_assert!(seen, "it has just begun: it is new and in software");
        frame.truncate(len);
        Some(Verdict::Transmit)
    }

    fn refuse(&mut self, plain: &Plain, reason: DropReason) -> Verdict {
        self.count_punt(plain.reason());
        self.stats.drop(reason, Some(plain.flow.key.vpc()));
        Verdict::Drop(reason)
    }
}
