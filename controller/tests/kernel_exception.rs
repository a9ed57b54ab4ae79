//! The exception path against a kernel: it answers ARP, ND and ping on the taps as on any other
//! device, resolves what workers ask for, and mixes nothing up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod namespace;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use namespace::{eventually, inside, ip, tap, try_ip};
use shunt_controller::exception::{self, ExceptionPath};
use shunt_controller::kernel::{
    Batch, KernelSetup, Mirror, MirrorConfig, MirrorHandle, RECEIVE_BUFFER_BYTES, SetupError,
    TapConfig, setup,
};
use shunt_p4::{InterfaceId, MacAddr, NetworkOp};
use shunt_slowpath::exception::{
    ExceptionEvent, ExceptionFrame, ExceptionPort, ExceptionReason, channel,
};
use tokio::sync::mpsc;

const HOST: [u8; 6] = [2, 0xaa, 0, 0, 0, 2];

fn taps() -> Vec<TapConfig> {
    vec![
        tap(1, "red", 1, 101, &["10.0.0.1/24", "fd00:a::1/64"], &[]),
        tap(2, "blue", 2, 102, &["10.0.0.1/24"], &[]),
        tap(3, "wan", 3, 254, &["203.0.113.1/24"], &["203.0.113.10"]),
        tap(4, "green", 4, 104, &["10.1.0.1/24"], &[]),
    ]
}

struct Bench {
    setup: KernelSetup,
    mirror: MirrorHandle,
    batches: mpsc::Receiver<Batch>,
    path: ExceptionPath,
    worker: ExceptionPort,
}

impl Bench {
    async fn start() -> Self {
        ip("link set lo up");
        let taps = taps();
        let setup = KernelSetup::create(&taps).await.unwrap();
        let (ops, batches) = mpsc::channel(1024);
        let config = MirrorConfig {
            interfaces: setup
                .taps()
                .iter()
                .map(|tap| tap.interface.clone())
                .collect(),
            tables: setup::tables(&taps),
            receive_buffer: RECEIVE_BUFFER_BYTES,
            resync_interval: Duration::from_secs(3600),
        };
        let mirror = Mirror::start(config, ops).await.unwrap();
        let (worker, receiver, sender) = channel();
        let path = exception::run(setup.taps(), vec![(receiver, sender)], mirror.clone());
        Self {
            setup,
            mirror,
            batches,
            path,
            worker,
        }
    }

    fn arrives(&mut self, interface: u16, frame: Vec<u8>) {
        let event = ExceptionEvent::Frame(ExceptionFrame {
            interface: InterfaceId::new(interface).unwrap(),
            reason: ExceptionReason::Local,
            frame,
        });
        self.worker.push(event).unwrap();
        self.worker.flush();
    }

    /// The next frame from the kernel that `pick` takes, and the interface of it.
    async fn leaves<T>(&mut self, what: &str, pick: impl Fn(&[u8]) -> Option<T>) -> (u16, T) {
        let worker = &mut self.worker;
        eventually(what, || {
            while let Some((interface, frame)) = worker.pop() {
                if let Some(found) = pick(&frame) {
                    return Ok((interface.get(), found));
                }
            }
            Err("nothing yet".into())
        })
        .await
    }

    async fn stop(self) {
        self.mirror.shutdown().await;
        self.path.shutdown().await;
        self.setup.remove().await;
    }
}

fn v4(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().unwrap().octets()
}

fn arp(
    operation: u16,
    from: (&[u8; 6], &str),
    to: (&[u8; 6], &str),
    destination: [u8; 6],
) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend(from.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(from.0);
    frame.extend(v4(from.1));
    frame.extend(to.0);
    frame.extend(v4(to.1));
    frame
}

fn asks(address: &str) -> Vec<u8> {
    arp(1, (&HOST, "10.0.0.2"), (&[0; 6], address), [0xff; 6])
}

/// Operation, sender's MAC and address, target's address.
fn read_arp(frame: &[u8]) -> Option<(u16, [u8; 6], Ipv4Addr, Ipv4Addr)> {
    (frame.get(12..14)? == [8, 6]).then_some(())?;
    let address = |at: usize| Some(Ipv4Addr::from(*frame.get(at..)?.first_chunk::<4>()?));
    Some((
        u16::from_be_bytes(*frame.get(20..)?.first_chunk()?),
        *frame.get(22..)?.first_chunk()?,
        address(28)?,
        address(38)?,
    ))
}

