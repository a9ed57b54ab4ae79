//! What a trace says.

use std::net::IpAddr;

use shunt_p4::flow::proto;
use shunt_p4::{FlowKey, PuntReason, Tuple, VpcId};

use super::Tracer;
use crate::conntrack::{Connection, Direction, Tracker};
use crate::exception::ExceptionReason;
use crate::fib::{NextHop, Resolution};
use crate::icmp::IcmpError;
use crate::nat::SourceRule;
use crate::packet::{Fragment, Packet, TcpFlags, Transport};
use crate::policy::{OffloadAfter, OffloadPolicy};
use crate::stats::DropReason;
use crate::worker::admit::Plan;
use crate::worker::{Ingress, Stop, Verdict};

fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "tcp".to_owned(),
        proto::UDP => "udp".to_owned(),
        proto::ICMP => "icmp".to_owned(),
        proto::ICMPV6 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn end(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    }
}

/// A connection that nothing is forwarded for.
pub(super) const REVOKED: &str =
    "the rule or route that it was made by is no more; it ends when the switch has let go of it";

/// `tcp 10.0.0.2:1234 -> 192.0.2.80:443`.
pub(super) fn tuple(tuple: &Tuple) -> String {
    format!(
        "{} {} -> {}",
        protocol(tuple.proto),
        end(tuple.src, tuple.src_port),
        end(tuple.dst, tuple.dst_port)
    )
}

fn flags(flags: TcpFlags) -> String {
    let names = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::ACK, 'A'),
    ];
    let set = names.iter().filter(|(bit, _)| flags.0 & bit != 0);
    let text: String = set.map(|(_, name)| name).collect();
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

pub(super) fn packet(packet: &Packet) -> String {
    let what = match (&packet.transport, packet.tuple()) {
        (Transport::Tcp { flags: set, .. }, Some(found)) => {
            format!("{}, flags {}", tuple(&found), flags(*set))
        }
        (_, Some(found)) => tuple(&found),
        (transport, None) => {
            let kind = match transport {
                Transport::IcmpError => "an ICMP error".to_owned(),
                Transport::OtherIcmp => "an ICMP message of another kind".to_owned(),
                _ => protocol(packet.proto),
            };
            format!("{kind} {} -> {}", packet.src, packet.dst)
        }
    };
    let fragment = match packet.fragment {
        Fragment::No => String::new(),
        Fragment::First { id } => format!(", first fragment of {id}"),
        Fragment::Later { id } => format!(", later fragment of {id}"),
    };
    format!(
        "{what}{fragment}, TTL {}, {} bytes of IP",
        packet.ttl,
        packet.len()
    )
}

/// Why no packet was read, or none that goes further.
pub(super) fn unread(stop: Stop) -> String {
    match stop {
        Stop::Kernel(ExceptionReason::Neighbor) => "ARP or neighbour discovery".to_owned(),
        Stop::Kernel(ExceptionReason::Multicast) => "to a group, or to all".to_owned(),
        Stop::Kernel(ExceptionReason::Local) => "link-local: it never leaves its link".to_owned(),
        Stop::Kernel(ExceptionReason::OtherL2) => "neither IP nor ARP".to_owned(),
        Stop::Handover(worker) => format!("worker {worker} has its connection"),
        Stop::Drop(reason) | Stop::Answer(reason, _) => match reason {
            DropReason::Truncated => "shorter than a header says".to_owned(),
            DropReason::Malformed => "a header that no sender may write".to_owned(),
            DropReason::Ipv4Checksum => "its IPv4 header checksum is wrong".to_owned(),
            DropReason::SourceRoute => "it has a source route".to_owned(),
            DropReason::MartianSource => "no host has its source address".to_owned(),
            other => other.as_str().to_owned(),
        },
    }
}

pub(super) fn connection(
    connection: &Connection,
    direction: Direction,
    after: &Tracker,
    taken: bool,
) -> String {
    let whose = match direction {
        Direction::Forward => "its opener's direction",
        Direction::Reply => "its reply's direction",
    };
    let before = connection.tracker.state();
    let change = if !taken {
        "its sequence numbers are not the connection's, so it changes nothing there".to_owned()
    } else if before == after.state() {
        format!("{}, and stays so", before.as_str())
    } else {
        format!("{}, now {}", before.as_str(), after.state().as_str())
    };
    format!(
        "it belongs to {} ({whose}): {change}",
        tuple(&connection.key(Direction::Forward).tuple)
    )
}

