//! A worker in a small network, driven frame by frame with simulated time. Frames are built and
//! read, and their checksums verified, by etherparse: nothing of the crate checks itself.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod cluster;
pub mod fragment;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{IpHeaders, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use ipnet::IpNet;
use shunt_offload::{InstallerPort, OffloadCommand, OffloadEvent, OffloadUnit, WorkerPort};
use shunt_p4::flow::proto;
use shunt_p4::frame::{ENCAP_LEN, ShuntHeader};
use shunt_p4::{
    Command, Encap, Interface, InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, PuntReason,
    Route, SwitchIndex, SwitchPort, Vpc, VpcId,
};
use shunt_slowpath::exception::{self, ExceptionEvent, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::policy::{Masquerade, PortForward, PortRange, StaticNat};
use shunt_slowpath::worker::{Verdict, Worker, WorkerConfig};
use shunt_slowpath::{FibWriter, FlowFilter, FlowView, Policy};

pub const RED: u16 = 1;
pub const BLUE: u16 = 2;
/// Stateless.
pub const PLAIN: u16 = 4;
pub const WAN: u16 = 9;

pub const SECOND: u64 = 1_000_000_000;
pub const HOUR: u64 = 3600 * SECOND;

pub fn vpc(n: u16) -> VpcId {
    VpcId::new(n).unwrap()
}

pub fn interface_id(n: u16) -> InterfaceId {
    InterfaceId::new(n).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn sock(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn gateway_mac(interface: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0xff, interface as u8])
}

pub fn host_mac(address: IpAddr) -> MacAddr {
    let last = match address {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    };
    MacAddr([2, 0, 0, 0, 0xaa, last])
}

/// red and blue have the same addresses; both reach the world through wan.
pub fn network() -> Vec<NetworkOp> {
    let mut ops = Vec::new();
    let nexthop = |n| NexthopId::new(n).unwrap();
    for (n, stateless, addresses) in [
        (RED, false, ["10.0.0.1/24", "2001:db8:1::1/64"]),
        (BLUE, false, ["10.0.0.1/24", "2001:db8:1::1/64"]),
        (PLAIN, true, ["10.4.0.1/24", "2001:db8:4::1/64"]),
        (WAN, false, ["203.0.113.1/24", "2001:db8:9::1/64"]),
    ] {
        let addresses: Vec<IpNet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        ops.push(NetworkOp::SetVpc(Vpc {
            id: vpc(n),
            name: format!("vpc{n}"),
            stateless,
        }));
        ops.push(NetworkOp::SetInterface(Interface {
            id: interface_id(n),
            name: format!("if{n}"),
            vpc: vpc(n),
            switch: SwitchIndex::MIN,
            port: SwitchPort::new(n).unwrap(),
            encap: Encap::Untagged,
            mac: gateway_mac(n),
            mtu: 1500,
            addresses: addresses.clone(),
        }));
        let attached = nexthop(u32::from(n));
        ops.push(NetworkOp::SetNexthop(
            attached,
            Nexthop {
                interface: interface_id(n),
                gateway: None,
                mtu: None,
            },
        ));
        for net in addresses {
            ops.push(NetworkOp::SetRoute(
                vpc(n),
                net.trunc(),
                Route::Nexthops(vec![(attached, 1)]),
            ));
            ops.push(NetworkOp::SetRoute(vpc(n), net.addr().into(), Route::Local));
        }
        for host in [
            "10.0.0.2",
            "10.0.0.3",
            "10.4.0.2",
            "2001:db8:1::2",
            "203.0.113.2",
            "2001:db8:9::2",
        ] {
            ops.push(NetworkOp::SetNeighbor(
                interface_id(n),
                ip(host),
                host_mac(ip(host)),
            ));
        }
    }
    let (gateway4, gateway6) = (nexthop(100), nexthop(101));
    for (id, address) in [(gateway4, "203.0.113.2"), (gateway6, "2001:db8:9::2")] {
        let hop = Nexthop {
            interface: interface_id(WAN),
            gateway: Some(ip(address)),
            mtu: None,
        };
        ops.push(NetworkOp::SetNexthop(id, hop));
    }
    for n in [RED, BLUE, WAN] {
        for (net, id) in [("0.0.0.0/0", gateway4), ("::/0", gateway6)] {
            ops.push(NetworkOp::SetRoute(
                vpc(n),
                net.parse().unwrap(),
                Route::Nexthops(vec![(id, 1)]),
            ));
        }
    }
    // The pool's addresses are on the wan's tap.
    for pool in ["203.0.113.10/32", "203.0.113.30/32"] {
        ops.push(NetworkOp::SetRoute(
            vpc(WAN),
            pool.parse().unwrap(),
            Route::Local,
        ));
    }
    ops
}

/// Masquerade of red and blue to one pool, a static address, a port forward into red.
pub fn policy() -> Policy {
    let masquerade = |n| Masquerade {
        name: format!("out{n}"),
        vpc: vpc(n),
        to: vpc(WAN),
        sources: vec![
            "10.0.0.0/24".parse().unwrap(),
            "2001:db8:1::/64".parse().unwrap(),
        ],
        pool: vec![ip("203.0.113.10").into(), ip("2001:db8:9::10").into()],
        ports: PortRange::UNPRIVILEGED,
        filtering: Default::default(),
        when_exhausted: Default::default(),
    };
    Policy {
        masquerades: vec![masquerade(RED), masquerade(BLUE)],
        static_nat: vec![StaticNat {
            name: "static".into(),
            vpc: vpc(RED),
            to: vpc(WAN),
            inside: ip("10.0.0.3").into(),
            outside: ip("203.0.113.30").into(),
            method: Default::default(),
        }],
        port_forwards: vec![PortForward {
            name: "web".into(),
            vpc: vpc(WAN),
            address: ip("203.0.113.10"),
            protocol: proto::TCP,
            ports: PortRange::new(8080, 8089).unwrap(),
            to_vpc: vpc(RED),
            to_address: ip("10.0.0.2"),
            to_ports: PortRange::new(80, 89).unwrap(),
        }],
        ..Policy::default()
    }
}

pub struct World {
    pub fib: FibWriter,
    pub worker: Worker,
    pub installer: InstallerPort,
    pub receiver: ExceptionReceiver,
    pub sender: ExceptionSender,
    pub now: u64,
}

/// A frame as the switch sends it that arrived on an interface.
pub fn from_switch(interface: u16, frame: &[u8]) -> Vec<u8> {
    let header = ShuntHeader {
        reason: PuntReason::FlowMiss as u8,
        interface,
        vpc: interface,
        port: interface,
        flow_hash: 7,
    };
    [header.encode().as_slice(), frame].concat()
}

impl World {
    pub fn new() -> Self {
        Self::with(policy(), 1024, 1024)
    }

    pub fn with(policy: Policy, max_connections: u32, queue: usize) -> Self {
        let (mut fib, factory) = FibWriter::new();
        fib.apply(network());
        fib.set_policy(policy);
        fib.publish();
        let (offload, installer): (WorkerPort, InstallerPort) = shunt_offload::channel(queue);
        let (port, receiver, sender) = exception::channel();
        let config = WorkerConfig {
            max_connections,
            seed: 42,
        };
        let worker = Worker::new(config, factory.reader(), offload, port);
        Self {
            fib,
            worker,
            installer,
            receiver,
            sender,
            now: SECOND,
        }
    }

    /// What became of a frame that arrived on an interface, and what is sent to the switch.
    pub fn frame(&mut self, interface: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = VecBuf::from(from_switch(interface, frame));
        let verdict = self.worker.process(self.now, &mut buffer);
        (verdict, buffer.into_vec())
    }

    /// Sends a frame that has to be forwarded, and says what leaves.
    pub fn forwarded(&mut self, interface: u16, frame: &[u8]) -> Seen {
        let (verdict, out) = self.frame(interface, frame);
        assert_eq!(verdict, Verdict::Transmit, "{:?}", Seen::inner(frame));
        Seen::new(&out)
    }

    /// Sends a part of a packet that has to be forwarded.
    pub fn forwarded_part(&mut self, interface: u16, frame: &[u8]) {
        assert_eq!(self.frame(interface, frame).0, Verdict::Transmit);
    }

    pub fn verdict(&mut self, interface: u16, frame: &[u8]) -> Verdict {
        self.frame(interface, frame).0
    }

    /// Time passes, in steps short enough for every timer.
    pub fn pass(&mut self, ns: u64) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let end = self.now + ns;
        loop {
            while self.worker.poll(self.now, &mut out) > 0 {}
            if self.now >= end {
                return out;
            }
            self.now = (self.now + 10 * SECOND).min(end);
        }
    }

    pub fn event(&mut self, event: OffloadEvent) {
        self.installer.send(event).unwrap();
        self.pass(0);
    }

    pub fn install(&mut self) -> OffloadUnit {
        match self.installer.take() {
            Some(OffloadCommand::Install(unit)) => unit,
            other => panic!("no installation but {other:?}"),
        }
    }

    pub fn flows(&self) -> Vec<FlowView> {
        let (flows, next) =
            self.worker
                .list_flows(self.now, &FlowFilter::default(), 0, u32::MAX, usize::MAX);
        assert_eq!(next, None);
        flows
    }

    pub fn leased(&self) -> u32 {
        self.worker.pool_use().iter().map(|pool| pool.leased).sum()
    }

    pub fn kernel(&mut self) -> Option<ExceptionEvent> {
        self.receiver.try_recv()
    }

    /// A TCP connection from red through NAT, up to ESTABLISHED; its outside address.
    pub fn open_tcp(&mut self, client: &str, server: &str) -> SocketAddr {
        let outside = self.forwarded(RED, &tcp(client, server, "S")).src;
        let back = self.forwarded(WAN, &tcp(server, &outside.to_string(), "SA"));
        assert_eq!(back.dst, sock(client));
        self.forwarded(RED, &tcp(client, server, "A"));
        outside
    }
}

/// A packet on its way to the switch, as etherparse reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub interface: u16,
    pub src_mac: MacAddr,
    pub dst_mac: MacAddr,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn new(out: &[u8]) -> Self {
        let header = ShuntHeader::parse(out).expect("a shunt header");
        assert_eq!(header.reason, Command::Egress as u8);
        Self {
            interface: header.interface,
            ..Self::inner(&out[ENCAP_LEN..])
        }
    }