fn echo(mac: u8, from: &str, to: &str, id: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(HOST, [2, 0, 0, 0, 0, mac])
        .ipv4(v4(from), v4(to), 64)
        .icmpv4_echo_request(id, 1)
        .write(&mut frame, b"shunt")
        .unwrap();
    frame
}

/// The id of an echo reply.
fn read_echo_reply(frame: &[u8]) -> Option<u16> {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).ok()?;
    match packet.transport? {
        etherparse::TransportHeader::Icmpv4(header) => match header.icmp_type {
            etherparse::Icmpv4Type::EchoReply(reply) => Some(reply.id),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn the_kernel_answers_on_its_taps() {
    inside("the_kernel_answers_on_its_taps", async || {
        let mut bench = Bench::start().await;
        // ARP for the gateway: each interface answers with its own MAC.
        for (interface, mac) in [(1, 1), (2, 2)] {
            bench.arrives(interface, asks("10.0.0.1"));
            let (out, (_, sender, _, target)) = bench
                .leaves("ARP reply", |frame| {
                    read_arp(frame).filter(|arp| arp.0 == 2)
                })
                .await;
            assert_eq!((out, sender), (interface, [2, 0, 0, 0, 0, mac]));
            assert_eq!(target, "10.0.0.2".parse::<Ipv4Addr>().unwrap());
        }
        // Pool addresses on the link too, and nobody else's.
        bench.arrives(
            3,
            arp(1, (&HOST, "203.0.113.2"), (&[0; 6], "10.0.0.1"), [0xff; 6]),
        );
        bench.arrives(
            3,
            arp(
                1,
                (&HOST, "203.0.113.2"),
                (&[0; 6], "203.0.113.10"),
                [0xff; 6],
            ),
        );
        let (out, (_, _, sender, _)) = bench
            .leaves("ARP reply", |frame| {
                read_arp(frame).filter(|arp| arp.0 == 2)
            })
            .await;
        assert_eq!((out, sender.to_string().as_str()), (3, "203.0.113.10"));
        // Ping: the answer leaves where it came from, or not at all.
        bench.arrives(3, echo(3, "203.0.113.2", "203.0.113.1", 33));
        assert_eq!(bench.leaves("ping wan", read_echo_reply).await, (3, 33));
        bench.arrives(
            4,
            arp(1, (&HOST, "10.1.0.2"), (&[0; 6], "10.1.0.1"), [0xff; 6]),
        );
        bench.arrives(2, echo(2, "10.0.0.2", "10.0.0.1", 22));
        bench.arrives(4, echo(4, "10.1.0.2", "10.1.0.1", 44));
        assert_eq!(bench.leaves("ping green", read_echo_reply).await, (4, 44));
        let stats = bench.path.stats();
        assert_eq!(stats.to_kernel, 8);
        assert_eq!((stats.to_kernel_invalid, stats.to_kernel_refused), (0, 0));
        bench.arrives(9, asks("10.0.0.1"));
        bench.arrives(1, vec![0; 13]);
        let path = &bench.path;
        eventually("invalid frames are counted", || {
            match path.stats().to_kernel_invalid {
                2 => Ok(()),
                n => Err(n.to_string()),
            }
        })
        .await;
        bench.stop().await;
        assert!(try_ip("link show sh-red").is_err());
    });
}

#[test]
fn the_kernel_resolves_what_workers_ask_for() {
    inside("the_kernel_resolves_what_workers_ask_for", async || {
        let mut bench = Bench::start().await;
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let blue = InterfaceId::new(2).unwrap();
        for _ in 0..50 {
            bench
                .worker
                .push(ExceptionEvent::Resolve(blue, address))
                .unwrap();
        }
        bench.worker.flush();
        let request = |frame: &[u8]| read_arp(frame).filter(|arp| arp.3 == address);
        let (out, (operation, _, sender, _)) = bench.leaves("ARP request", request).await;
        assert_eq!(
            (out, operation, sender.to_string().as_str()),
            (2, 1, "10.0.0.1")
        );
        let reply = arp(
            2,
            (&HOST, "10.0.0.7"),
            (&[2, 0, 0, 0, 0, 2], "10.0.0.1"),
            [2, 0, 0, 0, 0, 2],
        );
        bench.arrives(2, reply);
        let batches = &mut bench.batches;
        eventually("the neighbour is published", || {
            while let Ok(batch) = batches.try_recv() {
                for op in batch.ops {
                    if let NetworkOp::SetNeighbor(interface, ip, mac) = op {
                        assert_eq!((interface, ip, mac), (blue, address, MacAddr(HOST)));
                        return Ok(());
                    }
                }
            }
            Err("not yet".into())
        })
        .await;
        let stats = bench.mirror.stats();
        assert_eq!(stats.resolve_sent + stats.resolve_limited, 50);
        assert!(stats.resolve_limited >= 45, "{stats:?}");
        // A gateway of a route is asked for unasked, and kept.
        ip("route add default via 203.0.113.2 dev sh-wan table 102");
        let gateway: IpAddr = "203.0.113.2".parse().unwrap();
        let request = |frame: &[u8]| read_arp(frame).filter(|arp| arp.3 == gateway);
        assert_eq!(bench.leaves("ARP for the gateway", request).await.0, 3);
        bench.stop().await;
    });
}

#[test]
fn a_start_after_a_kill_and_bad_starts() {
    inside("a_start_after_a_kill_and_bad_starts", async || {
        // Dropped, not removed: taps and rules stay, as after a kill, and the routes over them.
        drop(KernelSetup::create(&taps()).await.unwrap());
        ip("route add 198.51.100.0/24 dev sh-red table 101");
        ip("address add 203.0.113.99/32 dev sh-red");
        let again = KernelSetup::create(&taps()).await.unwrap();
        assert!(ip("route show table 101").contains("198.51.100.0/24"));
        let addresses = ip("address show sh-red");
        assert!(!addresses.contains("203.0.113.99"), "{addresses}");
        let rules = ip("rule");
        assert!(!rules.contains("[detached]"), "{rules}");
        assert_eq!(rules.matches("iif sh-red lookup 101").count(), 1, "{rules}");
        // Somebody else's taps of the same names.
        let error = KernelSetup::create(&taps()).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SetupError::Create { .. }));
        assert!(
            text.contains("sh-red") && text.contains("stop the other shuntd"),
            "{text}"
        );
        again.remove().await;
        // A table that has moved: no rule to the old one.
        let mut moved = taps();
        moved[0].table = 111;
        drop(KernelSetup::create(&taps()).await.unwrap());
        ip("route add 198.51.100.0/24 dev sh-red table 101");
        let setup = KernelSetup::create(&moved).await.unwrap();
        assert!(!ip("rule").contains("lookup 101"));
        assert!(
            try_ip("route show table 101")
                .unwrap_or_default()
                .is_empty()
        );
        // A tap that is in no configuration any more goes.
        drop(setup);
        let setup = KernelSetup::create(&moved[1..]).await.unwrap();
        assert!(try_ip("link show sh-red").is_err(), "sh-red is left");
        setup.remove().await;
        assert_eq!(ip("rule").lines().count(), 3);
        let mut bad = taps();
        bad[1].tap = "a-name-that-is-too-long".into();
        let text = KernelSetup::create(&bad).await.unwrap_err().to_string();
        assert!(
            text.contains("a-name-that-is-too-long") && text.contains("15 bytes"),
            "{text}"
        );
        assert!(try_ip("link show sh-red").is_err(), "half a setup is left");
    });
}

