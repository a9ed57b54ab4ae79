//! 64-byte UDP packets as the switch sends them: a template with addresses, ports and checksums
//! written over.

use std::net::Ipv4Addr;

use shunt_dpdk::Mbuf;
use shunt_p4::PuntReason;
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};

use crate::report::BenchError;

/// Bytes of the carried frame.
pub(super) const FRAME: usize = 64;
const LEN: usize = ENCAP_LEN + FRAME;
const IP: usize = ENCAP_LEN + 14;
const UDP: usize = IP + 20;
/// Bytes of the UDP datagram.
const DATAGRAM: usize = FRAME - 34;
/// Bytes behind the UDP header of a 64-byte frame.
pub(super) const PAYLOAD: usize = DATAGRAM - 8;
/// The same byte pair all over the payload.
const FILL: u16 = 0x5a5a;
const SERVERS: u32 = 1024;
/// Inside addresses.
pub(super) const CLIENTS: u32 = 1 << 16;

/// A packet's addresses and ports, and the interface that it comes in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) interface: u16,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) src: u32,
    pub(super) dst: u32,
}

/// The first packet's flow of connection `n`; its inside socket is no other connection's below
/// 2^32. Numbers that follow each other are of different clients.
pub(super) fn opener(n: u32) -> Flow {
    let client = n % CLIENTS;
    Flow {
        interface: super::INSIDE,
        src_port: (n / CLIENTS) as u16,
        dst_port: 53,
        src: Ipv4Addr::new(10, 0, 0, 0).to_bits() | client,
        dst: Ipv4Addr::new(198, 18, 0, 0).to_bits() + (n.wrapping_mul(0x9e37_79b1) >> 16) % SERVERS,
    }
}

const TEMPLATE: [u8; LEN] = {
    let mut frame = [0x5a; LEN];
    let head = [
        2,
        0,
        0,
        0,
        0,
        2,
        2,
        0,
        0,
        0,
        0,
        1,
        0x88,
        0xb5, // outer Ethernet
        1,
        PuntReason::FlowMiss as u8,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0, // shunt header
        2,
        0,
        0,
        0,
        0,
        1,
        2,
        0,
        0,
        0,
        1,
        1,
        0x08,
        0x00, // Ethernet
        0x45,
        0,
        0,
        (FRAME - 14) as u8,
        0,
        0,
        0x40,
        0,
        64,
        17,
        0,
        0, // IPv4
    ];
    let mut at = 0;
    while at < head.len() {
        frame[at] = head[at];
        at += 1;
    }
    frame[UDP + 4] = 0;
    frame[UDP + 5] = DATAGRAM as u8;
    frame
};

/// The sum of the template's payload and lengths as the UDP checksum has them.
const UDP_SUM: u32 = 17 + 2 * DATAGRAM as u32 + ((DATAGRAM as u32 - 8) / 2) * 0x5a5a;
const IP_SUM: u32 = 0x4500 + (FRAME as u32 - 14) + 0x4000 + 0x4011;

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

/// Writes the packet into an empty buffer, with so many bytes of payload: an even number, at
/// least [`PAYLOAD`].
pub(super) fn write(mbuf: &mut Mbuf, flow: &Flow, payload: usize) -> Result<(), BenchError> {
    let short = || BenchError::failed("a packet buffer is too small");
    mbuf.extend_from_slice(&TEMPLATE).ok_or_else(short)?;
    let more = payload.saturating_sub(PAYLOAD);
    if more > 0 {
        let rest = mbuf.append(more).ok_or_else(short)?;
        rest.fill(FILL as u8);
    }
    let frame: &mut [u8; LEN] = mbuf.data_mut().first_chunk_mut().ok_or_else(short)?;
    // The VPC has the interface's number.
    let interface = flow.interface.to_be_bytes();
    frame[16..18].copy_from_slice(&interface);
    frame[18..20].copy_from_slice(&interface);
    // The switch's hash of the tuple, the same for both directions.
    let mix = (flow.src ^ flow.dst).wrapping_mul(0x85eb_ca6b);
    let hash = mix ^ u32::from(flow.src_port ^ flow.dst_port);
    frame[22..26].copy_from_slice(&hash.to_be_bytes());
    let addresses = (flow.src >> 16) + (flow.src & 0xffff) + (flow.dst >> 16) + (flow.dst & 0xffff);
    let ports = u32::from(flow.src_port) + u32::from(flow.dst_port);
    // Lengths and payload are longer than the template's by so much.
    let more = more as u32;
    let (ip_len, udp_len) = (
        (FRAME as u32 - 14 + more) as u16,
        (DATAGRAM as u32 + more) as u16,
    );
    frame[IP + 2..IP + 4].copy_from_slice(&ip_len.to_be_bytes());
    frame[UDP + 4..UDP + 6].copy_from_slice(&udp_len.to_be_bytes());
    let udp_more = 2 * more + more / 2 * u32::from(FILL);
    frame[IP + 10..IP + 12].copy_from_slice(&fold(IP_SUM + addresses + more).to_be_bytes());
    frame[IP + 12..IP + 16].copy_from_slice(&flow.src.to_be_bytes());
    frame[IP + 16..IP + 20].copy_from_slice(&flow.dst.to_be_bytes());
    frame[UDP..UDP + 2].copy_from_slice(&flow.src_port.to_be_bytes());
    frame[UDP + 2..UDP + 4].copy_from_slice(&flow.dst_port.to_be_bytes());
    let checksum = fold(UDP_SUM + addresses + ports + udp_more);
    frame[UDP + 6..UDP + 8].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// The flow of a frame that leaves, reversed: what its receiver answers with.
pub(super) fn answer(frame: &[u8]) -> Option<Flow> {
    let frame: &[u8; LEN] = frame.first_chunk()?;
    let four =
        |at: usize| -> Option<u32> { Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?)) };
    let two =
        |at: usize| -> Option<u16> { Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?)) };
    Some(Flow {
        interface: ShuntHeader::parse(frame)?.interface,
        src_port: two(UDP + 2)?,
        dst_port: two(UDP)?,
        src: four(IP + 16)?,
        dst: four(IP + 12)?,
    })
}
