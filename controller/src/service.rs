//! What systemd is told (`sd_notify(3)`), where it asks to be: ready, stopping, alive.

use std::time::Duration;

use sd_notify::NotifyState;
use shunt_slowpath::ManagerHandle;
use tokio_util::sync::CancellationToken;

use crate::kernel::MirrorHandle;

/// Everything runs.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Nobody asks: nothing is done, and that is no error.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// How often systemd wants to hear that the daemon lives; `None`: it does not.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Says so, twice as often as asked, as long as all workers and the mirror answer: what hangs is
/// started again. Until `stop`.
pub async fn watch(
    every: Duration,
    slow_path: ManagerHandle,
    mirror: MirrorHandle,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(every / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let alive = async {
        loop {
            ticks.tick().await;
            match (slow_path.reviewed().await, mirror.ping().await) {
                (Ok(_), Ok(())) => tell(&[NotifyState::Watchdog]),
                (Err(error), _) => tracing::error!(%error, "not told to the watchdog as alive"),
                (_, Err(error)) => tracing::error!(%error, "not told to the watchdog as alive"),
            }
        }
    };
    stop.run_until_cancelled(alive).await;
}
