//! What would become of a packet, step by step and with the reasons, without anything being done.
//!
//! The decisions are the walk's own: the same functions on the same tables. Where the walk takes
//! something (a port, a place in a table, a token of a limit), the trace asks whether it could
//! have it. The one thing it cannot tell is which free port a new mapping would get, nor, from
//! inside to an address of static NAT, the worker that this port tells.

mod inside;
mod leave;
mod words;

use leave::Carried;
use shunt_p4::frame::ShuntHeader;
use shunt_p4::{FlowKey, InterfaceId, Tuple};

use super::fragment::{Fate, FragmentKey};
use super::related::quoted_key;
use super::walk::{ingress, read_packet};
use super::{Core, Ingress, Stop, Verdict, Worker};
use crate::conntrack::{Direction, Offload};
use crate::exception::ExceptionReason;
use crate::fib::{Fib, Resolution};
use crate::icmp::IcmpError;
use crate::nat::SourceRule;
use crate::packet::{Fragment, Packet, PacketBuf, Transport, VecBuf};
use crate::policy::WhenExhausted;
use crate::stats::DropReason;

/// Why nothing is begun or answered right after a start.
const STARTING: &str =
    "the daemon has just started, and has not taken all connections of the one before back";

/// One decision on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Where: "ingress", "parse", "connection", "nat", "route", "ttl", "mtu", "limits",
    /// "offload", "neighbor", "icmp", "hairpin", "verdict".
    pub stage: &'static str,
    /// What was found and why, one sentence.
    pub text: String,
}

/// A packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// In order; the last is the verdict.
    pub steps: Vec<Step>,
    /// What [`Worker::process`] would say of it.
    pub verdict: Verdict,
    /// Whether it belongs to a connection that this worker has.
    pub known: bool,
    /// Its tuple as it leaves.
    pub translated: Option<Tuple>,
    /// The translated source port is any free one of the pool; `translated` has 0.
    pub any_port: bool,
    /// The interface that it, or the answer to it, leaves by.
    pub egress: Option<InterfaceId>,
}

impl Worker {
    /// What would become of a frame from the switch, as [`Worker::process`] takes it. Changes
    /// nothing.
    pub fn trace(&self, now_ns: u64, frame: &[u8]) -> Trace {
        self.trace_as(now_ns, frame, false)
    }

    /// As [`Worker::trace`], of a frame that another worker has handed over.
    pub fn trace_handed(&self, now_ns: u64, frame: &[u8]) -> Trace {
        self.trace_as(now_ns, frame, true)
    }

    fn trace_as(&self, now_ns: u64, frame: &[u8], handed: bool) -> Trace {
        let fib = self.reader.enter();
        let Some(fib) = fib.as_deref() else {
            let mut steps = Vec::new();
            let text = "there are no tables: the daemon stops".to_owned();
            steps.push(Step {
                stage: "ingress",
                text,
            });
            return Trace {
                steps,
                verdict: Verdict::Drop(DropReason::NoTables),
                known: false,
                translated: None,
                any_port: false,
                egress: None,
            };
        };
        Tracer::new(&self.core, fib, now_ns, handed).run(frame)
    }
}

struct Tracer<'a> {
    core: &'a Core,
    fib: &'a Fib,
    now_ns: u64,
    /// Another worker has handed it over.
    handed: bool,
    /// It is from inside, and its first half was told already.
    hairpinned: bool,
    trace: Trace,
}

impl<'a> Tracer<'a> {
    fn new(core: &'a Core, fib: &'a Fib, now_ns: u64, handed: bool) -> Self {
        Self {
            core,
            fib,
            now_ns,
            handed,
            hairpinned: false,
            trace: Trace {
                steps: Vec::new(),
                verdict: Verdict::Transmit,
                known: false,
                translated: None,
                any_port: false,
                egress: None,
            },
        }
    }

    fn step(&mut self, stage: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.trace.steps.push(Step { stage, text });
    }

