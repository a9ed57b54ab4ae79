//! The state of this host's network devices, as of now.

use std::collections::HashMap;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Which devices there are, and whether each was set up (`ip link set … up`).
#[derive(Debug)]
pub(super) struct Devices(HashMap<String, bool>);

impl Devices {
    /// Asks the kernel. Where it does not answer there are none.
    pub(super) fn now() -> Self {
        let found = getifaddrs().into_iter().flatten();
        Self(
            found
                .map(|entry| {
                    let up = entry.flags.contains(InterfaceFlags::IFF_UP);
                    (entry.interface_name, up)
                })
                .collect(),
        )
    }

    /// What is wrong with a device.
    pub(super) fn fault(&self, device: &str) -> Option<&'static str> {
        match self.0.get(device) {
            Some(true) => None,
            Some(false) => Some("down"),
            None => Some("gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_up_down_or_gone() {
        let devices = Devices(HashMap::from([("a".into(), true), ("b".into(), false)]));
        let faults = ["a", "b", "c"].map(|device| devices.fault(device));
        assert_eq!(faults, [None, Some("down"), Some("gone")]);
    }
}
