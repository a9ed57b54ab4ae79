//! The switches.

use std::net::SocketAddr;

use shunt_p4::{MAX_SWITCHES, SwitchPort};

use super::super::document::{Document, SwitchSection};
use super::super::fault::Faults;
use super::super::model::Switch;
use super::{Unique, device_name, name, number};

/// In the order of the document; none where it has faults of its own.
pub(super) fn switches(document: &Document, faults: &mut Faults) -> Vec<Option<Switch>> {
    let sections = document.switch.as_slice();
    if sections.is_empty() {
        let message = "no switch is configured: add a [[switch]] section";
        faults.add("switch", message);
    }
    if sections.len() > MAX_SWITCHES {
        faults.add(
            "switch",
            format!(
                "{} switches are configured: {MAX_SWITCHES} at most",
                sections.len()
            ),
        );
    }
    if sections.len() > 1
        && let Some(slow_path) = &document.slow_path
        && slow_path.device.is_some()
    {
        faults.add(
            "slow_path.device",
            "there are several switches: each has its own (slow_path_device)",
        );
    }
    let mut names = Unique::new("the name");
    let mut servers = Unique::new("");
    let mut devices = Unique::new("the device");
    let each = sections.iter().enumerate().map(|(index, section)| {
        let at = |field: &str| format!("switch[{index}].{field}");
        names.claim(at("name"), section.name.clone(), faults);
        let server = format!("device {} at {}", section.device_id, section.address);
        servers.claim(at("address"), server, faults);
        let found = switch(document, index, section, faults);
        if let Some(found) = &found {
            devices.claim(at("slow_path_device"), found.device.clone(), faults);
        }
        found
    });
    each.collect()
}

fn switch(
    document: &Document,
    index: usize,
    section: &SwitchSection,
    faults: &mut Faults,
) -> Option<Switch> {
    let at = |field: &str| format!("switch[{index}].{field}");
    name(at("name"), &section.name, faults);
    let reachable = section
        .address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0));
    if !reachable
        || (section.address.starts_with('[') && section.address.parse::<SocketAddr>().is_err())
    {
        faults.add(
            at("address"),
            format!(
                "{:?} is not host:port, like 127.0.0.1:9559",
                section.address
            ),
        );
    }
    let device_id = u64::try_from(section.device_id)
        .ok()
        .filter(|id| *id != 0)
        .or_else(|| {
            faults.add(
                at("device_id"),
                format!("{} is no device id: 1 or more", section.device_id),
            );
            None
        });
    let slow_path_port = number::<SwitchPort>(at("slow_path_port"), section.slow_path_port, faults);
    let device = device(document, index, section, faults);
    if section.role.as_deref() == Some("") {
        faults.add(at("role"), "is empty: leave it out for the default role");
    }
    Some(Switch {
        name: section.name.clone(),
        address: section.address.clone(),
        device_id: device_id?,
        slow_path_port: slow_path_port?,
        device: device?,
        role: section.role.clone(),
        take_over: section.take_over,
    })
}

/// The Linux interface towards it.
fn device(
    document: &Document,
    index: usize,
    section: &SwitchSection,
    faults: &mut Faults,
) -> Option<String> {
    let path = format!("switch[{index}].slow_path_device");
    let only = document.switch.len() == 1;
    let shared = document.slow_path.as_ref()?.device.as_ref();
    let (path, device) = match (&section.slow_path_device, shared) {
        (Some(_), Some(_)) if only => {
            faults.add(path, "slow_path.device is there already: one of the two");
            return None;
        }
        (Some(own), _) => (path, own),
        (None, Some(shared)) if only => ("slow_path.device".to_owned(), shared),
        (None, _) => {
            let path = if only {
                "slow_path.device"
            } else {
                path.as_str()
            };
            let message =
                "is missing: name the Linux interface towards the switch's slow-path port";
            faults.add(path, message);
            return None;
        }
    };
    device_name(path, device, faults);
    Some(device.clone())
}