    fn run(mut self, frame: &[u8]) -> Trace {
        let verdict = self.verdict(frame);
        self.trace.verdict = verdict;
        let text = self.verdict_text(verdict);
        self.step("verdict", text);
        self.trace
    }

    fn verdict(&mut self, frame: &[u8]) -> Verdict {
        let Some(header) = ShuntHeader::parse(frame) else {
            self.step(
                "ingress",
                "it has no shunt header: it does not come from the switch",
            );
            return Verdict::Drop(DropReason::ShuntHeader);
        };
        let ingress = match ingress(self.fib, None, &header) {
            Ok(ingress) => ingress,
            Err(reason) => {
                let text = format!(
                    "the switch names interface {} and VPC {}, which software does not know \
                     together",
                    header.interface, header.vpc
                );
                self.step("ingress", text);
                return Verdict::Drop(reason);
            }
        };
        self.step("ingress", self.ingress_text(&ingress));
        let mut buffer = VecBuf::new(frame);
        let stop = match self.walk(&ingress, &mut buffer) {
            Ok(verdict) => return verdict,
            Err(stop) => stop,
        };
        match stop {
            Stop::Kernel(_) if self.core.exception.is_full() => {
                self.step("verdict", "the queue to the kernel is full");
                Verdict::Drop(DropReason::ExceptionFull)
            }
            Stop::Kernel(_) => Verdict::Exception,
            Stop::Handover(worker) => Verdict::Handover(worker),
            Stop::Drop(reason) => Verdict::Drop(reason),
            Stop::Answer(..) if self.core.starting => {
                self.step("verdict", STARTING);
                Verdict::Drop(DropReason::Starting)
            }
            Stop::Answer(reason, error) => match self.answer(&ingress, &mut buffer, error) {
                Some(()) => {
                    self.trace.egress = Some(ingress.interface.id);
                    match self.hairpinned {
                        // It goes back by way of the first half.
                        true => Verdict::Transmit,
                        false => Verdict::Answered(reason),
                    }
                }
                None => Verdict::Drop(reason),
            },
        }
    }

    fn walk(&mut self, ingress: &Ingress<'a>, buffer: &mut VecBuf) -> Result<Verdict, Stop> {
        let packet = match read_packet(buffer) {
            Ok(packet) => packet,
            Err(stop) => {
                self.step("parse", words::unread(stop));
                return Err(stop);
            }
        };
        self.step("parse", words::packet(&packet));
        match self.core.meeting(ingress, &packet) {
            Some(worker) if worker == self.core.share.worker => self.handed = false,
            Some(worker) if !self.handed => {
                let text = format!("the fragments of its packet meet at worker {worker}");
                self.step("fragment", text);
                return Err(Stop::Handover(worker));
            }
            _ => {}
        }
        match (packet.tuple(), packet.transport) {
            (Some(tuple), _) => self.flow(ingress, &packet, &tuple),
            (None, Transport::IcmpError) => self.related(ingress, buffer, &packet),
            (None, _) => self.untracked(ingress, &packet),
        }
    }

    fn flow(
        &mut self,
        ingress: &Ingress<'a>,
        packet: &Packet,
        tuple: &Tuple,
    ) -> Result<Verdict, Stop> {
        let key = FlowKey {
            vpc: ingress.vpc,
            tuple: *tuple,
        };
        if let Some((slot, direction)) = self.core.table.find(&key) {
            return self.established(ingress, packet, slot, direction);
        }
        if let Some(worker) = self.elsewhere(&key, ingress) {
            let text = format!("worker {worker} has it, or would begin it");
            self.step("connection", text);
            return Err(Stop::Handover(worker));
        }
        self.step("connection", "it belongs to none that is known");
        if ingress.stateless {
            return self.route_only(ingress, packet);
        }
        self.admit(ingress, packet, &key)
    }

