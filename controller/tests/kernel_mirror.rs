//! The mirror against a kernel: what it publishes is what `ip` shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod namespace;

use std::time::Duration;

use namespace::model::{Model, kernel_macs, kernel_ways};
use namespace::{eventually, inside, ip, ip_batch, tap, try_ip};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shunt_controller::kernel::{
    Batch, KernelSetup, Mirror, MirrorConfig, MirrorHandle, RECEIVE_BUFFER_BYTES, TapConfig, setup,
};
use tokio::sync::mpsc;

fn taps() -> Vec<TapConfig> {
    vec![
        tap(1, "red", 1, 101, &["10.0.0.1/24", "fd00:a::1/64"], &[]),
        tap(2, "blue", 2, 102, &["10.0.0.1/24"], &[]),
        tap(
            3,
            "wan",
            3,
            254,
            &["203.0.113.1/24", "fd00:c::1/64"],
            &["203.0.113.10"],
        ),
    ]
}

struct Bench {
    taps: Vec<TapConfig>,
    setup: KernelSetup,
    mirror: MirrorHandle,
    batches: mpsc::Receiver<Batch>,
    model: Model,
}

impl Bench {
    async fn start(receive_buffer: usize, resync_interval: Duration) -> Self {
        ip("link set lo up");
        ip("link add other type veth peer name other-peer");
        ip("link set other up");
        ip("link set other-peer up");
        ip("addr add 192.168.77.1/24 dev other");
        let taps = taps();
        let setup = KernelSetup::create(&taps).await.unwrap();
        assert_eq!(setup.warnings, Vec::<String>::new());
        let config = MirrorConfig {
            interfaces: setup
                .taps()
                .iter()
                .map(|tap| tap.interface.clone())
                .collect(),
            tables: setup::tables(&taps),
            receive_buffer,
            resync_interval,
        };
        let (ops, batches) = mpsc::channel(4);
        let mirror = Mirror::start(config, ops).await.unwrap();
        Self {
            taps,
            setup,
            mirror,
            batches,
            model: Model::default(),
        }
    }

    /// Waits until the consumer holds what the kernel has.
    async fn agree(&mut self, what: &str) {
        let Self {
            taps,
            batches,
            model,
            ..
        } = self;
        eventually(what, || {
            while let Ok(batch) = batches.try_recv() {
                model.apply(batch);
            }
            if !model.complete {
                return Err("the first load has not ended".into());
            }
            let (want, have) = (kernel_ways(taps), model.ways());
            for (key, way) in &want {
                if have.get(key) != Some(way) {
                    return Err(format!("{key:?}: want {way:?}, have {:?}", have.get(key)));
                }
            }
            if let Some(extra) = have.iter().find(|(key, _)| !want.contains_key(key)) {
                return Err(format!("not in the kernel: {extra:?}"));
            }
            let (want, have) = (kernel_macs(taps), &model.macs);
            if want != *have {
                return Err(format!("neighbours: want {want:?}, have {have:?}"));
            }
            Ok(())
        })
        .await;
    }
}

