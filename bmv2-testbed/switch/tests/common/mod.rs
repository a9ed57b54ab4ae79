//! What the switch's tests share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod client;

use p4runtime::p4::config::v1::P4Info;
use shunt_switch::{ChannelPort, ManualClock, Options, Switch};
use std::sync::Arc;

/// A test program's JSON and P4Info, or the project's own, `shunt`.
pub fn program(name: &str) -> (Vec<u8>, P4Info) {
    let folder = match name {
        "shunt" => "../../p4",
        _ => "testdata",
    };
    let path = |end: &str| format!("{}/{folder}/{name}{end}", env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(path(".json")).unwrap();
    let info = std::fs::read_to_string(path(".p4info.txtpb")).unwrap();
    (json, p4runtime::p4info::parse_p4info_text(&info).unwrap())
}

/// A switch with a clock of its own, and options besides.
pub fn options() -> (Options, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let options = Options {
        cpu_port: Some(510),
        clock: clock.clone(),
        ..Options::default()
    };
    (options, clock)
}

/// A switch that runs `name`, with in-process ports.
pub fn switch(name: &str, ports: &[u32]) -> (Switch, Vec<ChannelPort>) {
    let switch = Switch::new(options().0);
    let (json, info) = program(name);
    switch.load(&json, info).unwrap();
    let ports = ports
        .iter()
        .map(|p| switch.attach_channel(*p, 64))
        .collect();
    (switch, ports)
}

/// An Ethernet + IPv4 + UDP frame with right checksums, and options if given.
pub struct Udp {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub sport: u16,
    pub dport: u16,
    pub ttl: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            src: [10, 0, 0, 1],
            dst: [10, 0, 1, 2],
            sport: 1000,
            dport: 2000,
            ttl: 64,
            options: Vec::new(),
            payload: b"hello".to_vec(),
        }
    }
}

impl Udp {
    pub fn frame(&self) -> Vec<u8> {
        let mut ip = etherparse::Ipv4Header::new(
            (8 + self.payload.len()) as u16,
            self.ttl,
            etherparse::IpNumber::UDP,
            self.src,
            self.dst,
        )
        .unwrap();
        ip.options = etherparse::Ipv4Options::try_from(self.options.as_slice()).unwrap();
        ip.total_len = (ip.header_len() + 8 + self.payload.len()) as u16;
        ip.header_checksum = ip.calc_header_checksum();
        let udp =
            etherparse::UdpHeader::with_ipv4_checksum(self.sport, self.dport, &ip, &self.payload)
                .unwrap();
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        ip.write(&mut out).unwrap();
        udp.write(&mut out).unwrap();
        out.extend_from_slice(&self.payload);
        out
    }
}

/// Checks an IPv4/UDP frame's checksums and gives TTL and destination MAC.
pub fn check_udp(frame: &[u8]) -> (u8, [u8; 6]) {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else {
        panic!("no IPv4 in {frame:02x?}");
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else {
        panic!("no UDP in {frame:02x?}");
    };
    let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
    assert_eq!(udp.checksum(), expected.unwrap());
    (header.time_to_live, frame[..6].try_into().unwrap())
}
