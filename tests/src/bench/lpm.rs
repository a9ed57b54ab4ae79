//! `lpm`: longest-prefix look-ups a second of one core in the workers' table, which holds as many
//! routes as the Internet's largest tables.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shunt_p4::{NetworkOp, Nexthop, NexthopId, Route, VpcId};
use shunt_slowpath::fib::{Fib, FibWriter};

use crate::prefixes::{prefixes, v4, v6};
use crate::report::{BenchError, Report, median};
use crate::switch_writes::server::resident_bytes;

const V4_ROUTES: usize = 1_000_000;
const V6_ROUTES: usize = 200_000;
/// Destinations, each in the prefix of a route chosen at random; they are gone through in turn.
const DESTINATIONS: usize = 1_000_000;
const NEXTHOPS: u32 = 64;
const RUNS: usize = 7;
const SEED: u64 = 4;

/// An address of the prefix.
fn inside(random: &mut StdRng, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(net) => {
            let host = random.random::<u32>() & net.hostmask().to_bits();
            Ipv4Addr::from_bits(net.network().to_bits() | host).into()
        }
        IpNet::V6(net) => {
            let host = random.random::<u128>() & net.hostmask().to_bits();
            Ipv6Addr::from_bits(net.network().to_bits() | host).into()
        }
    }
}

fn rate(fib: &Fib, vpc: VpcId, destinations: &[IpAddr]) -> Result<f64, BenchError> {
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let found = destinations.iter().filter(|dst| {
            let route = fib.route(black_box(vpc), **dst);
            black_box(route).is_some()
        });
        let found = found.count();
        rates.push(destinations.len() as f64 / start.elapsed().as_secs_f64());
        if found != destinations.len() {
            return Err(BenchError::failed(format!("{found} destinations found")));
        }
    }
    Ok(median(rates))
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let missing = || BenchError::failed("an identifier is out of range");
    let random = &mut StdRng::seed_from_u64(SEED);
    let vpc = VpcId::new(1).ok_or_else(missing)?;
    let interface = shunt_p4::InterfaceId::new(1).ok_or_else(missing)?;
    let v4 = prefixes(random, V4_ROUTES, v4)?;
    let v6 = prefixes(random, V6_ROUTES, v6)?;
    let destinations = [&v4, &v6].map(|prefixes| {
        let all = (0..DESTINATIONS).map(|_| {
            let at = random.random_range(0..prefixes.len());
            let prefix = prefixes.get(at).copied().unwrap_or_default();
            inside(random, prefix)
        });
        all.collect::<Vec<_>>()
    });
    let before = resident_bytes(std::process::id())?;
    let (mut writer, factory) = FibWriter::new();
    for id in 1..=NEXTHOPS {
        let id = NexthopId::new(id).ok_or_else(missing)?;
        let nexthop = Nexthop {
            interface,
            gateway: None,
            mtu: None,
        };
        writer.apply([NetworkOp::SetNexthop(id, nexthop)]);
    }
    let start = Instant::now();
    for (number, prefix) in (0..NEXTHOPS).cycle().zip(v4.iter().chain(&v6)) {
        let id = NexthopId::new(number + 1).ok_or_else(missing)?;
        let route = Route::Nexthops([(id, 1)].into());
        writer.apply([NetworkOp::SetRoute(vpc, *prefix, route)]);
    }
    writer.publish();
    let published = start.elapsed().as_secs_f64();
    let reader = factory.reader();
    let fib = reader.enter();
    let fib = fib.ok_or_else(|| BenchError::failed("the writer is gone"))?;
    let [of_v4, of_v6] = &destinations;
    report.metric("IPv4 look-ups", rate(&fib, vpc, of_v4)?, "look-ups/s");
    report.metric("IPv6 look-ups", rate(&fib, vpc, of_v6)?, "look-ups/s");
    let routes = (V4_ROUTES + V6_ROUTES) as f64;
    report.metric("routes published", routes / published, "routes/s");
    drop(fib);
    // The second copy takes the operations over with the next publish.
    writer.apply([NetworkOp::RemoveRoute(vpc, IpNet::default())]);
    writer.publish();
    report.metric(
        "memory a route, both copies",
        resident_bytes(std::process::id())?.saturating_sub(before) as f64 / routes,
        "bytes",
    );
    Ok(())
}