#[test]
fn follows_the_kernel_step_by_step() {
    inside("follows_the_kernel_step_by_step", async || {
        let mut bench = Bench::start(RECEIVE_BUFFER_BYTES, Duration::from_secs(3600)).await;
        bench.agree("start").await;
        for step in [
            "route add default via 203.0.113.2 dev sh-wan table 101",
            "route add default via 203.0.113.2 dev sh-wan table 102",
            "route replace default via 203.0.113.3 dev sh-wan table 101",
            "route add 198.51.100.0/24 table 101 nexthop via 10.0.0.2 dev sh-red weight 3 nexthop via 203.0.113.9 dev sh-wan weight 5",
            "route add blackhole 198.51.101.0/24 table 101",
            "route add unreachable 198.51.102.0/24 table 101",
            "route add prohibit 198.51.103.0/24 table 101",
            "route add throw 198.51.104.0/24 table 101",
            "route add 198.51.105.0/24 via 192.168.77.2 dev other table 101",
            "route add 198.51.105.0/24 via 10.0.0.2 dev sh-red metric 5 table 101",
            "route del 198.51.105.0/24 via 192.168.77.2 dev other table 101",
            "nexthop add id 1 via 10.0.0.2 dev sh-red",
            "nexthop add id 2 via 203.0.113.2 dev sh-wan",
            "nexthop add id 10 group 1,7/2,2",
            "route add 198.51.106.0/24 nhid 10 table 101",
            "route add 198.51.107.0/24 nhid 1 table 101",
            "nexthop replace id 1 via 10.0.0.3 dev sh-red",
            "nexthop replace id 10 group 2",
            "nexthop del id 1",
            "nexthop add id 5 blackhole",
            "route add 198.51.108.0/24 nhid 5 table 101",
            "route add 198.51.109.0/24 via 10.77.0.1 dev sh-red onlink table 101",
            "route add 198.51.110.0/24 via inet6 fd00:a::2 dev sh-red table 101",
            "-6 route add 2001:db8::/32 via fd00:a::2 dev sh-red table 101",
            "-6 route append 2001:db8::/32 via fd00:a::3 dev sh-red table 101",
            "-6 route del 2001:db8::/32 via fd00:a::2 dev sh-red table 101",
            "-6 route add 2001:db8:1::/48 table 101 nexthop via fd00:a::2 dev sh-red weight 2 nexthop via fd00:a::3 dev sh-red",
            "-6 route replace 2001:db8:1::/48 via fd00:a::4 dev sh-red table 101",
            "neigh replace 10.0.0.2 lladdr 02:aa:00:00:00:02 dev sh-red nud permanent",
            "neigh replace 10.0.0.3 lladdr 02:aa:00:00:00:03 dev sh-red nud reachable",
            "neigh replace 10.0.0.3 lladdr 02:aa:00:00:00:04 dev sh-red nud stale",
            "neigh del 10.0.0.3 dev sh-red",
            "link set sh-red down",
            "link set sh-red up",
            "link set other down",
            "link del other",
            "addr add 10.9.0.1/24 dev sh-red noprefixroute",
            "route add 198.51.111.0/24 dev sh-red src 10.9.0.1 table 101",
            "addr del 10.9.0.1/24 dev sh-red",
            "nexthop flush",
        ] {
            ip(step);
            bench.agree(step).await;
        }
        let stats = bench.mirror.stats();
        assert_eq!((stats.overruns, stats.malformed, stats.resyncs), (0, 0, 0));
        let snapshot = bench.mirror.snapshot().await.unwrap();
        let default = snapshot
            .routes
            .iter()
            .find(|route| route.prefix.prefix_len() == 0)
            .unwrap();
        assert_eq!(default.paths[0].device, "sh-wan");
        assert_eq!(default.protocol, "boot");
        bench.mirror.shutdown().await;
        bench.setup.remove().await;
        assert!(!ip("rule").contains("lookup 10"));
        assert!(try_ip("link show sh-red").is_err());
    });
}

/// Every kind of change.
const ALL: std::ops::Range<u32> = 0..100;
/// Without devices and addresses: of these the kernel tells, so that no dump has to find them.
const TOLD: std::ops::Range<u32> = 0..90;

