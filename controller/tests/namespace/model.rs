//! What a consumer of the mirror's batches holds, and what `ip -j` says it should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde_json::Value;
use shunt_controller::kernel::{Batch, TapConfig};
use shunt_p4::{InterfaceId, MacAddr, NetworkOp, Nexthop, NexthopId, Route, VpcId};

use super::ip;

/// Where a prefix leads, without numbers of next hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Paths(BTreeMap<Nexthop, u32>),
    Local,
    Blackhole,
    Unreachable,
}

pub type Ways = BTreeMap<(VpcId, IpNet), Way>;
pub type Macs = BTreeMap<(InterfaceId, IpAddr), MacAddr>;

/// A consumer: applies each change, and checks that it may be applied at that point.
#[derive(Debug, Default)]
pub struct Model {
    nexthops: BTreeMap<NexthopId, Nexthop>,
    routes: BTreeMap<(VpcId, IpNet), Route>,
    pub macs: Macs,
    pub complete: bool,
    pub batches: usize,
}

impl Model {
    pub fn apply(&mut self, batch: Batch) {
        self.batches += 1;
        self.complete = batch.complete;
        for op in batch.ops {
            match op {
                NetworkOp::SetNexthop(id, nexthop) => {
                    assert_eq!(self.nexthops.insert(id, nexthop), None, "{id} is in use");
                }
                NetworkOp::RemoveNexthop(id) => {
                    assert!(self.nexthops.remove(&id).is_some(), "{id} is not there");
                    for (key, route) in &self.routes {
                        if let Route::Nexthops(paths) = route {
                            assert!(paths.iter().all(|path| path.0 != id), "{key:?} uses {id}");
                        }
                    }
                }
                NetworkOp::SetRoute(vpc, prefix, route) => {
                    if let Route::Nexthops(paths) = &route {
                        assert!(!paths.is_empty());
                        for (id, weight) in paths {
                            assert!(
                                self.nexthops.contains_key(id),
                                "{prefix}: {id} is not there"
                            );
                            assert!(*weight > 0);
                        }
                    }
                    let before = self.routes.insert((vpc, prefix), route.clone());
                    assert_ne!(before, Some(route), "{prefix}: nothing changed");
                }
                NetworkOp::RemoveRoute(vpc, prefix) => {
                    assert!(
                        self.routes.remove(&(vpc, prefix)).is_some(),
                        "{prefix} is not there"
                    );
                }
                NetworkOp::SetNeighbor(interface, address, mac) => {
                    assert_ne!(self.macs.insert((interface, address), mac), Some(mac));
                }
                NetworkOp::RemoveNeighbor(interface, address) => {
                    assert!(self.macs.remove(&(interface, address)).is_some());
                }
                other => panic!("not the mirror's: {other:?}"),
            }
        }
    }

    /// Its routes; checks that no next hop is left over.
    pub fn ways(&self) -> Ways {
        let mut used = BTreeSet::new();
        let ways = self.routes.iter().map(|(key, route)| {
            let way = match route {
                Route::Local => Way::Local,
                Route::Blackhole => Way::Blackhole,
                Route::Unreachable => Way::Unreachable,
                Route::Nexthops(paths) => Way::Paths(
                    paths
                        .iter()
                        .map(|(id, weight)| {
                            used.insert(*id);
                            (self.nexthops[id], u32::from(*weight))
                        })
                        .collect(),
                ),
            };
            (*key, way)
        });
        let ways = ways.collect();
        assert_eq!(
            used,
            self.nexthops.keys().copied().collect(),
            "next hops left over"
        );
        ways
    }
}

fn prefix(text: &str, v6: bool) -> IpNet {
    match text {
        "default" if v6 => "::/0".parse().unwrap(),
        "default" => "0.0.0.0/0".parse().unwrap(),
        _ => text
            .parse()
            .unwrap_or_else(|_| IpNet::from(text.parse::<IpAddr>().unwrap())),
    }
}

fn has_flag(value: &Value, flag: &str) -> bool {
    let flags = value["flags"].as_array().into_iter().flatten();
    flags.into_iter().any(|have| have == flag)
}

