//! A tap that goes down takes its routes with it, and its IPv6 addresses; when it comes up again
//! the kernel puts back only what it had made itself. So what setup added is added again then.

use std::collections::HashMap;

use tokio::task::AbortHandle;

use super::decode::parse;
use super::message::Message;
use super::requests::Requests;
use super::setup::{TapConfig, add_addresses};
use super::socket::{NetlinkSocket, SocketError};

/// `RTNLGRP_LINK`.
const LINKS: u32 = 1;
/// Room for some hundred changes of links.
const RECEIVE_BUFFER_BYTES: usize = 1 << 18;
/// `IFF_UP` of `struct ifinfomsg`.
const IFF_UP: u32 = 1;

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
    let events = NetlinkSocket::subscribe(&[LINKS], RECEIVE_BUFFER_BYTES)?;
    let taps = taps
        .into_iter()
        .map(|(index, config)| (index, Tap { config, up: true }))
        .collect();
    let task = tokio::spawn(run(requests, events, taps));
    Ok(Upkeep(task.abort_handle()))
}

async fn run(requests: Requests, mut events: NetlinkSocket, mut taps: HashMap<u32, Tap>) {
    loop {
        let mut due: Vec<u32> = Vec::new();
        let lost = match events.readable().await {
            Ok(()) => came_up(&mut events, &mut taps, &mut due),
            Err(error) => Err(error),
        };
        match lost {
            Ok(()) => {}
            // What was missed is not known: adding what is there already does no harm.
            Err(SocketError::Overrun | SocketError::Malformed) => due.extend(taps.keys()),
            Err(error) => {
                tracing::warn!(%error, "taps that come up again are no longer looked after");
                return;
            }
        }
        for index in due {
            let Some(Tap { config, .. }) = taps.get(&index) else {
                continue;
            };
            match add_addresses(&requests, config, index).await {
                Ok(()) => tracing::info!(tap = config.tap, "up again: addresses and routes are"),
                // Down again, or gone.
                Err(error) => tracing::warn!(%error, "a tap came up"),
            }
        }
    }
}

/// Reads what is there; adds the taps that have come up to `due`.
fn came_up(
    events: &mut NetlinkSocket,
    taps: &mut HashMap<u32, Tap>,
    due: &mut Vec<u32>,
) -> Result<(), SocketError> {
    while let Some(frames) = events.try_receive()? {
        for frame in frames {
            let frame = frame.map_err(|()| SocketError::Malformed)?;
            let Some(Message::NewLink(link)) = parse(&frame) else {
                continue;
            };
            if let Some(tap) = taps.get_mut(&link.index) {
                let up = link.flags & IFF_UP != 0;
                if up && !tap.up && !due.contains(&link.index) {
                    due.push(link.index);
                }
                tap.up = up;
            }
        }
    }
    Ok(())
}