/// The kernel takes routes, and IPv6 addresses, away with a link that goes down.
#[test]
fn a_tap_down_and_up_has_its_addresses_and_routes_again() {
    let name = "a_tap_down_and_up_has_its_addresses_and_routes_again";
    inside(name, async || {
        let setup = KernelSetup::create(&taps()).await.unwrap();
        let shown = || {
            let routes = ip("route show table 101") + &ip("-6 route show table 101");
            let addresses = ip("-brief address show sh-red");
            let own = addresses
                .split_whitespace()
                .filter(|word| !word.starts_with("fe80"));
            (routes, own.map(str::to_owned).collect::<Vec<_>>())
        };
        let before = shown();
        assert!(before.0.contains("10.0.0.0/24") && before.0.contains("fd00:a::/64"));
        for _ in 0..3 {
            ip("link set sh-red down");
            assert!(!ip("route show table 101").contains("10.0.0.0/24"));
            ip("link set sh-red up");
            let again = || match shown() {
                now if now == before => Ok(()),
                now => Err(format!("{now:?} instead of {before:?}")),
            };
            eventually("the tap as before", again).await;
        }
        setup.remove().await;
    });
}

/// Rules are put back when the kernel tells that they went, settings when it tells of a change of
/// one that it tells of.
#[test]
fn rules_and_settings_stay() {
    inside("rules_and_settings_stay", async || {
        let setup = KernelSetup::create(&taps()).await.unwrap();
        let before = ip("rule show") + &ip("-6 rule show");
        assert!(before.contains("iif sh-red lookup 101"), "{before}");
        let rules = |what: &str| {
            let what = format!("rules after {what}");
            let sorted = |text: String| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            let before = sorted(before.clone());
            async move {
                eventually(&what, || {
                    match sorted(ip("rule show") + &ip("-6 rule show")) {
                        now if now == before => Ok(()),
                        now => Err(format!("{now:?} instead of {before:?}")),
                    }
                })
                .await;
            }
        };
        for change in [
            "rule del iif sh-red lookup 101",
            "-6 rule del oif sh-red lookup 101",
            "rule del from 10.0.0.1 prohibit",
            "rule flush protocol 83",
        ] {
            if try_ip(change).is_err() {
                // Whichever of the rules by address there are in this configuration.
                assert!(change.contains("from"), "{change}");
            }
            rules(change).await;
        }
        let path = |name: &str| format!("/proc/sys/net/ipv4/conf/sh-red/{name}");
        for (name, value) in [
            ("accept_local", "0"),
            ("arp_ignore", "0"),
            ("rp_filter", "1"),
        ] {
            std::fs::write(path(name), value).unwrap();
        }
        settings(&path, "of which the kernel tells").await;
        setup.remove().await;
        assert!(!ip("rule show").contains("sh-red"));
    });
}

