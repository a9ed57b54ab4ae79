//! A packet to be traced: described or captured, into a frame as the switch would send it.

use std::net::IpAddr;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use shunt_api::v1;
use shunt_api::v1::trace_packet_request::Packet as Asked;
use shunt_p4::frame::ETHERTYPE;
use shunt_p4::{Interface, PuntReason, ShuntHeader, Tuple, flow_hash};
use shunt_slowpath::Trace;
use shunt_slowpath::packet::Packet;
use shunt_slowpath::worker::Verdict;
use tonic::Status;

use super::convert;
use crate::config::Config;

/// Largest packet that is built, bytes of IP.
const LENGTH_MAX: u32 = 9000;
/// Largest frame that is traced: of such a packet, with tags, and in a tunnel.
const FRAME_MAX: usize = LENGTH_MAX as usize + 128;
/// Ethertypes of VLAN tags (IEEE 802.1Q).
pub(super) const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Tags that the switch takes off, at most.
const TAGS_MAX: usize = 2;
/// The station that a described packet comes from: nobody looks at it.
pub(super) const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The interface of that name.
pub(super) fn interface_named<'a>(config: &'a Config, name: &str) -> Result<&'a Interface, Status> {
    let interfaces = config.interfaces.iter().map(|found| &found.interface);
    let found = interfaces.clone().find(|interface| interface.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = interfaces
            .map(|interface| interface.name.as_str())
            .collect();
        Status::not_found(format!(
            "there is no interface named {} (known: {})",
            convert::quoted(name),
            names.join(", ")
        ))
    })
}

/// A packet as it is traced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traced {
    /// The interface that it arrives on, and the frame without that one's tags or tunnel, unless
    /// it was captured with them; none: the switch has had it.
    pub(super) arrives: Option<(Interface, Vec<u8>)>,
    /// What the slow path would be sent of it, at most.
    pub(super) punted: Vec<u8>,
}

/// The packet that is asked for.
pub(super) fn packet(config: &Config, request: v1::TracePacketRequest) -> Result<Traced, Status> {
    let invalid = |text: &str| Status::invalid_argument(text.to_owned());
    let carried = match request.packet {
        // From a capture on the slow-path port: the switch has said everything.
        Some(Asked::Frame(frame)) if ethertype(&frame) == Some(ETHERTYPE) => {
            return Ok(Traced {
                arrives: None,
                punted: frame,
            });
        }
        Some(Asked::Frame(frame)) if frame.len() > FRAME_MAX => {
            return Err(Status::invalid_argument(format!(
                "a frame of {} bytes cannot have been captured here: at most {FRAME_MAX}",
                frame.len()
            )));
        }
        Some(Asked::Frame(frame)) => frame,
        Some(Asked::Description(packet)) => {
            let interface = interface_named(config, &request.interface)?;
            built(interface, &packet)?
        }
        None => return Err(invalid("say which packet: a frame or a description")),
    };
    if request.interface.is_empty() {
        return Err(invalid(
            "say which interface it arrives on: the frame has no shunt header that would",
        ));
    }
    let interface = interface_named(config, &request.interface)?;
    let bare = untagged(carried.clone());
    let header = ShuntHeader {
        reason: PuntReason::FlowMiss as u8,
        interface: interface.id.get(),
        vpc: interface.vpc.get(),
        port: interface.port.get(),
        flow_hash: hash(&bare),
    };
    Ok(Traced {
        arrives: Some((interface.clone(), carried)),
        punted: [header.encode().as_slice(), &bare].concat(),
    })
}

/// What a frame carries.
pub(super) fn ethertype(frame: &[u8]) -> Option<u16> {
    let bytes = frame.get(12..14)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// Without its VLAN tags, as the switch hands it on.
fn untagged(mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..TAGS_MAX {
        if frame.len() >= 18 && ethertype(&frame).is_some_and(|found| TAGS.contains(&found)) {
            frame.drain(12..16);
        }
    }
    frame
}

/// As the switch computes it. What is no packet has none.
fn hash(frame: &[u8]) -> u32 {
    let Ok(packet) = Packet::parse(frame) else {
        return 0;
    };
    flow_hash(&packet.tuple().unwrap_or(Tuple {
        src: packet.src,
        dst: packet.dst,
        proto: packet.proto,
        src_port: 0,
        dst_port: 0,
    }))
}

/// A frame with right checksums, to the gateway.
fn built(interface: &Interface, packet: &v1::PacketDescription) -> Result<Vec<u8>, Status> {
    let (src, dst) = (
        address("source", &packet.source)?,
        address("destination", &packet.destination)?,
    );
    let ttl = packet.ttl.unwrap_or(64);
    let ttl = u8::try_from(ttl)
        .map_err(|_| Status::invalid_argument(format!("there is no TTL {ttl}: 0 to 255")))?;
    let ethernet = PacketBuilder::ethernet2(STATION, interface.mac.0);
    let ip = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), ttl),
        _ => {
            return Err(Status::invalid_argument(format!(
                "{src} and {dst} are of different families"
            )));
        }
    };
    let port = |port: u32| {
        u16::try_from(port).map_err(|_| {
            Status::invalid_argument(format!("there is no port {port}: ports are 0 to 65535"))
        })
    };
    let (from, to) = (port(packet.source_port)?, port(packet.destination_port)?);
    match packet.protocol.as_str() {
        "tcp" => tcp(ip, from, to, packet),
        "udp" => {
            let step = ip.udp(from, to);
            let payload = payload(packet.length, step.size(0))?;
            let mut frame = Vec::new();
            step.write(&mut frame, &payload).map_err(unbuilt)?;
            Ok(frame)
        }
        "icmp" | "icmpv6" => echo(ip, src.is_ipv4(), port(packet.identifier)?, packet),
        other => Err(Status::invalid_argument(format!(
            "no packet of protocol {} can be described (there are: tcp, udp, icmp)",
            convert::quoted(other)
        ))),
    }
}