/// A random change; many are refused, which is as good a test.
fn change(random: &mut StdRng, kinds: std::ops::Range<u32>) -> String {
    let devices = ["sh-red", "sh-blue", "sh-wan", "other"];
    let table = *[101, 101, 102, 254].choose(random).unwrap();
    let v6 = random.random_bool(0.3);
    let hop = |random: &mut StdRng| match (v6, random.random_range(0..8)) {
        (false, 0..=2) => format!("via 10.0.0.{} dev sh-red", random.random_range(2..5)),
        (false, 3) => "via 10.0.0.2 dev sh-blue".into(),
        (false, 4..=5) => format!("via 203.0.113.{} dev sh-wan", random.random_range(2..4)),
        (true, 0..=3) => format!("via fd00:a::{} dev sh-red", random.random_range(2..5)),
        (true, 4..=5) => format!("via fd00:c::{} dev sh-wan", random.random_range(2..4)),
        _ => format!("dev {}", devices.choose(random).unwrap()),
    };
    match random.random_range(kinds) {
        0..62 => {
            let verb = *["add", "add", "replace", "append", "prepend", "del", "del"]
                .choose(random)
                .unwrap();
            let net = match (v6, random.random_range(0..5)) {
                (false, 0) => "0.0.0.0/0".into(),
                (false, n) => format!("198.51.{}.0/24", 100 + n),
                (true, 0) => "::/0".into(),
                (true, n) => format!("2001:db8:{n}::/48"),
            };
            let metric = match random.random_range(0..4) {
                0 => "metric 10",
                1 => "metric 20",
                _ => "",
            };
            let (kind, to) = match random.random_range(0..10) {
                0 => (
                    *["blackhole", "unreachable", "prohibit", "throw"]
                        .choose(random)
                        .unwrap(),
                    String::new(),
                ),
                1 | 2 => (
                    "",
                    format!("nhid {}", [1, 2, 3, 4, 10, 11].choose(random).unwrap()),
                ),
                3 | 4 => (
                    "",
                    (0..2)
                        .map(|_| {
                            format!(
                                "nexthop {} weight {} ",
                                hop(random),
                                random.random_range(1..9)
                            )
                        })
                        .collect(),
                ),
                _ => ("", hop(random)),
            };
            let (metric, to) = match (v6, metric) {
                (false, _) => (metric, to),
                // Where routes lie between the paths of a joined IPv6 route, the kernel's own
                // dump leaves them out, and there is nothing to compare with.
                (true, _) if to.contains("via") && to.contains("nexthop dev") => {
                    (metric, "via fd00:a::4 dev sh-red".into())
                }
                (true, _) if to.contains("via") => (metric, to),
                (true, "metric 10") => ("metric 5", to),
                (true, _) => ("metric 2000", to),
            };
            format!("route {verb} {kind} {net} table {table} {metric} {to}")
        }
        62..76 => match random.random_range(0..6) {
            0 => format!(
                "nexthop del id {}",
                [1, 2, 3, 4, 10].choose(random).unwrap()
            ),
            1 => format!(
                "nexthop replace id 10 group {}",
                ["1,3/2", "1", "2/3,9", "1/2/3"].choose(random).unwrap()
            ),
            2 => "nexthop replace id 4 blackhole".into(),
            _ => format!(
                "nexthop replace id {} {}",
                random.random_range(1..4),
                hop(random)
            ),
        },
        76..90 => {
            let verb = ["replace", "replace", "del"].choose(random).unwrap();
            let state = ["permanent", "reachable", "stale", "failed"]
                .choose(random)
                .unwrap();
            format!(
                "neigh {verb} 10.0.0.{} lladdr 02:aa:00:00:00:{:02x} nud {state} dev sh-red",
                random.random_range(2..6),
                random.random_range(0..4),
            )
        }
        90..95 => format!(
            "link set {} {}",
            devices.choose(random).unwrap(),
            ["up", "up", "down"].choose(random).unwrap()
        ),
        _ => format!(
            "addr {} 10.{}.0.1/24 dev {}",
            ["add", "del"].choose(random).unwrap(),
            random.random_range(1..3),
            devices.choose(random).unwrap()
        ),
    }
}