pub(super) fn translation(from: &Tuple, to: &Tuple) -> String {
    if from == to {
        "nothing is translated".to_owned()
    } else {
        format!("it leaves as {}", tuple(to))
    }
}

/// As [`translation`], the source port still to be found.
pub(super) fn any_port(from: &Tuple, to: &Tuple) -> String {
    format!(
        "it leaves as {} from {}, a free port in place of {}, -> {}",
        protocol(to.proto),
        to.src,
        from.src_port,
        end(to.dst, to.dst_port)
    )
}

pub(super) fn error(error: IcmpError) -> String {
    match error {
        IcmpError::TimeExceeded => "time exceeded".to_owned(),
        IcmpError::Unreachable => "destination unreachable".to_owned(),
        IcmpError::Prohibited => "administratively prohibited".to_owned(),
        IcmpError::TooBig(mtu) => format!("too big, at most {mtu} bytes"),
    }
}

/// What a connection that stays in software waits for.
pub(super) fn waits(policy: &OffloadPolicy, protocol: u8) -> String {
    let (after, open) = match protocol {
        proto::TCP => (policy.tcp, " and open in both directions"),
        proto::UDP => (policy.udp, ""),
        _ => (policy.icmp, ""),
    };
    match after {
        OffloadAfter::FirstReply if protocol == proto::TCP => {
            "not yet: TCP goes to the switch when it is open in both directions".to_owned()
        }
        OffloadAfter::FirstReply => "not yet: it goes to the switch at the first reply".to_owned(),
        OffloadAfter::Packets(n) => format!("not yet: it goes to the switch at packet {n}{open}"),
        OffloadAfter::Bytes(n) => {
            format!("not yet: it goes to the switch when it has carried {n} bytes{open}")
        }
        OffloadAfter::Never => "never, by configuration".to_owned(),
    }
}

impl<'a> Tracer<'a> {
    fn vpc_name(&self, vpc: VpcId) -> String {
        self.fib
            .vpc(vpc)
            .map_or_else(|| format!("vpc {vpc}"), |vpc| vpc.name.clone())
    }

    pub(super) fn ingress_text(&self, ingress: &Ingress<'_>) -> String {
        let reason = PuntReason::from_u8(ingress.header.reason);
        format!(
            "interface {}, VPC {} ({}), sent by the switch for {}",
            ingress.interface.name,
            self.vpc_name(ingress.vpc),
            if ingress.stateless {
                "stateless"
            } else {
                "stateful"
            },
            reason.map_or_else(
                || format!("reason {}", ingress.header.reason),
                |reason| reason.as_str().to_owned()
            )
        )
    }

    pub(super) fn way_text(&self, vpc: VpcId, dst: IpAddr, hop: &NextHop<'_>) -> String {
        let prefix = self.fib.prefix(vpc, dst);
        let by = if hop.address == dst {
            "on the link".to_owned()
        } else {
            format!("by way of {}", hop.address)
        };
        let to = match hop.interface.vpc == vpc {
            true => String::new(),
            false => format!(" (VPC {})", self.vpc_name(hop.interface.vpc)),
        };
        format!(
            "{dst} in VPC {}: {}, out of {}{to} {by}",
            self.vpc_name(vpc),
            prefix.map_or_else(|| "no prefix".to_owned(), |prefix| prefix.to_string()),
            hop.interface.name
        )
    }

    pub(super) fn no_way_text(&self, vpc: VpcId, dst: IpAddr, stop: Stop) -> String {
        let vpc_name = self.vpc_name(vpc);
        let why = match stop {
            Stop::Drop(DropReason::Blackhole) => "a blackhole".to_owned(),
            Stop::Drop(DropReason::NoPeering) => {
                "it would leave through another VPC, and no peering lets it".to_owned()
            }
            Stop::Kernel(_) => "the gateway itself".to_owned(),
            _ => match self.fib.prefix(vpc, dst) {
                Some(_) => "unreachable".to_owned(),
                None => "no route".to_owned(),
            },
        };
        match self.fib.prefix(vpc, dst) {
            Some(prefix) => format!("{dst} in VPC {vpc_name}: {prefix}: {why}"),
            None => format!("{dst} in VPC {vpc_name}: {why}"),
        }
    }