    /// Of a frame without shunt header. All its checksums are right.
    pub fn inner(frame: &[u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).expect("a readable frame");
        verify_checksums(&headers);
        let (src, dst, ttl): (IpAddr, IpAddr, u8) =
            match headers.net.as_ref().expect("an IP packet") {
                NetHeaders::Ipv4(ip, _) => {
                    (ip.source.into(), ip.destination.into(), ip.time_to_live)
                }
                NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into(), ip.hop_limit),
                NetHeaders::Arp(_) => panic!("ARP"),
            };
        let (src_port, dst_port) = match headers.transport.as_ref().expect("a transport") {
            TransportHeader::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            TransportHeader::Udp(udp) => (udp.source_port, udp.destination_port),
            TransportHeader::Icmpv4(icmp) => match &icmp.icmp_type {
                etherparse::Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
                etherparse::Icmpv4Type::EchoReply(echo) => (0, echo.id),
                _ => (0, 0),
            },
            TransportHeader::Icmpv6(icmp) => match &icmp.icmp_type {
                etherparse::Icmpv6Type::EchoRequest(echo) => (echo.id, 0),
                etherparse::Icmpv6Type::EchoReply(echo) => (0, echo.id),
                _ => (0, 0),
            },
            TransportHeader::Igmp(_) => (0, 0),
        };
        let ethernet = frame.first_chunk::<12>().unwrap();
        Self {
            interface: 0,
            dst_mac: MacAddr(*ethernet.first_chunk().unwrap()),
            src_mac: MacAddr(*ethernet.last_chunk().unwrap()),
            src: SocketAddr::new(src, src_port),
            dst: SocketAddr::new(dst, dst_port),
            ttl,
            payload: headers.payload.slice().to_vec(),
        }
    }
}

