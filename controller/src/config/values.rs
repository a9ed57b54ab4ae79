//! Values of the document that have a syntax of their own.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use shunt_slowpath::policy::{AddressRange, PortRange};

/// `8080`, `8000-8010`: ports, both ends included.
pub(super) fn port_range(text: &str) -> Result<PortRange, String> {
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
    PortRange::new(first, last)
        .ok_or_else(|| format!("the range {text} ends before it begins: write {last}-{first}"))
}

/// Whether both have a port in common.
pub(super) const fn ports_overlap(one: PortRange, other: PortRange) -> bool {
    one.first() <= other.last() && other.first() <= one.last()
}

/// An address, `first-last` with both ends included, or a prefix.
pub(super) fn address_range(text: &str) -> Result<AddressRange, String> {
    let error =
        || format!("{text:?} is not an IP address, a range first-last or a prefix address/length");
    let (first, last) = if text.contains('/') {
        let net: IpNet = text.trim().parse().map_err(|_| error())?;
        if net.addr() != net.network() {
            return Err(host_bits(net));
        }
        (net.network(), net.broadcast())
    } else {
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| error());
        match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        }
    };
    if first.is_ipv4() != last.is_ipv4() {
        return Err(format!("the range {text} mixes IPv4 and IPv6"));
    }
    AddressRange::new(first, last)
        .ok_or_else(|| format!("the range {text} ends before it begins: write {last}-{first}"))
}

/// Whether both have an address in common.
pub(super) fn addresses_overlap(one: &AddressRange, other: &AddressRange) -> bool {
    one.contains(other.first()) || other.contains(one.first())
}

/// Each address of a range; the caller has limited its count.
pub(super) fn addresses_of(range: &AddressRange) -> impl Iterator<Item = IpAddr> + use<> {
    let range = *range;
    (0..range.count()).map_while(move |n| range.nth(n))
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
        let range = port_range("1024-65535").unwrap();
        assert_eq!((range.first(), range.last()), (1024, 65535));
        assert_eq!(port_range("80").unwrap().to_string(), "80");
        for bad in ["", "0", "0-80", "65536", "http", "80-", "90-80", "-1"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn address_ranges() {
        let range = address_range("203.0.113.16-203.0.113.20").unwrap();
        let last = addresses_of(&range).last();
        assert_eq!(last, Some("203.0.113.20".parse().unwrap()));
        assert_eq!(addresses_of(&range).count(), 5);
        let prefix = address_range("2001:db8::/126").unwrap();
        assert_eq!(addresses_of(&prefix).count(), 4);
        for bad in [
            "",
            "203.0.113",
            "203.0.113.2-203.0.113.1",
            "203.0.113.1-2001:db8::1",
            "203.0.113.1/24",
        ] {
            assert!(address_range(bad).is_err(), "{bad}");
        }
        let half = address_range("203.0.113.18-203.0.113.30").unwrap();
        assert!(addresses_overlap(&range, &half) && addresses_overlap(&half, &range));
        assert!(!addresses_overlap(&range, &prefix));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("2h4m").unwrap(), Duration::from_secs(7440));
        assert!(duration("0s").is_err());
        assert!(duration("soon").is_err());
    }
}
