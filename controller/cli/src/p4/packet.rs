//! `shunt p4 packet send|sniff`.

use std::path::PathBuf;
use std::time::Duration;

use p4runtime::client::{Arbitration, Client, ClientError, code_name};
use p4runtime::named::{Pairs, packet_in_fields, packet_out};
use p4runtime::p4info::P4InfoIndex;
use serde::Serialize;
use tonic::Code;

use super::P4Error;
use super::connect::{Connection, file};
use crate::output::Output;

/// Packets to and from the controller port.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Sends a packet out.
    ///
    /// Examples:
    ///   shunt p4 packet send egress_port=1 --hex 0200000000020200000000010800…
    ///   shunt p4 packet send egress_port=1 --file frame.bin
    #[command(verbatim_doc_comment)]
    Send {
        /// The metadata of the packet_out header, FIELD=VALUE.
        fields: Vec<String>,
        /// The packet, in hex; blanks and colons are left out.
        #[arg(
            long,
            value_name = "HEX",
            required_unless_present = "file",
            conflicts_with = "file"
        )]
        hex: Option<String>,
        /// The packet, in a file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Shows packets in. Only the primary gets them.
    ///
    /// Examples:
    ///   shunt p4 packet sniff
    ///   shunt p4 packet sniff --count 10 --for 30s --output jsonl
    #[command(verbatim_doc_comment)]
    Sniff {
        /// Ends after so many packets.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Ends after so long, such as 30s.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
    },
}

#[derive(Serialize)]
struct Packet {
    metadata: Pairs,
    bytes: usize,
    payload: String,
}

#[derive(Serialize)]
struct Sent {
    done: &'static str,
    bytes: usize,
}

pub(super) async fn run(to: &Connection, out: &Output, verb: Verb) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    match verb {
        Verb::Send {
            fields,
            hex,
            file: path,
        } => {
            let payload = match (hex, path) {
                (Some(hex), _) => from_hex(&hex)?,
                (None, Some(path)) => file(&path)?,
                (None, None) => Vec::new(),
            };
            let bytes = payload.len();
            let packet = packet_out(payload, &fields, &index)?;
            let mut errors = client.take_stream_errors();
            let sending = async { Ok(client.send_packet(packet).await?) };
            // The switch takes a stream's messages in order, and closes its side after the last:
            // once that is left, the packet has been looked at.
            to.as_primary(&client, sending).await?;
            if let Some(error) = errors.as_mut().and_then(|errors| errors.try_recv().ok()) {
                return Err(P4Error::Refused(format!(
                    "the switch refused the packet: {}: {}",
                    code_name(Code::from_i32(error.canonical_code)),
                    error.message
                )));
            }
            let sent = Sent {
                done: "sent",
                bytes,
            };
            Ok(out.object(&sent, || format!("sent {bytes} bytes\n"))?)
        }
        Verb::Sniff { count, duration } => {
            to.as_primary(&client, sniff(&client, &index, out, count, duration))
                .await
        }
    }
}

/// Shows packets until there were enough, or it was long enough.
async fn sniff(
    client: &Client,
    index: &P4InfoIndex,
    out: &Output,
    count: Option<u64>,
    duration: Option<Duration>,
) -> Result<(), P4Error> {
    let mut packets = client.take_packet_ins().ok_or(ClientError::StreamLost {
        reason: "the packets are taken already".to_owned(),
    })?;
    let mut arbitration = client.arbitration();
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let packet = tokio::select! {
            packet = packets.recv() => packet,
            () = &mut end => break,
            _ = arbitration.changed() => {
                let state = arbitration.borrow_and_update().clone();
                if state == Arbitration::Primary {
                    continue;
                }
                return Err(P4Error::Usage(format!(
                    "the primary role is lost, and with it the packets: {state:?}"
                )));
            }
        };
        let Some(packet) = packet else { break };
        seen += 1;
        let shown = Packet {
            metadata: packet_in_fields(&packet, index),
            bytes: packet.payload.len(),
            payload: packet
                .payload
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        };
        out.event(&shown, || {
            format!(
                "{} {} bytes {}\n",
                shown.metadata, shown.bytes, shown.payload
            )
        })?;
    }
    Ok(())
}

fn from_hex(text: &str) -> Result<Vec<u8>, P4Error> {
    let digits: String = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != ':')
        .collect();
    let wrong =
        || P4Error::Usage("--hex: the packet is not bytes in hex, two digits each".to_owned());
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let pairs = (0..digits.len()).step_by(2);
    let byte = |at: usize| {
        let pair = digits.get(at..at + 2)?;
        u8::from_str_radix(pair, 16).ok()
    };
    pairs.map(byte).collect::<Option<_>>().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_with_blanks_and_colons() {
        assert_eq!(from_hex("02:00 0a").unwrap(), [2, 0, 10]);
        for bad in ["020", "zz", "é0", "+1"] {
            assert!(from_hex(bad).is_err(), "{bad}");
        }
    }
}