    /// The other worker that a packet without a connection here belongs to.
    fn elsewhere(&self, key: &FlowKey, ingress: &Ingress<'_>) -> Option<u16> {
        let core = self.core;
        (!self.handed).then(|| core.elsewhere(self.fib, key, ingress.hash))?
    }

    fn established(
        &mut self,
        ingress: &Ingress<'a>,
        packet: &Packet,
        slot: u32,
        direction: Direction,
    ) -> Result<Verdict, Stop> {
        let connection = self.core.table.get(slot).ok_or(DropReason::NoConnection)?;
        self.trace.known = true;
        if connection.is_revoked() {
            self.step("connection", words::REVOKED);
            return Err(DropReason::Revoked.into());
        }
        let mut tracker = connection.tracker;
        let taken = tracker.see(direction, &packet.transport);
        self.step(
            "connection",
            words::connection(connection, direction, &tracker, taken),
        );
        let key = connection.key(direction);
        let translation = connection.translation(direction);
        self.step("nat", words::translation(&key.tuple, &translation.tuple));
        let across = self.core.across(self.fib, connection, direction);
        let across = across.filter(|_| !self.hairpinned);
        let mut hop = self.routed(
            ingress,
            translation.route_vpc,
            translation.egress_vpc,
            translation.tuple.dst,
        )?;
        if across.is_some() {
            hop.mtu = u16::MAX;
        }
        self.leaving(packet, &hop)?;
        let carried = Carried {
            protocol: key.tuple.proto,
            ports: [
                connection.key(Direction::Forward).tuple.dst_port,
                connection.key(Direction::Reply).tuple.src_port,
            ],
            packets: connection.packets.both().iter().sum::<u64>() + 1,
            bytes: connection.bytes.iter().sum::<u64>() + packet.len() as u64,
            across: ingress.interface.switch != hop.interface.switch,
            half: connection.is_half(),
        };
        let offload = connection.place.offload();
        self.offload(offload, &tracker, &carried, [key.vpc, hop.interface.vpc]);
        self.trace.translated = Some(translation.tuple);
        if let Some(worker) = across {
            return self.other_half(packet, &translation.tuple, hop.interface, worker);
        }
        self.deliver(packet, &hop)
    }

    /// By routes alone.
    fn route_only(&mut self, ingress: &Ingress<'a>, packet: &Packet) -> Result<Verdict, Stop> {
        self.step("nat", "none: its VPC is stateless, routes alone forward");
        if self.is_local(ingress, packet) {
            self.step("route", "its destination is the gateway itself");
            return Err(Stop::Kernel(ExceptionReason::Local));
        }
        let hop = self.routed(ingress, ingress.vpc, ingress.vpc, packet.dst)?;
        self.leaving(packet, &hop)?;
        self.trace.translated = packet.tuple();
        self.deliver(packet, &hop)
    }

    fn is_local(&self, ingress: &Ingress<'_>, packet: &Packet) -> bool {
        self.fib.resolve(ingress.vpc, packet.dst, ingress.hash) == Resolution::Local
    }

