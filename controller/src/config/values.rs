//! Values of the document that have a syntax of their own.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// Ports from `first` to `last`, both included; neither is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// How many, 1 to 65535.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether both have a port in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| match part.trim().parse::<u16>() {
            Ok(0) => Err("port 0 cannot be used".to_owned()),
            Ok(port) => Ok(port),
            Err(_) => Err(format!(
                "{text:?} is not a port (1 to 65535) or a range first-last"
            )),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!(
                "the range {text} ends before it begins: write {last}-{first}"
            ));
        }
        Ok(Self { first, last })
    }
}

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The lowest.
    pub first: IpAddr,
    /// The highest.
    pub last: IpAddr,
}

impl AddressRange {
    /// A single address.
    pub const fn single(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// How many; saturates.
    pub fn count(&self) -> u128 {
        number(self.last)
            .saturating_sub(number(self.first))
            .saturating_add(1)
    }

    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && self.first <= other.last
            && other.first <= self.last
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.overlaps(&Self::single(address))
    }

    /// Each address; the caller has limited [`Self::count`].
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |value| {
            if v4 {
                IpAddr::from((value as u32).to_be_bytes())
            } else {
                IpAddr::from(value.to_be_bytes())
            }
        })
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!("{text:?} is not an IP address, a range first-last or a prefix address/length")
        };
        if text.contains('/') {
            let net: IpNet = text.trim().parse().map_err(|_| error())?;
            if net.addr() != net.network() {
                return Err(host_bits(net));
            }
            return Ok(Self {
                first: net.network(),
                last: net.broadcast(),
            });
        }
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| error());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!("the range {text} mixes IPv4 and IPv6"));
        }
        if first > last {
            return Err(format!(
                "the range {text} ends before it begins: write {last}-{first}"
            ));
        }
        Ok(Self { first, last })
    }
}

/// A prefix without bits behind its length.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = interface_prefix(text)?;
    if net.addr() != net.network() {
        return Err(host_bits(net));
    }
    Ok(net)
}

/// An address with the length of its link's prefix.
pub(super) fn interface_prefix(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a prefix: write address/length, like 10.0.0.1/24"))
}

fn host_bits(net: IpNet) -> String {
    format!("{net} has bits behind its length: write {}", net.trunc())
}

/// An IP address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address"))
}

/// `2h4m`, `30s`, `500ms`; not zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(value) if value.is_zero() => Err("0 is no time: write at least 1s".to_owned()),
        Ok(value) => Ok(value),
        Err(error) => Err(format!(
            "{text:?} is not a duration ({error}): write it like 2h4m or 30s"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        let range: PortRange = "1024-65535".parse().unwrap();
        assert_eq!((range.first, range.last, range.count()), (1024, 65535, 64512));
        assert_eq!("80".parse::<PortRange>().unwrap().to_string(), "80");
        for bad in ["", "0", "0-80", "65536", "http", "80-", "90-80", "-1"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn address_ranges() {
        let range: AddressRange = "203.0.113.16-203.0.113.20".parse().unwrap();
        assert_eq!(range.count(), 5);
        assert_eq!(range.iter().last(), Some("203.0.113.20".parse().unwrap()));
        assert!(range.contains("203.0.113.18".parse().unwrap()));
        assert!(!range.contains("203.0.113.21".parse().unwrap()));
        let prefix: AddressRange = "2001:db8::/126".parse().unwrap();
        assert_eq!(prefix.iter().count(), 4);
        for bad in [
            "",
            "203.0.113",
            "203.0.113.2-203.0.113.1",
            "203.0.113.1-2001:db8::1",
            "203.0.113.1/24",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        assert_eq!("::/0".parse::<AddressRange>().unwrap().count(), u128::MAX);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("2h4m").unwrap(), Duration::from_secs(7440));
        assert!(duration("0s").is_err());
        assert!(duration("soon").is_err());
    }
}
