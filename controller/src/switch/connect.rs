//! The first connection with a switch: reach it, become its primary, give it our pipeline.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use p4runtime::client::{Backoff, Client, ClientConfig, ClientError};

use super::error::SwitchError;
use super::pipeline;
use crate::config::Switch;

/// How long the others are waited for when one of several switches has answered.
const OTHERS_WITHIN: Duration = Duration::from_secs(2);

/// A switch with a client for it.
#[derive(Debug)]
pub struct Connected {
    pub(super) client: Client,
    pub(super) switch: Switch,
    /// It has our pipeline and takes our writes.
    pub(super) begun: bool,
}

impl Connected {
    /// Connects, becomes the primary and pushes the pipeline; tries for `timeout`.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn open(switch: &Switch, timeout: Duration) -> Result<Self, SwitchError> {
        let begun = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            let tried = tokio::time::timeout(left, Self::once(switch)).await;
            let error = match tried {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(SwitchError::Refused { source, .. })) if source.is_transient() => source,
                Ok(Err(error)) => return Err(error),
                Err(_) => ClientError::Timeout {
                    rpc: "connecting",
                    address: switch.address.clone(),
                    timeout: left,
                },
            };
            let left = timeout.saturating_sub(begun.elapsed());
            let delay = backoff.next_delay().filter(|delay| *delay < left);
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    return Err(SwitchError::Unreachable {
                        name: switch.name.clone(),
                        address: switch.address.clone(),
                        tried: Duration::from_millis(millis(begun.elapsed())),
                        source: error,
                    });
                }
            }
        }
    }

    /// Connects to all switches, and gives the start up when none can be reached; as soon as one of
    /// several can, the others need not be there yet.
    ///
    /// # Errors
    /// [`SwitchError`], of the first that failed.
    pub async fn open_all(
        switches: &[Switch],
        timeout: Duration,
    ) -> Result<Vec<Self>, SwitchError> {
        let opened = switches
            .iter()
            .enumerate()
            .map(|(place, switch)| async move { (place, Self::open(switch, timeout).await) });
        let mut opened: FuturesUnordered<_> = opened.collect();
        let mut connected: Vec<Option<Self>> = switches.iter().map(|_| None).collect();
        let (mut any, mut failed) = (false, None);
        let others = tokio::time::sleep(timeout);
        tokio::pin!(others);
        loop {
            let (place, result) = tokio::select! {
                found = opened.next() => match found {
                    Some(found) => found,
                    None => break,
                },
                () = &mut others, if any => break,
            };
            match result {
                Ok(found) => {
                    if !std::mem::replace(&mut any, true) {
                        others
                            .as_mut()
                            .reset(tokio::time::Instant::now() + OTHERS_WITHIN);
                    }
                    if let Some(place) = connected.get_mut(place) {
                        *place = Some(found);
                    }
                }
                Err(error @ SwitchError::Unreachable { .. }) => failed = failed.or(Some(error)),
                // That does not become better by waiting.
                Err(error) => return Err(error),
            }
        }
        drop(opened);
        match failed {
            Some(error) if !any => return Err(error),
            _ => {}
        }
        let mut found = Vec::with_capacity(switches.len());
        for (connected, switch) in connected.into_iter().zip(switches) {
            found.push(match connected {
                Some(connected) => connected,
                None => {
                    tracing::warn!(
                        switch = switch.name,
                        address = switch.address,
                        "it does not answer; going on without it"
                    );
                    Self::lazy(switch).map_err(|error| *error)?
                }
            });
        }
        Ok(found)
    }

    /// A switch that need not be there yet: the session connects when it can.
    ///
    /// # Errors
    /// [`SwitchError::Refused`]: the address or device id cannot be one.
    pub fn lazy(switch: &Switch) -> Result<Self, Box<SwitchError>> {
        let config = client_config(switch);
        let endpoint = config
            .endpoint()
            .map_err(|source| refused(switch, source))?;
        let client = Client::over(endpoint.connect_lazy(), config);
        Ok(Self::over(client, switch))
    }

    /// As [`Connected::lazy`], over a client that the caller made.
    pub fn over(client: Client, switch: &Switch) -> Self {
        Self {
            client,
            switch: switch.clone(),
            begun: false,
        }
    }

    async fn once(switch: &Switch) -> Result<Self, SwitchError> {
        let refused = |source| refused(switch, source);
        let client = Client::connect(client_config(switch))
            .await
            .map_err(refused)?;
        if !switch.take_over
            && let Some(primary) = client.election().await.map_err(refused)?.primary
        {
            tracing::info!(
                switch = switch.name,
                primary,
                "another controller is the primary: waiting until it leaves"
            );
            return Ok(Self::over(client, switch));
        }
        // Somebody started this daemon: it takes over, once.
        match client.become_primary().await {
            Err(ClientError::NotPrimary {
                primary: Some(primary),
                ..
            }) => {
                tracing::warn!(
                    switch = switch.name,
                    primary,
                    "another controller is the primary: taking over"
                );
                let id = primary.saturating_add(1);
                client.become_primary_as(id).await.map_err(refused)?;
            }
            other => other.map_err(refused)?,
        }
        let loaded = pipeline::load(&client, switch).await?;
        tracing::info!(switch = switch.name, pipeline = ?loaded, "connected");
        Ok(Self {
            client,
            switch: switch.clone(),
            begun: true,
        })
    }

    /// Which.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The client: clones share connection and role.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

fn client_config(switch: &Switch) -> ClientConfig {
    ClientConfig {
        role: switch.role.clone(),
        ..ClientConfig::new(&switch.address, switch.device_id, election_id(0))
    }
}

fn refused(switch: &Switch, source: ClientError) -> SwitchError {
    SwitchError::Refused {
        name: switch.name.clone(),
        address: switch.address.clone(),
        source,
    }
}

/// Above every id that this host's daemons have used before: microseconds since 1970.
pub(super) fn election_id(above: u128) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| now.as_micros())
        .max(above.saturating_add(1))
}

/// A bid that does not win, and is seldom the same as anyone else's.
pub(super) fn election_id_below(primary: u128) -> u128 {
    let highest = primary.saturating_sub(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let some = now.map_or(0, |now| u128::from(now.subsec_micros() / 2));
    highest - some % (highest + 1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
