//! `shunt trace`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::trace_packet_request::Packet as Asked;
use shunt_api::v1::{HardwareTrace, PacketDescription, TracePacketRequest, TracePacketResponse};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::switch::{action, fields};

/// What is traced.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A packet that is described, or the frame of a capture: through the switch's tables, as they
    /// are read back, and through the slow path, if it goes there.
    Packet(Packet),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Packet {
    /// Where it arrives; not needed for a capture of the slow-path port.
    #[arg(long)]
    interface: Option<String>,
    /// Its protocol.
    #[arg(required_unless_present = "pcap", conflicts_with = "pcap")]
    protocol: Option<Protocol>,
    /// Its source: 10.0.0.2:1234, [2001:db8::2]:1234, or an address alone for icmp.
    #[arg(required_unless_present = "pcap")]
    source: Option<End>,
    /// Its destination.
    #[arg(required_unless_present = "pcap")]
    destination: Option<End>,
    /// TCP flags: letters of S, A, F, R, P, U.
    #[arg(long, default_value = "S", conflicts_with = "pcap")]
    flags: String,
    /// TCP sequence number.
    #[arg(long, default_value_t = 0, conflicts_with = "pcap")]
    seq: u32,
    /// TCP acknowledgement number.
    #[arg(long, default_value_t = 0, conflicts_with = "pcap")]
    ack: u32,
    /// Echo identifier.
    #[arg(long, default_value_t = 1, conflicts_with = "pcap")]
    id: u16,
    /// An echo reply in place of a request.
    #[arg(long, conflicts_with = "pcap")]
    reply: bool,
    /// TTL or hop limit.
    #[arg(long, default_value_t = 64, conflicts_with = "pcap")]
    ttl: u8,
    /// Bytes of IP; as few as it takes unless given.
    #[arg(long, conflicts_with = "pcap")]
    length: Option<u32>,
    /// Says what the slow path would do also of what the switch does not send it.
    #[arg(long)]
    software: bool,
    /// A capture, pcap or pcapng, of Ethernet frames.
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Which of its frames, from 1.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap",
          value_parser = clap::value_parser!(u32).range(1..))]
    frame: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    /// An echo, of IPv4 or IPv6.
    Icmp,
}

/// An address, and a port if there is one.
#[derive(Clone, Copy, Debug)]
struct End(IpAddr, Option<u16>);

impl std::str::FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = || text.parse().map(|address| End(address, None));
        let with_port = text.parse::<SocketAddr>();
        with_port
            .map(|socket| End(socket.ip(), Some(socket.port())))
            .or_else(|_| alone())
            .map_err(|_| {
                "write an address and port: 10.0.0.2:1234 or [2001:db8::2]:1234".to_owned()
            })
    }
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    what: Arguments,
) -> Result<(), Error> {
    let What::Packet(packet) = what.what;
    let software = packet.software;
    let request = request(packet)?;
    let told = daemon.trace_packet(request).await?.into_inner();
    out.object(&told, || text(&told, software))
}

fn request(packet: Packet) -> Result<TracePacketRequest, Error> {
    let asked = match &packet.pcap {
        Some(path) => Asked::Frame(captured(path, packet.frame)?),
        None => Asked::Description(description(&packet)?),
    };
    Ok(TracePacketRequest {
        interface: packet.interface.unwrap_or_default(),
        packet: Some(asked),
    })
}

fn description(packet: &Packet) -> Result<PacketDescription, Error> {
    let usage = |text: &str| Error::Usage(text.to_owned());
    let (Some(protocol), Some(source), Some(destination)) =
        (packet.protocol, packet.source, packet.destination)
    else {
        return Err(usage("a packet has a protocol, a source and a destination"));
    };
    let ports = match (protocol, source.1, destination.1) {
        (Protocol::Icmp, None, None) => (0, 0),
        (Protocol::Icmp, ..) => return Err(usage("icmp has no ports; its identifier is --id")),
        (_, Some(from), Some(to)) => (from, to),
        _ => return Err(usage("tcp and udp need a port at both ends: 10.0.0.2:1234")),
    };
    Ok(PacketDescription {
        protocol: match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
        .to_owned(),
        source: source.0.to_string(),
        source_port: ports.0.into(),
        destination: destination.0.to_string(),
        destination_port: ports.1.into(),
        flags: packet.flags.clone(),
        sequence: packet.seq,
        acknowledgement: packet.ack,
        ttl: Some(packet.ttl.into()),
        length: packet.length.unwrap_or(0),
        identifier: packet.id.into(),
        reply: packet.reply,
    })
}

