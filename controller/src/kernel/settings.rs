//! Settings of a tap under `/proc/sys/net/{ipv4,ipv6}/conf`.
//!
//! VPCs may share addresses, so a packet's source proves nothing about its tap; and the gateway
//! takes no advice from routers. The kernel tells of changes of few of them (`RTM_NEWNETCONF`), and
//! forgets those of IPv6 when a small MTU takes IPv6 off the device: they are looked at by timer too.

use std::io::ErrorKind;

const SETTINGS: [(&str, &str, &str); 9] = [
    ("ipv4", "rp_filter", "0"),
    ("ipv4", "accept_local", "1"),
    ("ipv4", "arp_ignore", "1"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "autoconf", "0"),
    ("ipv6", "router_solicitations", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "accept_dad", "0"),
];

/// What [`set`] found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Settings that were otherwise and are now as they should be.
    pub(crate) changed: Vec<&'static str>,
    /// Those that cannot be set, and why.
    pub(crate) warnings: Vec<String>,
}

/// Sets what is not as it should be.
pub(crate) fn set(tap: &str) -> Found {
    let mut found = Found::default();
    for (family, name, value) in SETTINGS {
        let path = format!("/proc/sys/net/{family}/conf/{tap}/{name}");
        let already = |text: String| text.trim() == value;
        if std::fs::read_to_string(&path).is_ok_and(already) {
            continue;
        }
        match std::fs::write(&path, value) {
            Ok(()) => found.changed.push(name),
            // A kernel without IPv6, or a tap that is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => found
                .warnings
                .push(format!("tap {tap}: cannot set {path} to {value}: {error}")),
        }
    }
    found
}

/// The larger of a device's and everybody's `rp_filter` counts.
pub(crate) fn strict_everywhere() -> Option<String> {
    let path = "/proc/sys/net/ipv4/conf/all/rp_filter";
    let strict = std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    strict.then(|| {
        format!("{path} is 1: the kernel drops packets to the gateway whose source it would route elsewhere; set it to 0 or 2 when VPCs share addresses")
    })
}
