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
use super::hops::{Known, Way};
use super::{Core, Verdict};
use crate::conntrack::{Direction, Hashed, Key, Tracker, address, words};
use crate::fib::Fib;
use crate::nat::{Ask, Leased, SourceRule};
use crate::packet::{PacketBuf, Transport};
use crate::policy::Masquerade;
use crate::stats::DropReason;

/// A connection that may be begun, and where its port will be looked for.
struct Asked<'a> {
    rule: &'a Masquerade,
    known: Known<'a>,
    ask: Ask,
}

/// The masquerades between two VPCs, looked up once for a burst's packets that follow each other.
/// `None`: static NAT has to be asked, too.
#[derive(Clone, Copy)]
struct Between<'a> {
    vpc: VpcId,
    to: VpcId,
    masquerades: Option<&'a [Masquerade]>,
}

/// An [`Asked`] with its port. Not begun, it is to be given back.
pub(super) struct Granted<'a> {
    known: Known<'a>,
    leased: Leased,
    reply: Hashed,
}

impl Core {
    /// Ports for the connections that a burst begins, as far as they are told so easily.
    #[inline(never)]
    pub(super) fn grants<'a>(
        &mut self,
        fib: &'a Fib,
        plain: &[Plain; STAGED],
        found: &[Found; STAGED],
    ) -> [Option<Granted<'a>>; STAGED] {
        let mut asked = [const { None }; STAGED];
        let mut between = None;
        for ((plain, found), asked) in plain.iter().zip(found).zip(&mut asked) {
            if *found == Found::Ours {
                *asked = self.ask(fib, plain, &mut between);
            }
        }
        for asked in asked.iter_mut().flatten() {
            self.nat.look(asked.rule, &mut asked.ask);
        }
        let mut granted = [const { None }; STAGED];
        for ((plain, asked), granted) in plain.iter().zip(&asked).zip(&mut granted) {
            *granted = asked
                .as_ref()
                .and_then(|asked| self.grant(fib, plain, asked));
        }
        granted
    }

    /// `None`: the packet takes the walk.
    #[inline]
    fn ask<'a>(
        &mut self,
        fib: &'a Fib,
        plain: &Plain,
        between: &mut Option<Between<'a>>,
    ) -> Option<Asked<'a>> {
        let key = &plain.flow.key;
        let (vpc, v6) = (key.vpc(), key.is_ipv6());
        if key.proto() != proto::UDP || self.starting || fib.vpc(vpc)?.stateless {
            return None;
        }
        let known = self.hops.known(fib, vpc, key.dst(), v6)?;
        if !known.clear || plain.ip_len() > usize::from(known.mtu) {
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
        let ask = self.nat.ask(rule, key).ok()?;
        Some(Asked { rule, known, ask })
    }

    /// `None`: there is no port; the walk knows what to do.
    fn grant<'a>(&mut self, fib: &Fib, plain: &Plain, asked: &Asked<'a>) -> Option<Granted<'a>> {
        let Asked { rule, known, ask } = asked;
        let leased = self.nat.grant(fib.rules(), rule, ask).ok()?;
        let key = &plain.flow.key;
        let (_, dst_port) = key.port_pair();
        let reply = self.table.hash(Key::of_words(
            known.interface.vpc,
            key.dst(),
            words(leased.address),
            key.proto(),
            u32::from(dst_port) << 16 | u32::from(leased.port),
            key.is_ipv6(),
        ));
        self.table.prefetch(&reply);
        Some(Granted {
            known: *known,
            leased,
            reply,
        })
    }

    /// `None`: it takes the walk after all; nothing was changed, and the port is given back.
    pub(super) fn begin<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        plain: &Plain,
        granted: Granted<'_>,
        frame: &mut B,
    ) -> Option<Verdict> {
        let Granted {
            known,
            leased,
            reply,
        } = granted;
        let flow = &plain.flow;
        // A packet before it in the burst may have begun it.
        if self.table.find_hashed(flow).is_some() {
            self.nat.release(leased.lease);
            return None;
        }
        let vpc = flow.key.vpc();
        let source = (vpc, address(flow.key.src(), flow.key.is_ipv6()));
        let limits = &fib.policy().limits;
        let counted = match self.quotas.admit(now_ns, limits, source, false) {
            Ok(counted) => counted,
            Err(reason) => {
                self.nat.release(leased.lease);
                return Some(self.refuse(plain, reason));
            }
        };
        let (src_port, dst_port) = flow.key.port_pair();
        let tracker = Tracker::begin(&Transport::Udp { src_port, dst_port });
        let slot = tracker.and_then(|tracker| {
            let keys = [flow, &reply];
            self.table
                .insert_hashed(now_ns, keys, [vpc; 2], tracker)
                .ok()
        });
        let Some((slot, connection)) =
            slot.and_then(|slot| Some((slot, self.table.get_mut(slot)?)))
        else {
            // A tuple that a connection without NAT has, or no room.
            self.quotas.release(counted, source);
            self.nat.release(leased.lease);
            return None;
        };
        connection.lease = Some(leased.lease);
        connection.set_counted(counted.source);
        self.record(slot);
        self.stats.connections_created += 1;
        let Some(len) = plain.dress(&reply.key, &Way::new(&known), frame.data_mut()) else {
            return Some(self.refuse(plain, DropReason::Malformed));
        };
        self.count_punt(plain.reason());
        let (place, interfaces) = (
            (slot, Direction::Forward),
            (plain.from(), known.interface.id),
        );
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
