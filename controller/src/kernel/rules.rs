//! Policy rules that tie a tap to its VPC's table.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::IpVersion;

use super::requests::{Requests, collect, done};
use super::socket::SocketError;

/// Who added a rule, as `ip rule` shows it (`RTPROT_*`; not taken by any known daemon).
pub const RULE_PROTOCOL: u8 = 83;
/// Priority of the rules by device, before main's 32766.
const DEVICE_PRIORITY: u32 = 1000;
/// Priority of the rules by source address.
const SOURCE_PRIORITY: u32 = 1001;

/// A rule of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    family: AddressFamily,
    input: Option<String>,
    output: Option<String>,
    source: Option<IpAddr>,
    /// None: whoever gets here has no route (prohibit).
    table: Option<u32>,
    priority: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(device) = &self.input {
            write!(f, "iif {device} ")?;
        }
        if let Some(device) = &self.output {
            write!(f, "oif {device} ")?;
        }
        if let Some(source) = &self.source {
            write!(f, "from {source} ")?;
        }
        match self.table {
            Some(table) => write!(f, "lookup {table}"),
            None => f.write_str("prohibit"),
        }
    }
}

impl Rule {
    fn new(family: AddressFamily, table: Option<u32>, priority: u32) -> Self {
        Self {
            family,
            input: None,
            output: None,
            source: None,
            table,
            priority,
        }
    }

    /// What arrives on a device.
    pub(crate) fn input(family: AddressFamily, device: String, table: u32) -> Self {
        Self {
            input: Some(device),
            ..Self::new(family, Some(table), DEVICE_PRIORITY)
        }
    }

    /// What is bound to a device.
    pub(crate) fn output(family: AddressFamily, device: String, table: u32) -> Self {
        Self {
            output: Some(device),
            ..Self::new(family, Some(table), DEVICE_PRIORITY)
        }
    }

    /// What comes from an address. Without a table it goes nowhere.
    pub(crate) fn source(source: IpAddr, table: Option<u32>) -> Self {
        let family = match source {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        Self {
            source: Some(source),
            ..Self::new(family, table, SOURCE_PRIORITY)
        }
    }

    /// The device that it is for.
    pub(super) fn device(&self) -> Option<&str> {
        self.input.as_deref().or(self.output.as_deref())
    }

    /// The table that it leads to.
    pub(super) const fn table(&self) -> Option<u32> {
        self.table
    }

    /// Adds it; an identical one is as good.
    pub(crate) async fn add(&self, requests: &Requests) -> Result<(), SocketError> {
        let mut request = requests.handle().rule().add();
        *request.message_mut() = self.message();
        match done(request.execute()).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            Err(error) if self.family == AddressFamily::Inet6 && is_absent(error.errno()) => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn remove(&self, requests: &Requests) -> Result<(), SocketError> {
        let request = requests.handle().rule().del(self.message());
        match done(request.execute()).await {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// The builder has no setter for the protocol, and deleting has no builder.
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family;
        message.header.action = match self.table {
            Some(_) => RuleAction::ToTable,
            None => RuleAction::Prohibit,
        };
        message.attributes = vec![
            RuleAttribute::Table(self.table.unwrap_or(0)),
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Protocol(RouteProtocol::from(RULE_PROTOCOL)),
        ];
        let attributes = &mut message.attributes;
        attributes.extend(self.input.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.output.clone().map(RuleAttribute::Oifname));
        if let Some(source) = self.source {
            message.header.src_len = if source.is_ipv4() { 32 } else { 128 };
            attributes.push(RuleAttribute::Source(source));
        }
        message
    }

    /// Reads one of ours; `None`: somebody else's.
    fn parse(message: RuleMessage) -> Option<Self> {
        let to_table = message.header.action == RuleAction::ToTable;
        let table = to_table.then_some(message.header.table.into());
        let mut rule = Self::new(message.header.family, table, 0);
        let mut ours = false;
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Iifname(name) => rule.input = Some(name),
                RuleAttribute::Oifname(name) => rule.output = Some(name),
                RuleAttribute::Source(source) => rule.source = Some(source),
                RuleAttribute::Table(table) if to_table => rule.table = Some(table),
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Protocol(protocol) => ours = u8::from(protocol) == RULE_PROTOCOL,
                _ => {}
            }
        }
        ours.then_some(rule)
    }
}

/// How a kernel without IPv6 answers.
fn is_absent(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP))
}

/// Every rule in the kernel that is ours.
pub(super) async fn ours(requests: &Requests) -> Result<Vec<Rule>, SocketError> {
    let mut rules = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        match collect(requests.handle().rule().get(version).execute()).await {
            Err(error) if is_absent(error.errno()) => {}
            other => rules.extend(other?.into_iter().filter_map(Rule::parse)),
        }
    }
    Ok(rules)
}

/// Adds those of `wanted` that are not there; returns how many that were.
pub(crate) async fn restore(requests: &Requests, wanted: &[Rule]) -> Result<usize, SocketError> {
    let there = ours(requests).await?;
    let mut added = 0;
    for rule in wanted.iter().filter(|rule| !there.contains(rule)) {
        rule.add(requests).await?;
        tracing::debug!(%rule, "added again");
        added += 1;
    }
    Ok(added)
}

/// Removes our rules of these devices and of devices that are gone. A rule by source has no
/// device: it goes when its table serves a device of ours, or none at all any more.
pub(crate) async fn remove_leftovers(
    requests: &Requests,
    devices: &BTreeSet<&str>,
) -> Result<(), SocketError> {
    let rules = ours(requests).await?;
    let gone = |device: &String| {
        devices.contains(device.as_str()) || nix::net::if_::if_nametoindex(device.as_str()).is_err()
    };
    let (by_source, by_device): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|rule| rule.source.is_some());
    let (leftover, kept): (Vec<_>, Vec<_>) = by_device.into_iter().partition(|rule| {
        let device = rule.input.as_ref().or(rule.output.as_ref());
        device.is_none_or(gone)
    });
    let kept: BTreeSet<u32> = kept.iter().filter_map(|rule| rule.table).collect();
    let unused = |rule: &&Rule| rule.table.is_none_or(|table| !kept.contains(&table));
    let by_source = by_source.iter().filter(unused);
    for rule in leftover.iter().chain(by_source) {
        rule.remove(requests).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_back_and_a_foreign_one_is_left_alone() {
        let shared: IpAddr = "2001:db8::1".parse().unwrap();
        for rule in [
            Rule::input(AddressFamily::Inet, "sh-red".into(), 101),
            Rule::output(AddressFamily::Inet6, "sh-red".into(), 70_000),
            Rule::source(shared, None),
            Rule::source("10.0.0.1".parse().unwrap(), Some(101)),
        ] {
            assert_eq!(Rule::parse(rule.message()).as_ref(), Some(&rule));
            let mut foreign = rule.message();
            for attribute in &mut foreign.attributes {
                if let RuleAttribute::Protocol(protocol) = attribute {
                    *protocol = RouteProtocol::Static;
                }
            }
            assert_eq!(Rule::parse(foreign), None);
        }
        // The one that the kernel adds with its first VRF device, at the priority of ours.
        let mut of_vrfs = RuleMessage::default();
        of_vrfs.header.family = AddressFamily::Inet;
        of_vrfs.header.action = RuleAction::ToTable;
        of_vrfs.attributes = vec![
            RuleAttribute::Priority(DEVICE_PRIORITY),
            RuleAttribute::L3MDev(true),
            RuleAttribute::Protocol(RouteProtocol::Kernel),
        ];
        assert_eq!(Rule::parse(of_vrfs), None);
    }
}