    /// A new connection.
    fn admit(
        &mut self,
        ingress: &Ingress<'a>,
        packet: &Packet,
        key: &FlowKey,
    ) -> Result<Verdict, Stop> {
        if self.core.may_be_former(self.fib, key, ingress.hash) {
            self.step("connection", STARTING);
            return Err(DropReason::Starting.into());
        }
        let hairpinned = self.hairpinned;
        let plan = match self.core.plan(self.fib, ingress, packet, key, hairpinned) {
            Ok(plan) => plan,
            Err(stop) => {
                let (stage, text) = self.refused_text(ingress, packet, key, stop);
                self.step(stage, text);
                return Err(stop);
            }
        };
        self.step("connection", "it begins one");
        if let Some(text) = self.destination_text(&plan) {
            self.step("nat", text);
        }
        let (vpc, dst) = plan.routed();
        self.step("route", self.way_text(vpc, dst, plan.hop()));
        self.step("nat", self.source_text(&plan));
        self.leaving(packet, plan.hop())?;
        let translated = self.place(&plan)?;
        self.trace.translated = Some(translated);
        let mut tracker = plan.tracker();
        tracker.see(Direction::Forward, &packet.transport);
        let vpcs = [key.vpc, plan.hop().interface.vpc];
        let carried = Carried {
            protocol: key.tuple.proto,
            ports: [key.tuple.dst_port, translated.dst_port],
            packets: 1,
            bytes: packet.len() as u64,
            across: ingress.interface.switch != plan.hop().interface.switch,
            half: plan.is_half(),
        };
        self.offload(Offload::Software, &tracker, &carried, vpcs);
        if plan.is_half() && !hairpinned {
            let (vpc, interface) = (vpcs[1], plan.hop().interface);
            let tuple = translated;
            let worker = self
                .core
                .owner_from_outside(self.fib, &FlowKey { vpc, tuple });
            return self.other_half(packet, &tuple, interface, worker);
        }
        self.deliver(packet, plan.hop())
    }

    /// Limits, a port, and a place in the table: what the connection would take.
    fn place(&mut self, plan: &super::admit::Plan<'a>) -> Result<Tuple, Stop> {
        let key = plan.key();
        let limits = &self.fib.policy().limits;
        let opens = plan.tracker().state().is_half_open();
        let source = (key.vpc, key.tuple.src);
        let quotas = &self.core.quotas;
        // Of what comes from inside the first half is held against them.
        let checked = match self.hairpinned {
            true => Ok(()),
            false => quotas.check(self.now_ns, limits, source, opens),
        };
        if let Err(reason) = checked {
            self.step("limits", format!("over the limit {}", reason.as_str()));
            return Err(reason.into());
        }
        self.step("limits", "within those of its VPC and of its source");
        let source = match plan.source() {
            Some(SourceRule::Masquerade(rule)) => {
                let found = self
                    .core
                    .nat
                    .would_lease(self.fib.rules(), rule, &key.tuple);
                match found {
                    Ok((address, Some(port))) => Some((address, port)),
                    Ok((address, None)) => {
                        self.trace.any_port = true;
                        Some((address, 0))
                    }
                    Err(error) => {
                        self.step("nat", format!("{}: {error}", rule.name));
                        let reason = DropReason::from(error);
                        let rejects = rule.when_exhausted == WhenExhausted::Reject;
                        return Err(if reason == DropReason::PoolExhausted && rejects {
                            Stop::Answer(reason, IcmpError::Prohibited)
                        } else {
                            reason.into()
                        });
                    }
                }
            }
            Some(SourceRule::Static(address)) => Some((address, key.tuple.src_port)),
            None => None,
        };
        let reply = plan.reply(source);
        let translated = reply.tuple.reversed();
        if self.trace.any_port {
            self.step("nat", words::any_port(&key.tuple, &translated));
        } else {
            self.step("nat", words::translation(&key.tuple, &translated));
        }
        let taken = !self.trace.any_port && self.core.table.find(&reply).is_some();
        if taken || key == &reply {
            self.step("connection", "another connection has its translated tuple");
            return Err(DropReason::TupleInUse.into());
        }
        if self.core.table.is_full() {
            self.step("connection", "the table is full");
            return Err(DropReason::TableFull.into());
        }
        Ok(translated)
    }