/// By etherparse, from the values in the headers. A UDP checksum of zero is none.
pub fn verify_checksums(headers: &PacketHeaders<'_>) {
    let payload = headers.payload.slice();
    match (
        headers.net.as_ref().unwrap(),
        headers.transport.as_ref().unwrap(),
    ) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header");
            match transport {
                TransportHeader::Tcp(tcp) => {
                    assert_eq!(
                        tcp.checksum,
                        tcp.calc_checksum_ipv4(ip, payload).unwrap(),
                        "TCP"
                    );
                }
                TransportHeader::Udp(udp) if udp.checksum == 0 => {}
                TransportHeader::Udp(udp) => {
                    assert_eq!(
                        udp.checksum,
                        udp.calc_checksum_ipv4(ip, payload).unwrap(),
                        "UDP"
                    );
                }
                TransportHeader::Icmpv4(icmp) => {
                    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload), "ICMP");
                }
                other => panic!("{other:?} over IPv4"),
            }
        }
        (NetHeaders::Ipv6(ip, _), transport) => match transport {
            TransportHeader::Tcp(tcp) => {
                assert_eq!(
                    tcp.checksum,
                    tcp.calc_checksum_ipv6(ip, payload).unwrap(),
                    "TCP"
                );
            }
            TransportHeader::Udp(udp) => {
                assert_eq!(
                    udp.checksum,
                    udp.calc_checksum_ipv6(ip, payload).unwrap(),
                    "UDP"
                );
            }
            TransportHeader::Icmpv6(icmp) => {
                let sum = icmp
                    .icmp_type
                    .calc_checksum(ip.source, ip.destination, payload)
                    .unwrap();
                assert_eq!(icmp.checksum, sum, "ICMPv6");
            }
            other => panic!("{other:?} over IPv6"),
        },
        _ => panic!("not IP"),
    }
}