fn tcp(
    ip: PacketBuilderStep<IpHeaders>,
    from: u16,
    to: u16,
    packet: &v1::PacketDescription,
) -> Result<Vec<u8>, Status> {
    const WINDOW: u16 = 65_535;
    let mut step = ip.tcp(from, to, packet.sequence, WINDOW);
    let flags = match packet.flags.as_str() {
        "" => "S",
        flags => flags,
    };
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(packet.acknowledgement),
            'F' => step.fin(),
            'R' => step.rst(),
            'P' => step.psh(),
            'U' => step.urg(0),
            other => {
                return Err(Status::invalid_argument(format!(
                    "there is no TCP flag {other:?}: write letters of S, A, F, R, P, U"
                )));
            }
        };
    }
    let payload = payload(packet.length, step.size(0))?;
    let mut frame = Vec::new();
    step.write(&mut frame, &payload).map_err(unbuilt)?;
    Ok(frame)
}

fn echo(
    ip: PacketBuilderStep<IpHeaders>,
    ipv4: bool,
    id: u16,
    packet: &v1::PacketDescription,
) -> Result<Vec<u8>, Status> {
    const SEQUENCE: u16 = 1;
    let mut frame = Vec::new();
    let written = match (ipv4, packet.reply) {
        (true, reply) => {
            let step = match reply {
                true => ip.icmpv4_echo_reply(id, SEQUENCE),
                false => ip.icmpv4_echo_request(id, SEQUENCE),
            };
            let payload = payload(packet.length, step.size(0))?;
            step.write(&mut frame, &payload)
        }
        (false, reply) => {
            let step = match reply {
                true => ip.icmpv6_echo_reply(id, SEQUENCE),
                false => ip.icmpv6_echo_request(id, SEQUENCE),
            };
            let payload = payload(packet.length, step.size(0))?;
            step.write(&mut frame, &payload)
        }
    };
    written.map_err(unbuilt)?;
    Ok(frame)
}

/// Zeros that make the packet as long as asked for.
fn payload(length: u32, headers: usize) -> Result<Vec<u8>, Status> {
    const ETHERNET: usize = 14;
    let headers = headers.saturating_sub(ETHERNET);
    match usize::try_from(length) {
        Ok(0) => Ok(Vec::new()),
        Ok(wanted) if length <= LENGTH_MAX && wanted >= headers => Ok(vec![0; wanted - headers]),
        _ => Err(Status::invalid_argument(format!(
            "a packet of {length} bytes cannot be built: {headers} (its headers) to {LENGTH_MAX}"
        ))),
    }
}

fn address(what: &str, text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| {
        let text = convert::quoted(text);
        Status::invalid_argument(format!("the {what} {text} is no IP address"))
    })
}

fn unbuilt(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("the packet cannot be built: {error}"))
}

