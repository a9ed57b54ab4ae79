//! What listings are narrowed by: names that exist, words of closed sets, prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use shunt_api::v1;
use shunt_p4::{InterfaceId, VpcId};
use tonic::Status;

use super::convert::quoted;
use super::flows::{prefix, vpc_named};
use super::trace::interface_named;
use crate::config::Config;
use crate::kernel::{NeighborView, RouteView};
use crate::switch::Switches;

/// As [`v1::Route`] has them.
const ROUTE_KINDS: [&str; 4] = ["unicast", "local", "blackhole", "unreachable"];
/// As [`v1::NatRule`] has them.
const NAT_KINDS: [&str; 4] = ["masquerade", "static", "nptv6", "port_forward"];
/// The kernel's states of neighbours (NUD_*).
const NEIGHBOR_STATES: [&str; 9] = [
    "incomplete",
    "reachable",
    "stale",
    "delay",
    "probe",
    "failed",
    "noarp",
    "permanent",
    "none",
];
const INTERFACE_STATES: [&str; 2] = ["up", "down"];

/// One of some words; none for no word.
fn word(what: &str, asked: &str, known: &[&'static str]) -> Result<Option<&'static str>, Status> {
    if asked.is_empty() {
        return Ok(None);
    }
    let found = known.iter().find(|word| **word == asked);
    found.copied().map(Some).ok_or_else(|| {
        Status::invalid_argument(format!(
            "there is no {what} {} (there are: {})",
            quoted(asked),
            known.join(", ")
        ))
    })
}

fn interface(config: &Config, name: &str) -> Result<Option<InterfaceId>, Status> {
    match name {
        "" => Ok(None),
        name => Ok(Some(interface_named(config, name)?.id)),
    }
}

/// Which routes.
#[derive(Debug)]
pub(super) struct Routes {
    vpc: Option<VpcId>,
    interface: Option<InterfaceId>,
    within: Option<IpNet>,
    covers: Option<IpAddr>,
    kind: Option<&'static str>,
    protocol: String,
}

impl Routes {
    pub(super) fn asked(config: &Config, asked: v1::ListRoutesRequest) -> Result<Self, Status> {
        let covers = match asked.covers.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                Status::invalid_argument(format!("{} is no address: write 10.0.0.1", quoted(text)))
            })?),
        };
        Ok(Self {
            vpc: vpc_named(config, &asked.vpc)?,
            interface: interface(config, &asked.interface)?,
            within: prefix(&asked.prefix)?,
            covers,
            kind: word("kind of route", &asked.kind, &ROUTE_KINDS)?,
            protocol: asked.protocol,
        })
    }

    /// Whether it is one of them, but for its kind, which is known when it is in words.
    pub(super) fn wants(&self, route: &RouteView) -> bool {
        let over = |id: InterfaceId| route.paths.iter().any(|path| path.interface == Some(id));
        self.vpc.is_none_or(|vpc| route.vpc == vpc)
            && self.interface.is_none_or(over)
            && self.within.is_none_or(|net| net.contains(&route.prefix))
            && self.covers.is_none_or(|ip| route.prefix.contains(&ip))
            && (self.protocol.is_empty() || self.protocol == route.protocol)
    }

    pub(super) fn wants_kind(&self, kind: &str) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }
}

/// Which neighbours.
#[derive(Debug)]
pub(super) struct Neighbors {
    interface: Option<InterfaceId>,
    vpc: Option<VpcId>,
    within: Option<IpNet>,
    state: Option<&'static str>,
}

impl Neighbors {
    pub(super) fn asked(config: &Config, asked: &v1::ListNeighborsRequest) -> Result<Self, Status> {
        Ok(Self {
            interface: interface(config, &asked.interface)?,
            vpc: vpc_named(config, &asked.vpc)?,
            within: prefix(&asked.prefix)?,
            state: word("state of neighbours", &asked.state, &NEIGHBOR_STATES)?,
        })
    }

    pub(super) fn wants(&self, config: &Config, neighbor: &NeighborView) -> bool {
        let of_vpc = |vpc| {
            let interface = config.interface(neighbor.interface);
            interface.is_some_and(|found| found.interface.vpc == vpc)
        };
        self.interface.is_none_or(|id| neighbor.interface == id)
            && self.vpc.is_none_or(of_vpc)
            && self
                .within
                .is_none_or(|net| net.contains(&neighbor.address))
            && self
                .state
                .is_none_or(|state| neighbor.state.eq_ignore_ascii_case(state))
    }
}

/// Keeps the interfaces that are asked for.
pub(super) fn interfaces(
    config: &Config,
    switches: &Switches,
    asked: &v1::ListInterfacesRequest,
    all: &mut Vec<v1::Interface>,
) -> Result<(), Status> {
    interface(config, &asked.interface)?;
    vpc_named(config, &asked.vpc)?;
    switches
        .named(&asked.switch)
        .map_err(super::switches::unknown)?;
    let state = word("state of interfaces", &asked.state, &INTERFACE_STATES)?;
    let is = |wanted: &str, name: &str| wanted.is_empty() || wanted == name;
    all.retain(|found| {
        is(&asked.interface, &found.name)
            && is(&asked.vpc, &found.vpc)
            && is(&asked.switch, &found.switch)
            && state.is_none_or(|state| (state == "up") == (found.state == "up"))
    });
    Ok(())
}

/// Keeps the pools that are asked for.
pub(super) fn pools(
    config: &Config,
    asked: &v1::ListNatRequest,
    all: &mut Vec<v1::NatPool>,
) -> Result<(), Status> {
    vpc_named(config, &asked.vpc)?;
    let rules = &config.policy.masquerades;
    if !asked.rule.is_empty() && rules.iter().all(|rule| rule.name != asked.rule) {
        let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
        return Err(Status::not_found(format!(
            "there is no masquerade named {} (known: {})",
            quoted(&asked.rule),
            names.join(", ")
        )));
    }
    all.retain(|pool| {
        (asked.rule.is_empty() || pool.rule == asked.rule)
            && (asked.vpc.is_empty() || [&pool.vpc, &pool.to].contains(&&asked.vpc))
    });
    Ok(())
}

/// Keeps the rules that are asked for.
pub(super) fn rules(
    config: &Config,
    asked: &v1::ListNatRulesRequest,
    all: &mut Vec<v1::NatRule>,
) -> Result<(), Status> {
    vpc_named(config, &asked.vpc)?;
    let kind = word("kind of rule", &asked.kind, &NAT_KINDS)?;
    all.retain(|rule| {
        kind.is_none_or(|kind| rule.kind == kind)
            && (asked.vpc.is_empty() || [&rule.vpc, &rule.to].contains(&&asked.vpc))
    });
    Ok(())
}