    /// An ICMP error.
    fn related(
        &mut self,
        ingress: &Ingress<'a>,
        buffer: &VecBuf,
        packet: &Packet,
    ) -> Result<Verdict, Stop> {
        let found = self
            .core
            .related_to(self.fib, ingress, buffer.data(), packet)?;
        let Some(found) = found else {
            let key = quoted_key(ingress, buffer.data(), packet).map(|(_, _, key)| key);
            let owner = key.and_then(|key| self.elsewhere(&key, ingress));
            if let Some(worker) = owner {
                let text = format!("worker {worker} would have the one that it is about");
                self.step("connection", text);
                return Err(Stop::Handover(worker));
            }
            self.step(
                "connection",
                "it quotes no packet of a connection that is known",
            );
            if ingress.stateless {
                return self.route_only(ingress, packet);
            }
            if self.is_local(ingress, packet) {
                self.step("route", "its destination is the gateway itself");
                return Err(Stop::Kernel(ExceptionReason::Local));
            }
            return Err(DropReason::IcmpUnrelated.into());
        };
        self.trace.known = true;
        self.step(
            "connection",
            format!("it is about a packet of {}", words::tuple(&found.original)),
        );
        found.check(buffer.data(), packet)?;
        let (src, dst) = found.addresses(packet);
        self.step(
            "nat",
            format!(
                "it leaves as from {src} to {dst}, the packet that it quotes as {}",
                words::tuple(&found.original)
            ),
        );
        let to = found.translation;
        let hop = self.routed(ingress, to.route_vpc, to.egress_vpc, dst)?;
        self.leaving(packet, &hop)?;
        if let Some(worker) = found.across {
            let tuple = found.original.reversed();
            return self.other_half_of_error(packet, &tuple, hop.interface, worker);
        }
        self.deliver(packet, &hop)
    }

    /// A later fragment, or another protocol.
    fn untracked(&mut self, ingress: &Ingress<'a>, packet: &Packet) -> Result<Verdict, Stop> {
        if ingress.stateless {
            return self.route_only(ingress, packet);
        }
        if matches!(packet.fragment, Fragment::Later { .. }) {
            return self.later_fragment(ingress, packet);
        }
        if self.is_local(ingress, packet) {
            self.step("route", "its destination is the gateway itself");
            return Err(Stop::Kernel(ExceptionReason::Local));
        }
        self.step(
            "connection",
            format!("no connection is made of protocol {}", packet.proto),
        );
        Err(DropReason::OtherL4.into())
    }

    fn later_fragment(&mut self, ingress: &Ingress<'a>, packet: &Packet) -> Result<Verdict, Stop> {
        let key = FragmentKey::of(ingress.vpc, packet).ok_or(DropReason::Fragment)?;
        match self.core.fragments.fate(&key) {
            Some(Fate::Ports(proto, src_port, dst_port)) => {
                let tuple = Tuple {
                    src: packet.src,
                    dst: packet.dst,
                    proto,
                    src_port,
                    dst_port,
                };
                let key = FlowKey {
                    vpc: ingress.vpc,
                    tuple,
                };
                self.step(
                    "fragment",
                    format!("its first fragment was of {}", words::tuple(&tuple)),
                );
                let found = self.core.table.find(&key).ok_or(DropReason::Fragment)?;
                self.established(ingress, packet, found.0, found.1)
            }
            Some(Fate::Worker(worker)) => {
                let text = format!("its first fragment went to worker {worker}");
                self.step("fragment", text);
                Err(Stop::Handover(worker))
            }
            Some(Fate::Kernel) => {
                self.step("fragment", "its first fragment went to the kernel");
                Err(Stop::Kernel(ExceptionReason::Local))
            }
            Some(Fate::Dropped) => {
                self.step("fragment", "its first fragment was dropped");
                Err(DropReason::Fragment.into())
            }
            None => {
                let outside = self.fib.rules().is_outside(ingress.vpc, packet.dst);
                if self.is_local(ingress, packet) && !outside {
                    self.step("route", "its destination is the gateway itself");
                    return Err(Stop::Kernel(ExceptionReason::Local));
                }
                if !self.core.fragments.has_room(&key) {
                    self.step("fragment", "too many fragments wait for their first one");
                    return Err(DropReason::Fragment.into());
                }
                self.step("fragment", "its first fragment has not come yet");
                Ok(Verdict::Held)
            }
        }
    }
}