/// What `ip -j` says now, reduced as the kernel would choose.
pub fn kernel_ways(taps: &[TapConfig]) -> Ways {
    let links: Value = serde_json::from_str(&ip("-j link show")).unwrap();
    let up = |device: &str| {
        let mut links = links.as_array().unwrap().iter();
        links.any(|link| link["ifname"] == device && has_flag(link, "UP"))
    };
    let tables: BTreeSet<(VpcId, u32)> = taps
        .iter()
        .map(|tap| (tap.interface.vpc, tap.table))
        .collect();
    let mut ways = Ways::new();
    for (v6, family) in [(false, "-4"), (true, "-6")] {
        for &(vpc, table) in &tables {
            let Ok(text) = super::try_ip(&format!("{family} -j -d route show table {table}"))
            else {
                continue; // nothing was ever in it
            };
            let routes: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            let mut by_prefix: BTreeMap<IpNet, Vec<&Value>> = BTreeMap::new();
            for route in &routes {
                let net = prefix(route["dst"].as_str().unwrap(), v6);
                by_prefix.entry(net).or_default().push(route);
            }
            for (net, mut list) in by_prefix {
                list.sort_by_key(|route| route["metric"].as_u64().unwrap_or(0));
                let mut found = None;
                for route in list {
                    match way(route, taps, &up) {
                        Some((way, true)) => {
                            found = Some(way);
                            break;
                        }
                        Some((way, false)) => found = found.or(Some(way)),
                        None => {}
                    }
                }
                ways.extend(found.map(|way| ((vpc, net), way)));
            }
        }
        let text = ip(&format!("{family} -j -d route show table local"));
        let routes: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
        for route in &routes {
            let ours = ["local", "broadcast", "anycast"].contains(&route["type"].as_str().unwrap());
            let tap = taps.iter().find(|tap| route["dev"] == tap.tap.as_str());
            if let (true, Some(tap)) = (ours, tap) {
                let net = prefix(route["dst"].as_str().unwrap(), v6);
                ways.insert((tap.interface.vpc, net), Way::Local);
            }
        }
    }
    ways
}

/// What a route lets through, as `ip -j` tells it.
pub fn limit(route: &Value) -> Option<NonZeroU16> {
    let metrics = route["metrics"].as_array().into_iter().flatten();
    let mut limits = metrics.filter_map(|metric| metric["mtu"].as_u64());
    NonZeroU16::new(u16::try_from(limits.next()?).unwrap())
}

/// Where one route leads, and whether the kernel would use it.
fn way(route: &Value, taps: &[TapConfig], up: &dyn Fn(&str) -> bool) -> Option<(Way, bool)> {
    match route["type"].as_str().unwrap() {
        "unicast" => {}
        "local" | "broadcast" | "anycast" => return Some((Way::Local, true)),
        "blackhole" => return Some((Way::Blackhole, true)),
        "unreachable" | "prohibit" | "throw" => return Some((Way::Unreachable, true)),
        _ => return None,
    }
    // A route through a blackhole object has no device.
    if route["nh_info"]["blackhole"].as_bool() == Some(true)
        || route["nh_info"].get("blackhole").is_some()
    {
        return Some((Way::Blackhole, true));
    }
    let single = std::slice::from_ref(route);
    let hops = route["nexthops"].as_array().map_or(single, Vec::as_slice);
    let mut paths: BTreeMap<Nexthop, u32> = BTreeMap::new();
    let mut alive = false;
    for hop in hops {
        let device = hop["dev"].as_str().unwrap_or_default();
        if !up(device) || has_flag(hop, "dead") || has_flag(hop, "linkdown") {
            continue;
        }
        alive = true;
        let Some(tap) = taps.iter().find(|tap| tap.tap == device) else {
            continue;
        };
        let gateway = hop["gateway"].as_str().or(hop["via"]["host"].as_str());
        let nexthop = Nexthop {
            interface: tap.interface.id,
            gateway: gateway.map(|text| text.parse().unwrap()),
            mtu: limit(route),
        };
        let weight = hop["weight"].as_u64().unwrap_or(1);
        *paths.entry(nexthop).or_default() += u32::try_from(weight).unwrap();
    }
    if paths.is_empty() {
        return Some((Way::Unreachable, alive));
    }
    if paths.len() == 1 {
        paths.values_mut().for_each(|weight| *weight = 1);
    }
    Some((Way::Paths(paths), true))
}

/// What `ip -j neigh` says now.
pub fn kernel_macs(taps: &[TapConfig]) -> Macs {
    let neighbors: Vec<Value> = serde_json::from_str(&ip("-j neigh show nud all")).unwrap();
    let mut macs = Macs::new();
    for neighbor in &neighbors {
        let tap = taps.iter().find(|tap| neighbor["dev"] == tap.tap.as_str());
        let states = neighbor["state"].as_array().unwrap();
        let usable = states.iter().any(|state| {
            let state = state.as_str().unwrap();
            ["REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "NOARP"].contains(&state)
        });
        let address: IpAddr = neighbor["dst"].as_str().unwrap().parse().unwrap();
        let mac = neighbor["lladdr"]
            .as_str()
            .map(|text| text.parse::<MacAddr>().unwrap())
            .filter(|mac| *mac != MacAddr::default() && !mac.is_multicast());
        if let (Some(tap), Some(mac), true) = (tap, mac, usable && !address.is_multicast()) {
            macs.insert((tap.interface.id, address), mac);
        }
    }
    macs
}
