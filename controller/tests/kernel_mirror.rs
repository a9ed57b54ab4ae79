//! The mirror against a kernel: what it publishes is what `ip` shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod namespace;

use std::time::Duration;

use namespace::changes::{ALL, TOLD, burst, change, repair, sequences};
use namespace::lab::Bench;
use namespace::{inside, ip, ip_batch, try_ip};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shunt_controller::kernel::RECEIVE_BUFFER_BYTES;
use shunt_testbed::sandbox;

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
            "route add 198.51.112.0/24 via 10.0.0.2 dev sh-red mtu 1300 table 101",
            "route add 198.51.113.0/24 via 10.0.0.2 dev sh-red mtu lock 1300 advmss 900 table 101",
            "route replace 198.51.113.0/24 via 10.0.0.2 dev sh-red advmss 900 table 101",
            "route add 198.51.114.0/24 via 10.0.0.2 dev sh-red congctl reno mtu 1200 table 101",
            "route add 198.51.115.0/24 table 101 mtu 1310 nexthop via 10.0.0.2 dev sh-red nexthop via 203.0.113.9 dev sh-wan",
            "route add 198.51.116.0/24 nhid 2 mtu 1320 table 101",
            "route del 198.51.112.0/24 table 101",
            "-6 route add 2001:db8:2::/48 via fd00:a::2 dev sh-red mtu 1300 table 101",
            "-6 route add 2001:db8:3::/48 via fd00:a::2 dev sh-red mtu lock 1380 table 101",
            "-6 route add 2001:db8:4::/48 via fd00:a::2 dev sh-red mtu 1380 table 101",
            "-6 route replace 2001:db8:2::/48 via fd00:a::2 dev sh-red mtu 1310 table 101",
            // A path with another MTU: the kernel goes on telling of the first one's.
            "-6 route append 2001:db8:2::/48 via fd00:a::3 dev sh-red table 101",
            "-6 route del 2001:db8:2::/48 via fd00:a::2 dev sh-red table 101",
            // Changes routes' MTUs silently; it is set back to 1400, which changes them again.
            "link set sh-red mtu 1350",
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

/// Where the kernel has VRF devices, a tap may be in one whose table is its VPC's.
#[test]
fn a_tap_in_a_vrf_device() {
    let name = "a_tap_in_a_vrf_device";
    inside(name, async || {
        if let Err(why) = try_ip("link add vrf-red type vrf table 101") {
            sandbox::skip(name, &format!("this kernel has no VRF devices: {why}"));
            return;
        }
        let mut bench = Bench::start(RECEIVE_BUFFER_BYTES, Duration::from_secs(3600)).await;
        for step in [
            "link set vrf-red up",
            "link set sh-red master vrf-red",
            "route add 198.51.100.0/24 via 10.0.0.2 dev sh-red vrf vrf-red",
            "-6 route add 2001:db8::/32 via fd00:a::2 dev sh-red vrf vrf-red",
            "route add unreachable default metric 4278198272 vrf vrf-red",
            "address add 10.99.0.1/32 dev vrf-red",
            "route del 198.51.100.0/24 vrf vrf-red",
            "link set sh-red nomaster",
        ] {
            ip(step);
            bench.agree(step).await;
        }
        bench.setup.remove().await;
    });
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
            burst(&mut random, 1000);
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