/// A frame of a capture, counted from 1.
fn captured(path: &Path, number: u32) -> Result<Vec<u8>, Error> {
    let failed = |what: String| Error::Capture {
        path: path.to_owned(),
        what,
    };
    let mut capture = pcap::Capture::from_file(path).map_err(|error| failed(error.to_string()))?;
    let link = capture.get_datalink();
    if link != pcap::Linktype::ETHERNET {
        let name = link.get_name().unwrap_or_else(|_| link.0.to_string());
        return Err(failed(format!("its frames are {name}, not Ethernet")));
    }
    for seen in 0..number {
        match capture.next_packet() {
            Ok(packet) if seen + 1 == number => {
                if (packet.data.len() as u64) < u64::from(packet.header.len) {
                    return Err(failed(format!(
                        "frame {number} was cut to {} of {} bytes when it was captured",
                        packet.data.len(),
                        packet.header.len
                    )));
                }
                return Ok(packet.data.to_vec());
            }
            Ok(_) => {}
            Err(pcap::Error::NoMorePackets) => {
                return Err(failed(format!(
                    "it has {seen} frames, and no frame {number}"
                )));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(failed(format!("it has no frame {number}")))
}

fn text(told: &TracePacketResponse, software: bool) -> String {
    let mut text = told.hardware.as_ref().map(hardware).unwrap_or_default();
    let ends = told.hardware.as_ref();
    let ends = ends.is_some_and(|hardware| ["forwarded", "dropped"].contains(&&*hardware.verdict));
    if ends && !software {
        return text;
    }
    if told.hardware.is_some() {
        text.push_str(match ends {
            true => "\nsoftware (the switch does not send it there)\n",
            false => "\nsoftware\n",
        });
    }
    let width = told.steps.iter().map(|step| step.stage.len()).max();
    let width = width.unwrap_or(0);
    let lines = told.steps.iter();
    text.extend(lines.map(|step| format!("{:width$}  {}\n", step.stage, step.text)));
    text
}

/// The switch's part: a line a table, and where it ends.
fn hardware(told: &HardwareTrace) -> String {
    let name = &told.switch;
    if !told.error.is_empty() {
        return format!("hardware (switch {name}): not known: {}\n", told.error);
    }
    let read = UNIX_EPOCH + Duration::from_millis(told.read_ms);
    let mut text = format!(
        "hardware (switch {name}, {} entries read back at {})\n",
        told.entries_read,
        humantime::format_rfc3339_seconds(read)
    );
    let width = told.tables.iter().map(|table| table.table.len()).max();
    let width = width.unwrap_or(0).max("verdict".len());
    for table in &told.tables {
        let mut words = vec![fields(&table.key), format!("{}:", table.result)];
        if !table.r#match.is_empty() {
            words.push(format!("entry {}", fields(&table.r#match)));
        }
        words.extend(
            table
                .priority
                .map(|priority| format!("priority {priority}")),
        );
        words.extend(table.group.map(|group| format!("group {group}")));
        words.extend(table.member.map(|member| format!("member {member}")));
        words.push(match &table.action {
            Some(called) => action(called),
            None => "no action".to_owned(),
        });
        text.push_str(&format!("{:width$}  {}\n", table.table, words.join(" ")));
    }
    let port = told.port.map(|port| port.to_string()).unwrap_or_default();
    let verdict = match told.verdict.as_str() {
        "forwarded" if told.egress.is_empty() => format!("forwarded out of port {port}"),
        "forwarded" => format!("forwarded out of port {port}, interface {}", told.egress),
        "slow_path" => format!("to the slow path at port {port}: {}", told.reason),
        _ => format!("dropped: {}", told.reason),
    };
    text.push_str(&format!("{:width$}  {verdict}\n", "verdict"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_ports_or_not() {
        let end = |text: &str| {
            text.parse::<End>()
                .map(|End(address, port)| (address.to_string(), port))
        };
        assert_eq!(end("10.0.0.2:1"), Ok(("10.0.0.2".to_owned(), Some(1))));
        assert_eq!(end("10.0.0.2"), Ok(("10.0.0.2".to_owned(), None)));
        assert_eq!(
            end("[2001:db8::2]:80"),
            Ok(("2001:db8::2".to_owned(), Some(80)))
        );
        assert_eq!(end("2001:db8::2"), Ok(("2001:db8::2".to_owned(), None)));
        assert!(end("10.0.0.2:70000").is_err());
    }
}