fn builder(src: IpAddr, dst: IpAddr, ttl: u8) -> etherparse::PacketBuilderStep<IpHeaders> {
    let base = PacketBuilder::ethernet2(host_mac(src).0, [2, 0, 0, 0, 0xff, 0]);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => base.ipv4(src.octets(), dst.octets(), ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => base.ipv6(src.octets(), dst.octets(), ttl),
        _ => panic!("mixed families"),
    }
}

/// Flags: letters of S, A, F, R.
pub fn tcp(src: &str, dst: &str, flags: &str) -> Vec<u8> {
    tcp_with(sock(src), sock(dst), flags, 64, b"data")
}

pub fn tcp_with(src: SocketAddr, dst: SocketAddr, flags: &str, ttl: u8, payload: &[u8]) -> Vec<u8> {
    // Both sides start at 1000, and say the same thing again and again.
    let seq = if flags.contains('S') { 1000 } else { 1001 };
    let (src, dst) = (src.to_string(), dst.to_string());
    tcp_at(&src, &dst, flags, (seq, 1001), ttl, payload)
}

/// At a sequence number, with an acknowledgement.
pub fn tcp_at(
    src: &str,
    dst: &str,
    flags: &str,
    (seq, ack): (u32, u32),
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let (src, dst) = (sock(src), sock(dst));
    let mut step = builder(src.ip(), dst.ip(), ttl).tcp(src.port(), dst.port(), seq, 4096);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(ack),
            'F' => step.fin(),
            'R' => step.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut frame = Vec::new();
    step.write(&mut frame, payload).unwrap();
    frame
}

pub fn udp(src: &str, dst: &str) -> Vec<u8> {
    udp_with(sock(src), sock(dst), 64, b"query")
}

pub fn udp_with(src: SocketAddr, dst: SocketAddr, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(src.ip(), dst.ip(), ttl)
        .udp(src.port(), dst.port())
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub fn echo(src: &str, dst: &str, id: u16, request: bool) -> Vec<u8> {
    let step = builder(ip(src), ip(dst), 64);
    let mut frame = Vec::new();
    match (ip(src).is_ipv4(), request) {
        (true, true) => step.icmpv4_echo_request(id, 1).write(&mut frame, b"ping!"),
        (true, false) => step.icmpv4_echo_reply(id, 1).write(&mut frame, b"ping!"),
        (false, true) => step.icmpv6_echo_request(id, 1).write(&mut frame, b"ping!"),
        (false, false) => step.icmpv6_echo_reply(id, 1).write(&mut frame, b"ping!"),
    }
    .unwrap();
    frame
}

/// An ICMP or ICMPv6 error from `src` about a packet (from its IP header on).
pub fn icmp_error(src: &str, dst: &str, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let step = builder(ip(src), ip(dst), 60);
    let mut frame = Vec::new();
    if ip(src).is_ipv4() {
        step.icmpv4_raw(kind, code, [0; 4])
            .write(&mut frame, quoted)
    } else {
        step.icmpv6_raw(kind, code, [0; 4])
            .write(&mut frame, quoted)
    }
    .unwrap();
    frame
}

pub fn timeouts(policy: &mut Policy, idle: Duration) {
    policy.timeouts.offload_idle = idle;
}
