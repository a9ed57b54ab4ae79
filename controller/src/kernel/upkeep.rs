//! Taps stay as configured. One that goes down takes its routes with it, and its IPv6 addresses;
//! when it comes up again the kernel puts back only what it had made itself. So what setup added
//! is added again then, and when somebody takes an address or a rule away; a MAC address, an MTU or
//! a setting that was changed is set again, the latter by timer where the kernel does not tell.
//! Down is left down: that is how an administrator closes an interface.

use std::collections::{BTreeSet, HashMap};

use tokio::task::AbortHandle;
use tokio::time::{Duration, MissedTickBehavior};

use super::decode::{link_settings, parse};
use super::message::{IFF_UP, Message};
use super::requests::Requests;
use super::rules::{self, Rule};
use super::settings;
use super::setup::{TapConfig, add_addresses, set_mac_and_mtu};
use super::socket::{NetlinkSocket, SocketError};

/// `RTNLGRP_LINK`, and those of IPv4 and IPv6 for addresses, rules and settings
/// (`RTNLGRP_IPV4_IFADDR`, `_RULE`, `_NETCONF`).
const GROUPS: [u32; 7] = [1, 5, 9, 8, 19, 24, 25];
/// `RTM_*` that [`parse`] does not read.
const RTM_DELRULE: u16 = 33;
const RTM_NEWNETCONF: u16 = 80;
/// Room for some hundred changes of links.
const RECEIVE_BUFFER_BYTES: usize = 1 << 18;

/// The task; ends when dropped.
#[derive(Debug)]
pub(crate) struct Upkeep(AbortHandle);

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Tap {
    config: TapConfig,
    up: bool,
}

/// What is to be there: taps by the kernel's number, and rules.
struct Wanted {
    taps: HashMap<u32, Tap>,
    rules: Vec<Rule>,
}

/// Looks after these taps, by the kernel's number; they are up.
pub(crate) fn start(
    requests: Requests,
    taps: impl IntoIterator<Item = (u32, TapConfig)>,
    rules: Vec<Rule>,
    check_interval: Duration,
) -> Result<Upkeep, SocketError> {
    let events = NetlinkSocket::subscribe(&GROUPS, RECEIVE_BUFFER_BYTES)?;
    let taps = taps
        .into_iter()
        .map(|(index, config)| (index, Tap { config, up: true }))
        .collect();
    let wanted = Wanted { taps, rules };
    let task = tokio::spawn(run(requests, events, wanted, check_interval));
    Ok(Upkeep(task.abort_handle()))
}

/// What is to be put right.
#[derive(Default)]
struct Due {
    /// MAC address or MTU.
    settings: BTreeSet<u32>,
    /// Addresses and routes.
    addresses: BTreeSet<u32>,
    /// Settings under `/proc/sys`.
    sysctls: BTreeSet<u32>,
    rules: bool,
}

async fn run(
    requests: Requests,
    mut events: NetlinkSocket,
    Wanted { mut taps, rules }: Wanted,
    check_interval: Duration,
) {
    let mut check = tokio::time::interval(check_interval);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut due = Due::default();
        let lost = tokio::select! {
            ready = events.readable() => match ready {
                Ok(()) => read(&mut events, &mut taps, &mut due),
                Err(error) => Err(error),
            },
            _ = check.tick() => {
                due.sysctls.extend(taps.keys());
                due.rules = true;
                Ok(())
            }
        };
        match lost {
            Ok(()) => {}
            // What was missed is not known: doing what is done already does no harm.
            Err(SocketError::Overrun | SocketError::Malformed) => {
                due.settings.extend(taps.keys());
                due.addresses.extend(taps.keys());
                due.rules = true;
            }
            Err(error) => {
                tracing::warn!(%error, "changes of the taps are no longer put right");
                return;
            }
        }
        for index in due.settings {
            let Some(Tap { config, .. }) = taps.get(&index) else {
                continue;
            };
            let tap = &config.tap;
            match set_mac_and_mtu(&requests, index, &config.interface).await {
                Ok(()) => tracing::warn!(tap, "MAC address or MTU was changed: set again"),
                Err(error) => tracing::warn!(tap, %error, "MAC address and MTU cannot be set"),
            }
            // A small MTU takes IPv6 addresses away.
            due.addresses.insert(index);
        }
        due.sysctls.extend(&due.addresses);
        let due_taps = due.sysctls.iter().filter_map(|index| taps.get(index));
        restore_settings(due_taps.map(|tap| tap.config.tap.clone()).collect()).await;
        for index in due.addresses {
            let Some(Tap { config, up: true }) = taps.get(&index) else {
                continue;
            };
            let tap = &config.tap;
            match add_addresses(&requests, config, index).await {
                Ok(()) => tracing::debug!(tap, "addresses and routes are there (again)"),
                // Down again, or gone.
                Err(error) => tracing::warn!(tap, %error, "addresses cannot be added"),
            }
        }
        if due.rules {
            match rules::restore(&requests, &rules).await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "rules were taken away: added again"),
                Err(error) => tracing::warn!(%error, "rules cannot be added"),
            }
        }
    }
}

/// Sets again what was changed of these taps.
async fn restore_settings(taps: Vec<String>) {
    if taps.is_empty() {
        return;
    }
    // Some files each.
    let task = tokio::task::spawn_blocking(move || {
        for tap in taps {
            let found = settings::set(&tap);
            if !found.changed.is_empty() {
                tracing::warn!(tap, changed = ?found.changed, "settings were changed: set again");
            }
            for warning in found.warnings {
                tracing::warn!("{warning}");
            }
        }
    });
    // It does not panic, and nobody aborts it.
    let _ = task.await;
}

/// Reads what is there; adds what it asks for to `due`.
fn read(
    events: &mut NetlinkSocket,
    taps: &mut HashMap<u32, Tap>,
    due: &mut Due,
) -> Result<(), SocketError> {
    while let Some(frames) = events.try_receive()? {
        for frame in frames {
            let frame = frame.map_err(|()| SocketError::Malformed)?;
            match frame.kind {
                RTM_DELRULE => due.rules = true,
                // Whose, and what, a look at all of them tells.
                RTM_NEWNETCONF => due.sysctls.extend(taps.keys()),
                _ => {}
            }
            let link = match parse(&frame) {
                Some(Message::NewLink(link)) => link,
                // Whose it was the message does not tell here: adding once more does no harm.
                Some(Message::Address { removed: true, .. }) => {
                    due.addresses.extend(taps.keys());
                    continue;
                }
                _ => continue,
            };
            let Some(tap) = taps.get_mut(&link.index) else {
                continue;
            };
            let up = link.flags & IFF_UP != 0;
            if up && !tap.up {
                due.addresses.insert(link.index);
            }
            tap.up = up;
            let interface = &tap.config.interface;
            let wanted = (interface.mac, u32::from(interface.mtu));
            if link_settings(&frame).is_some_and(|settings| settings != wanted) {
                due.settings.insert(link.index);
            } else {
                // Put right meanwhile.
                due.settings.remove(&link.index);
            }
        }
    }
    Ok(())
}