/// Waits until a tap's settings are as the gateway needs them.
async fn settings(path: &impl Fn(&str) -> String, what: &str) {
    eventually(&format!("settings {what}"), || {
        for (name, value) in [
            ("accept_local", "1"),
            ("arp_ignore", "1"),
            ("rp_filter", "0"),
        ] {
            let now = std::fs::read_to_string(path(name)).unwrap();
            if now.trim() != value {
                return Err(format!("{name} is {now}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Of most settings the kernel does not tell: the timer finds them.
#[test]
fn settings_are_looked_at_by_timer() {
    inside("settings_are_looked_at_by_timer", async || {
        let often = std::time::Duration::from_millis(200);
        let setup = KernelSetup::create_checked(&taps(), often).await.unwrap();
        let path = |name: &str| format!("/proc/sys/net/ipv4/conf/sh-red/{name}");
        std::fs::write(path("accept_local"), "0").unwrap();
        std::fs::write(path("arp_ignore"), "0").unwrap();
        settings(&path, "of which the kernel does not tell").await;
        // A small MTU takes IPv6 off the device, and its settings with it.
        ip("link set sh-red mtu 1000");
        eventually("IPv6 as it was", || {
            let accept = std::fs::read_to_string("/proc/sys/net/ipv6/conf/sh-red/accept_ra");
            match accept {
                Ok(text) if text.trim() == "0" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        setup.remove().await;
    });
}

/// What somebody changes by hand is put right; another address beside ours is left alone.
#[test]
fn a_tap_stays_as_configured() {
    inside("a_tap_stays_as_configured", async || {
        let setup = KernelSetup::create(&taps()).await.unwrap();
        ip("address add 10.9.9.9/32 dev sh-red");
        let shown = || {
            let addresses = ip("address show dev sh-red");
            let words = addresses.split_whitespace();
            // The kernel's own address, and whether it is being tried, come and go by themselves.
            let words = words.filter(|word| !word.starts_with("fe80") && *word != "tentative");
            let mut words: Vec<String> = words.map(str::to_owned).collect();
            // One that is put back is the last.
            words.sort();
            let routes = ip("route show table 101") + &ip("-6 route show table 101");
            (words, routes)
        };
        let before = shown();
        for change in [
            "address del 10.0.0.1/24 dev sh-red",
            "address del fd00:a::1/64 dev sh-red",
            "address flush dev sh-red scope global",
            "link set sh-red address 02:99:99:99:99:99",
            "link set sh-red mtu 1300",
            // Less than IPv6 needs.
            "link set sh-red mtu 1000",
        ] {
            ip(change);
            if change.contains("flush") {
                ip("address add 10.9.9.9/32 dev sh-red");
            }
            let again = || match shown() {
                now if now == before => Ok(()),
                now => Err(format!("{change}: {now:?} instead of {before:?}")),
            };
            eventually("the tap as before", again).await;
        }
        // Down is an administrator's to say.
        ip("link set sh-red down mtu 1300");
        let again = || match ip("link show sh-red") {
            now if now.contains("mtu 1400") && !now.contains("UP") => Ok(()),
            now => Err(now),
        };
        eventually("the MTU of a tap that is down", again).await;
        setup.remove().await;
    });
}