/// The slow path's answer.
pub(super) fn told(config: &Config, worker: u16, trace: Trace) -> v1::TracePacketResponse {
    let (verdict, reason) = match trace.verdict {
        Verdict::Transmit => ("transmit", None),
        Verdict::Answered(reason) => ("answered", Some(reason)),
        Verdict::Drop(reason) => ("drop", Some(reason)),
        Verdict::Exception => ("kernel", None),
        Verdict::Held => ("held", None),
        Verdict::Handover(_) => ("handover", None),
        Verdict::Hairpin(_) => ("hairpin", None),
    };
    let egress = trace.egress.and_then(|id| config.interface(id));
    let vpc = egress.map(|found| found.interface.vpc);
    let forwarded = matches!(
        trace.verdict,
        Verdict::Transmit | Verdict::Held | Verdict::Hairpin(_)
    );
    let translated = trace.translated.filter(|_| forwarded).zip(vpc);
    v1::TracePacketResponse {
        steps: trace
            .steps
            .into_iter()
            .map(|step| v1::TraceStep {
                stage: step.stage.to_owned(),
                text: step.text,
            })
            .collect(),
        verdict: verdict.to_owned(),
        drop_reason: reason.map_or("", |reason| reason.as_str()).to_owned(),
        egress: egress
            .map(|found| found.interface.name.clone())
            .unwrap_or_default(),
        translated: translated.map(|(tuple, vpc)| convert::tuple(config, vpc, &tuple)),
        any_port: trace.any_port,
        worker: worker.into(),
        hardware: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shunt_p4::frame::ENCAP_LEN;
    use shunt_slowpath::packet::Transport;

    use super::*;

    fn config() -> Config {
        let text = shunt_testbed::topology::configuration(Path::new("/tmp/s.sock"));
        crate::config::validate(&crate::config::document_of(&text).unwrap()).unwrap()
    }

    fn described(change: impl FnOnce(&mut v1::PacketDescription)) -> Result<Vec<u8>, String> {
        let mut packet = v1::PacketDescription {
            protocol: "tcp".into(),
            source: "10.0.0.2".into(),
            source_port: 1234,
            destination: "192.0.2.80".into(),
            destination_port: 443,
            ..Default::default()
        };
        change(&mut packet);
        ask("red", Asked::Description(packet))
    }

    fn ask(interface: &str, packet: Asked) -> Result<Vec<u8>, String> {
        let request = v1::TracePacketRequest {
            interface: interface.into(),
            packet: Some(packet),
        };
        let traced = super::packet(&config(), request);
        traced
            .map(|traced| traced.punted)
            .map_err(|status| status.message().to_owned())
    }

    #[test]
    fn a_description_becomes_a_packet() {
        let framed = described(|packet| {
            packet.flags = "SA".into();
            packet.ttl = Some(3);
            packet.length = 100;
        })
        .unwrap();
        let header = ShuntHeader::parse(&framed).unwrap();
        assert_eq!((header.interface, header.vpc, header.port), (1, 1, 1));
        let packet = Packet::parse(&framed[ENCAP_LEN..]).unwrap();
        assert_eq!((packet.ttl, packet.len()), (3, 100));
        let tuple = packet.tuple().unwrap();
        assert_eq!((tuple.src_port, tuple.dst_port), (1234, 443));
        assert_eq!(header.flow_hash, flow_hash(&tuple));
        let Transport::Tcp { flags, .. } = packet.transport else {
            panic!("{packet:?}");
        };
        assert!(flags.syn() && flags.ack() && !flags.fin());
    }

    #[test]
    fn an_echo_of_either_family() {
        for (source, destination) in [("10.0.0.2", "192.0.2.80"), ("2001:db8::2", "2001:db8::1")] {
            for reply in [false, true] {
                let framed = described(|packet| {
                    packet.protocol = "icmp".into();
                    packet.source = source.into();
                    packet.destination = destination.into();
                    packet.identifier = 7;
                    packet.reply = reply;
                });
                let packet = Packet::parse(&framed.unwrap()[ENCAP_LEN..]).unwrap();
                let wanted = match reply {
                    true => Transport::EchoReply { id: 7 },
                    false => Transport::EchoRequest { id: 7 },
                };
                assert_eq!(packet.transport, wanted);
            }
        }
    }

    #[test]
    fn captured_frames_lose_their_tags_and_keep_their_header() {
        let framed = described(|_| ()).unwrap();
        assert_eq!(ask("", Asked::Frame(framed.clone())), Ok(framed.clone()));
        let plain = &framed[ENCAP_LEN..];
        assert_eq!(ask("red", Asked::Frame(plain.to_vec())), Ok(framed.clone()));
        let mut tagged = plain.to_vec();
        tagged.splice(12..12, [0x88, 0xa8, 0, 20, 0x81, 0, 0, 30]);
        assert_eq!(ask("red", Asked::Frame(tagged)), Ok(framed));
        // Whatever else it is, software is asked.
        assert_eq!(
            ask("red", Asked::Frame(vec![1])).unwrap().len(),
            ENCAP_LEN + 1
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        type Change = fn(&mut v1::PacketDescription);
        let cases: [(Change, &str); 7] = [
            (|packet| packet.protocol = "sctp".into(), "tcp, udp, icmp"),
            (|packet| packet.source = "red".into(), "source \"red\""),
            (|packet| packet.destination = "::1".into(), "families"),
            (|packet| packet.source_port = 70_000, "65535"),
            (|packet| packet.flags = "SX".into(), "'X'"),
            (|packet| packet.ttl = Some(256), "255"),
            (|packet| packet.length = 39, "40 (its headers)"),
        ];
        for (change, word) in cases {
            let said = described(change).unwrap_err();
            assert!(said.contains(word), "{word}: {said}");
        }
        let said = ask("redd", Asked::Frame(vec![0; 60])).unwrap_err();
        assert!(said.contains("known: red"), "{said}");
        let said = ask("", Asked::Frame(vec![0; 60])).unwrap_err();
        assert!(said.contains("which interface"), "{said}");
    }
}
