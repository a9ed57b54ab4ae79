//! Policy rules that tie a tap to its VPC's table.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use nix::errno::Errno;

use super::socket::{NetlinkSocket, SocketError};
use super::wire::{self, Request, address, attributes, family_of, u8_at, u32_at};

/// Who added a rule, as `ip rule` shows it (`RTPROT_*`; not taken by any known daemon).
pub const RULE_PROTOCOL: u8 = 83;
/// Priority of the rules by device, before main's 32766.
const DEVICE_PRIORITY: u32 = 1000;
/// Priority of the rules by source address.
const SOURCE_PRIORITY: u32 = 1001;

const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_PROHIBIT: u8 = 8;

/// A rule of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    family: u8,
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
    fn new(family: u8, table: Option<u32>, priority: u32) -> Self {
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
    pub(crate) fn input(family: u8, device: String, table: u32) -> Self {
        Self {
            input: Some(device),
            ..Self::new(family, Some(table), DEVICE_PRIORITY)
        }
    }

    /// What is bound to a device.
    pub(crate) fn output(family: u8, device: String, table: u32) -> Self {
        Self {
            output: Some(device),
            ..Self::new(family, Some(table), DEVICE_PRIORITY)
        }
    }

    /// What comes from an address. Without a table it goes nowhere.
    pub(crate) fn source(source: IpAddr, table: Option<u32>) -> Self {
        Self {
            source: Some(source),
            ..Self::new(family_of(source), table, SOURCE_PRIORITY)
        }
    }

    /// Adds it; an identical one is as good.
    pub(crate) async fn add(&self, socket: &mut NetlinkSocket) -> Result<(), SocketError> {
        let flags = wire::NLM_F_ACK | wire::NLM_F_CREATE | wire::NLM_F_EXCL;
        match socket.request(self.request(wire::RTM_NEWRULE, flags)).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            Err(error) if self.family == wire::AF_INET6 && is_absent(error.errno()) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, socket: &mut NetlinkSocket) -> Result<(), SocketError> {
        let request = self.request(wire::RTM_DELRULE, wire::NLM_F_ACK);
        match socket.request(request).await {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn request(&self, kind: u16, flags: u16) -> Request {
        let mut fixed = [0; 12];
        fixed[0] = self.family;
        fixed[2] = match self.source {
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) => 128,
            None => 0,
        };
        fixed[7] = match self.table {
            Some(_) => FR_ACT_TO_TBL,
            None => FR_ACT_PROHIBIT,
        };
        let mut request = Request::new(kind, flags, &fixed)
            .u32(FRA_TABLE, self.table.unwrap_or(0))
            .u32(FRA_PRIORITY, self.priority)
            .attribute(FRA_PROTOCOL, &[RULE_PROTOCOL]);
        if let Some(device) = &self.input {
            request = request.name(FRA_IIFNAME, device);
        }
        if let Some(device) = &self.output {
            request = request.name(FRA_OIFNAME, device);
        }
        if let Some(source) = self.source {
            request = request.ip(FRA_SRC, source);
        }
        request
    }

    /// Reads one of ours; `None`: somebody else's.
    fn parse(payload: &[u8]) -> Option<Self> {
        let to_table = u8_at(payload, 7)? == FR_ACT_TO_TBL;
        let table = to_table.then_some(u8_at(payload, 4)?.into());
        let mut rule = Self::new(u8_at(payload, 0)?, table, 0);
        let mut ours = false;
        let name = |value: &[u8]| {
            let text = String::from_utf8_lossy(value);
            Some(text.trim_end_matches('\0').to_owned())
        };
        for (kind, value) in attributes(payload.get(12..)?) {
            match kind {
                FRA_IIFNAME => rule.input = name(value),
                FRA_OIFNAME => rule.output = name(value),
                FRA_SRC => rule.source = address(value),
                FRA_TABLE if to_table => rule.table = u32_at(value, 0),
                FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
                FRA_PROTOCOL => ours = value.first() == Some(&RULE_PROTOCOL),
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

/// Removes our rules of these devices and of devices that are gone. A rule by source has no
/// device: it goes when its table serves a device of ours, or none at all any more.
pub(crate) async fn remove_leftovers(
    socket: &mut NetlinkSocket,
    devices: &BTreeSet<&str>,
) -> Result<(), SocketError> {
    let mut rules = Vec::new();
    for family in [wire::AF_INET, wire::AF_INET6] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        let request = Request::new(wire::RTM_GETRULE, wire::NLM_F_DUMP, &fixed);
        let collect = |frame: &wire::Frame<'_>| {
            rules.extend(Rule::parse(frame.payload));
        };
        match socket.dump(request, collect).await {
            Err(error) if is_absent(error.errno()) => {}
            other => {
                other?;
            }
        }
    }
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
        rule.remove(socket).await?;
    }
    Ok(())
}
