//! Taps stay as configured. One that goes down takes its routes with it, and its IPv6 addresses;
//! when it comes up again the kernel puts back only what it had made itself. So what setup added
//! is added again then, and when somebody takes an address away; a MAC address or MTU that was
//! changed is set again. Down is left down: that is how an administrator closes an interface.

use std::collections::{BTreeSet, HashMap};

use tokio::task::AbortHandle;

use super::decode::{link_settings, parse};
use super::message::{IFF_UP, Message};
use super::requests::Requests;
use super::setup::{TapConfig, add_addresses, set_mac_and_mtu};
use super::socket::{NetlinkSocket, SocketError};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
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

/// Looks after these taps, by the kernel's number; they are up.
pub(crate) fn start(
    requests: Requests,
    taps: impl IntoIterator<Item = (u32, TapConfig)>,
) -> Result<Upkeep, SocketError> {
    let events = NetlinkSocket::subscribe(&GROUPS, RECEIVE_BUFFER_BYTES)?;
    let taps = taps
        .into_iter()
        .map(|(index, config)| (index, Tap { config, up: true }))
        .collect();
    let task = tokio::spawn(run(requests, events, taps));
    Ok(Upkeep(task.abort_handle()))
}

/// What is to be put right.
#[derive(Default)]
struct Due {
    /// MAC address or MTU.
    settings: BTreeSet<u32>,
    /// Addresses and routes.
    addresses: BTreeSet<u32>,
}

async fn run(requests: Requests, mut events: NetlinkSocket, mut taps: HashMap<u32, Tap>) {
    loop {
        let mut due = Due::default();
        let lost = match events.readable().await {
            Ok(()) => read(&mut events, &mut taps, &mut due),
            Err(error) => Err(error),
        };
        match lost {
            Ok(()) => {}
            // What was missed is not known: doing what is done already does no harm.
            Err(SocketError::Overrun | SocketError::Malformed) => {
                due.settings.extend(taps.keys());
                due.addresses.extend(taps.keys());
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
    }
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