/// Undoes what makes every later change impossible: devices down, connected routes gone.
fn repair() {
    let lines = [
        "link set sh-red up",
        "link set sh-blue up",
        "link set sh-wan up",
        "link set other up",
        "addr replace fd00:a::1/64 dev sh-red nodad noprefixroute",
        "addr replace fd00:c::1/64 dev sh-wan nodad",
        "route replace 10.0.0.0/24 dev sh-red table 101",
        "route replace 10.0.0.0/24 dev sh-blue table 102",
        "route replace 203.0.113.0/24 dev sh-wan",
        "route replace fd00:a::/64 dev sh-red table 101",
    ];
    ip_batch(&lines.map(String::from));
}

fn sequences(default: u64) -> std::ops::Range<u64> {
    let from = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = from("SHUNT_SEED").unwrap_or(0);
    first..first + from("SHUNT_SEQUENCES").unwrap_or(default)
}

#[test]
fn agrees_after_random_sequences() {
    inside("agrees_after_random_sequences", async || {
        let mut bench = Bench::start(RECEIVE_BUFFER_BYTES, Duration::from_secs(3600)).await;
        let mut accepted = 0;
        for seed in sequences(100) {
            let mut random = StdRng::seed_from_u64(seed);
            let mut done = Vec::new();
            if seed % 2 == 0 {
                repair();
            }
            let kinds = if seed % 10 == 0 { ALL } else { TOLD };
            for _ in 0..random.random_range(5..30) {
                let line = change(&mut random, kinds.clone());
                if try_ip(&line).is_ok() {
                    done.push(line);
                }
            }
            accepted += done.len();
            bench.agree(&format!("seed {seed} after {done:#?}")).await;
        }
        let stats = bench.mirror.stats();
        println!("{accepted} changes; {stats:?}");
        assert_eq!((stats.overruns, stats.malformed), (0, 0));
    });
}

#[test]
fn recovers_from_overruns() {
    inside("recovers_from_overruns", async || {
        let mut bench = Bench::start(4096, Duration::from_secs(3600)).await;
        for seed in sequences(20) {
            let mut random = StdRng::seed_from_u64(seed);
            repair();
            let lines = (0..1000).map(|_| change(&mut random, ALL));
            // A neighbour that is refused ends a batch.
            let (one_by_one, lines): (Vec<_>, Vec<_>) =
                lines.partition(|line| line.starts_with("neigh"));
            ip_batch(&lines);
            for line in one_by_one.iter().take(20) {
                let _ = try_ip(line);
            }
            bench.agree(&format!("seed {seed}")).await;
        }
        let stats = bench.mirror.stats();
        println!("{stats:?}");
        assert!(
            stats.overruns > 0,
            "the receive buffer never overran: {stats:?}"
        );
    });
}

#[test]
fn a_flap_costs_few_batches_and_a_slow_consumer_loses_nothing() {
    let name = "a_flap_costs_few_batches_and_a_slow_consumer_loses_nothing";
    inside(name, async || {
        let mut bench = Bench::start(RECEIVE_BUFFER_BYTES, Duration::from_secs(3600)).await;
        bench.agree("start").await;
        let lines: Vec<String> = (0..4000)
            .map(|n| {
                format!(
                    "route add 20.{}.{}.0/24 via 10.0.0.2 dev sh-red table 101",
                    n / 250,
                    n % 250
                )
            })
            .collect();
        ip_batch(&lines);
        bench.agree("4,000 routes").await;
        assert!(bench.mirror.stats().routes > 4000);
        // Nobody reads meanwhile: the channel fills, the rest is merged.
        let before = bench.model.batches;
        for _ in 0..5 {
            ip("link set sh-red down");
            ip("link set sh-red up");
            // Setup puts it back as well, but not before it has heard.
            ip("route replace 10.0.0.0/24 dev sh-red table 101");
            ip_batch(&lines);
        }
        bench.agree("after flaps").await;
        let batches = bench.model.batches - before;
        assert!(batches < 40, "{batches} batches");
        ip("link set sh-red down");
        // Long before the resync timer: the link's own message is what it noticed.
        bench.agree("link down").await;
    });
}
