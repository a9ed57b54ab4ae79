//! Random changes of links, addresses, neighbours, next hops and routes, as lines for `ip`.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{ip_batch, try_ip};

/// Every kind of change.
pub const ALL: std::ops::Range<u32> = 0..100;
/// Without devices and addresses: of these the kernel tells, so that no dump has to find them.
pub const TOLD: std::ops::Range<u32> = 0..90;

/// What else a route may say; only the MTU concerns packets that are forwarded.
const METRICS: [&str; 8] = [
    "",
    "",
    "",
    "",
    "mtu 1300",
    "mtu lock 1290",
    "mtu 9000 advmss 1000",
    "congctl reno mtu 1380",
];

/// A random change; many are refused, which is as good a test.
pub fn change(random: &mut StdRng, kinds: std::ops::Range<u32>) -> String {
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
            let metrics = match (v6, kind) {
                (false, "") => *METRICS.choose(random).unwrap(),
                // Of the paths of a joined IPv6 route each has its own, and the kernel tells only
                // one path's: so they are the prefix's here.
                (true, "") => METRICS[net.len() % METRICS.len()],
                _ => "",
            };
            format!("route {verb} {kind} {net} table {table} {metric} {metrics} {to}")
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
            ["up", "up", "down", "mtu 1350"].choose(random).unwrap()
        ),
        _ => format!(
            "addr {} 10.{}.0.1/24 dev {}",
            ["add", "del"].choose(random).unwrap(),
            random.random_range(1..3),
            devices.choose(random).unwrap()
        ),
    }
}

/// Many changes of every kind, as fast as the kernel takes them.
pub fn burst(random: &mut StdRng, count: usize) {
    let lines = (0..count).map(|_| change(random, ALL));
    // A neighbour that is refused ends a batch.
    let (one_by_one, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("neigh"));
    ip_batch(&lines);
    for line in one_by_one.iter().take(20) {
        let _ = try_ip(line);
    }
}

/// Undoes what makes every later change impossible: devices down, connected routes gone.
pub fn repair() {
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

/// The seeds to run: `SHUNT_SEED` is the first, `SHUNT_SEQUENCES` how many.
pub fn sequences(default: u64) -> std::ops::Range<u64> {
    let from = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = from("SHUNT_SEED").unwrap_or(0);
    first..first + from("SHUNT_SEQUENCES").unwrap_or(default)
}
