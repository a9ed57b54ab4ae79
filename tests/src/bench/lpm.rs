//! `lpm`: longest-prefix look-ups a second of one core in the workers' table, which holds as many
//! routes as the Internet's largest tables.

use std::collections::HashSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shunt_p4::{NetworkOp, Nexthop, NexthopId, Route, VpcId};
use shunt_slowpath::fib::{Fib, FibWriter};

use crate::report::{BenchError, Report, median};

const V4_ROUTES: usize = 1_000_000;
const V6_ROUTES: usize = 200_000;
/// Destinations, each in the prefix of a route chosen at random; they are gone through in turn.
const DESTINATIONS: usize = 1_000_000;
const NEXTHOPS: u32 = 64;
const RUNS: usize = 7;
const SEED: u64 = 4;

/// Prefix lengths of the Internet's routing tables, roughly: length and share in a thousand.
const V4_LENGTHS: [(u8, u32); 9] = [
    (24, 610),
    (23, 100),
    (22, 115),
    (21, 50),
    (20, 45),
    (19, 30),
    (18, 15),
    (17, 10),
    (16, 25),
];
const V6_LENGTHS: [(u8, u32); 6] = [
    (48, 480),
    (44, 130),
    (40, 120),
    (36, 70),
    (32, 140),
    (29, 60),
];

fn length(random: &mut StdRng, lengths: &[(u8, u32)]) -> u8 {
    let total = lengths.iter().map(|(_, share)| share).sum();
    let mut at = random.random_range(0..total);
    for (length, share) in lengths {
        match at.checked_sub(*share) {
            Some(rest) => at = rest,
            None => return *length,
        }
    }
    0
}

fn prefixes(
    random: &mut StdRng,
    count: usize,
    mut make: impl FnMut(&mut StdRng) -> Result<IpNet, BenchError>,
) -> Result<Vec<IpNet>, BenchError> {
    let mut seen = HashSet::with_capacity(count);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let prefix = make(random)?;
        if seen.insert(prefix) {
            all.push(prefix);
        }
    }
    Ok(all)
}

fn v4(random: &mut StdRng) -> Result<IpNet, BenchError> {
    let length = length(random, &V4_LENGTHS);
    // 1.0.0.0 to 223.255.255.255: unicast.
    let address = Ipv4Addr::from_bits(random.random_range(0x0100_0000..0xe000_0000));
    let net = Ipv4Net::new(address, length).map_err(BenchError::failed)?;
    Ok(IpNet::V4(net.trunc()))
}

fn v6(random: &mut StdRng) -> Result<IpNet, BenchError> {
    let length = length(random, &V6_LENGTHS);
    // 2000::/3, global unicast.
    let address = random.random::<u128>() >> 3 | 1 << 125;
    let net = Ipv6Net::new(Ipv6Addr::from_bits(address), length).map_err(BenchError::failed)?;
    Ok(IpNet::V6(net.trunc()))
}

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

/// Resident memory of this process, bytes.
fn resident() -> Result<f64, BenchError> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(BenchError::failed)?;
    let pages = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    let pages: f64 = pages.ok_or_else(|| BenchError::failed("/proc/self/statm"))?;
    Ok(pages * 4096.0)
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
    let before = resident()?;
    let (mut writer, factory) = FibWriter::new();
    for id in 1..=NEXTHOPS {
        let id = NexthopId::new(id).ok_or_else(missing)?;
        let gateway = None;
        let nexthop = Nexthop { interface, gateway };
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
        (resident()? - before) / routes,
        "bytes",
    );
    Ok(())
}