    /// Why a packet begins no connection.
    pub(super) fn refused_text(
        &self,
        ingress: &Ingress<'_>,
        packet: &Packet,
        key: &FlowKey,
        stop: Stop,
    ) -> (&'static str, String) {
        let (vpc, dst) = match self.fib.rules().destination(key.vpc, &key.tuple) {
            Some(new) => (new.vpc, new.address),
            None => (key.vpc, packet.dst),
        };
        match stop {
            Stop::Drop(DropReason::NoConnection) => (
                "connection",
                "it can begin none: only a TCP segment with SYN alone, a UDP packet or an echo \
                 request does"
                    .to_owned(),
            ),
            Stop::Drop(DropReason::NoPeering) => {
                let to = match self.fib.resolve(vpc, dst, ingress.hash) {
                    Resolution::Via(hop) => self.vpc_name(hop.interface.vpc),
                    _ => "another".to_owned(),
                };
                (
                    "nat",
                    format!(
                        "it would leave from VPC {} into {to}, and neither a NAT rule nor a \
                         peering lets it",
                        self.vpc_name(vpc)
                    ),
                )
            }
            stop => ("route", self.no_way_text(vpc, dst, stop)),
        }
    }

    /// Who says that the destination is another.
    pub(super) fn destination_text(&self, plan: &Plan<'_>) -> Option<String> {
        let (new, leased) = plan.destination()?;
        let (key, policy) = (plan.key(), self.fib.policy());
        let tuple = &key.tuple;
        let forward = policy.port_forwards.iter().find(|rule| {
            (rule.address, rule.protocol) == (tuple.dst, tuple.proto)
                && rule.ports.contains(tuple.dst_port)
                && rule.to_vpc == new.vpc
        });
        let fixed = policy
            .static_nat
            .iter()
            .find(|rule| rule.vpc == new.vpc && rule.outside.contains(&tuple.dst));
        let by = match (leased, forward, fixed) {
            (true, ..) => {
                "it is addressed to a port that another inside host has leased".to_owned()
            }
            (false, Some(rule), _) => format!("port forward {}", rule.name),
            (false, None, Some(rule)) => format!("static NAT {}", rule.name),
            (false, None, None) => "a NAT rule".to_owned(),
        };
        Some(format!(
            "{by}: its destination becomes {} in VPC {}",
            end(new.address, new.port),
            self.vpc_name(new.vpc)
        ))
    }

    /// Who says what the source becomes.
    pub(super) fn source_text(&self, plan: &Plan<'_>) -> String {
        let key = plan.key();
        match plan.source() {
            Some(SourceRule::Masquerade(rule)) => {
                let pool: Vec<_> = rule.pool.iter().map(ToString::to_string).collect();
                format!(
                    "masquerade {}: its source becomes one of {}, ports {}",
                    rule.name,
                    pool.join(", "),
                    rule.ports
                )
            }
            Some(SourceRule::Static(address)) => {
                let rule = self.fib.policy().static_nat.iter().find(|rule| {
                    rule.vpc == key.vpc
                        && rule.inside.contains(&key.tuple.src)
                        && rule.outside.contains(&address)
                });
                let name = rule.map_or("?", |rule| rule.name.as_str());
                format!("static NAT {name}: its source becomes {address}")
            }
            None if plan.hop().interface.vpc == plan.routed().0 => {
                "no rule for its source".to_owned()
            }
            None => "no rule for its source; a peering lets it cross".to_owned(),
        }
    }

    pub(super) fn verdict_text(&self, verdict: Verdict) -> String {
        let out = self
            .trace
            .egress
            .and_then(|id| self.fib.interface(id))
            .map_or("?", |interface| interface.name.as_str());
        match verdict {
            Verdict::Transmit => format!("sent out of {out}"),
            Verdict::Answered(reason) => {
                format!(
                    "dropped ({}), an ICMP error goes out of {out}",
                    reason.as_str()
                )
            }
            Verdict::Drop(reason) => format!("dropped ({})", reason.as_str()),
            Verdict::Exception => "handed to the kernel".to_owned(),
            Verdict::Held => "held".to_owned(),
            Verdict::Handover(worker) => format!("handed over to worker {worker}"),
            Verdict::Hairpin(worker) => {
                format!("to a host inside, by way of worker {worker}, as from {out}")
            }
        }
    }
}
