//! The rates of everything, for who watches: one sample a second, however many that are.
//!
//! ```text
//!   WatchTop ── wakes ──▶ sampler ── counters, a glance ──────────▶ slow path
//!      ▲                     ├────── counts, the busiest flows ───▶ offload engine
//!      └── newest sample ────┴────── one Read of few entries ─────▶ switches
//! ```
//!
//! What a sample takes of each of them is bounded, whatever they have. Nobody watches: nothing is
//! done.

mod flows;
mod sample;
mod switch;

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use shunt_api::v1;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;

use super::service::{Api, Listing};
use sample::Sampler;

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// The longest interval that can be asked for, milliseconds: an hour.
const INTERVAL_MAX_MS: u32 = 3_600_000;
/// Flows in a sample: at most, and if nobody says how many.
const FLOWS_MAX: u32 = 100;
const FLOWS: u32 = 20;

type Sample = Option<Arc<v1::TopSample>>;

/// Where samples are had; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Top(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    newest: watch::Sender<Sample>,
    wanted: Notify,
}

impl Top {
    /// Takes samples while somebody watches; ends with its task.
    pub(super) async fn run(self, api: Api) {
        loop {
            self.0.wanted.notified().await;
            let mut sampler = Sampler::default();
            let mut ticks = tokio::time::interval(SAMPLE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Who comes later wakes this anew.
                if self.0.newest.receiver_count() == 0 {
                    break;
                }
                let sample = sampler.sample(&api).await;
                self.0.newest.send_replace(Some(Arc::new(sample)));
            }
            self.0.newest.send_replace(None);
        }
    }

    /// The newest sample at once, then one every interval.
    pub(super) fn watch(
        &self,
        request: &v1::WatchTopRequest,
    ) -> Result<Listing<v1::TopSample>, Status> {
        let (every, flows) = asked(request)?;
        let newest = self.0.newest.subscribe();
        self.0.wanted.notify_one();
        let watcher = Watcher {
            newest,
            first: true,
            due: Instant::now(),
            every,
            flows,
        };
        Ok(Box::pin(stream::unfold(watcher, Watcher::next)))
    }
}

fn asked(request: &v1::WatchTopRequest) -> Result<(Duration, usize), Status> {
    let least = u32::try_from(SAMPLE_EVERY.as_millis()).unwrap_or(u32::MAX);
    let interval_ms = match request.interval_ms {
        0 => least,
        ms if (least..=INTERVAL_MAX_MS).contains(&ms) => ms,
        ms => {
            return Err(Status::invalid_argument(format!(
                "an interval of {ms} ms is out of range: {least} to {INTERVAL_MAX_MS}"
            )));
        }
    };
    let flows = match request.flows {
        0 => FLOWS,
        flows @ 1..=FLOWS_MAX => flows,
        flows => {
            return Err(Status::invalid_argument(format!(
                "{flows} flows are too many for a sample: at most {FLOWS_MAX}; all are listed by \
                 ListFlows (shunt flows)"
            )));
        }
    };
    let every = Duration::from_millis(interval_ms.into());
    Ok((every, usize::try_from(flows).unwrap_or(usize::MAX)))
}

struct Watcher {
    newest: watch::Receiver<Sample>,
    first: bool,
    due: Instant,
    every: Duration,
    flows: usize,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::TopSample, Status>, Self)> {
        loop {
            if !std::mem::take(&mut self.first) {
                self.newest.changed().await.ok()?;
            }
            let newest = self.newest.borrow_and_update().clone();
            let now = Instant::now();
            let Some(newest) = newest.filter(|_| now >= self.due) else {
                continue;
            };
            // Samples do not come by the millisecond.
            self.due = now + self.every - SAMPLE_EVERY / 2;
            let mut sample = v1::TopSample::clone(&newest);
            sample.flows.truncate(self.flows);
            return Some((Ok(sample), self));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    fn sample(at_ms: u64) -> Sample {
        let flows = vec![v1::TopFlow::default(); 3];
        Some(Arc::new(v1::TopSample {
            at_ms,
            flows,
            ..Default::default()
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_have_the_newest_sample_at_their_own_pace() {
        let top = Top::default();
        let request = |interval_ms, flows| v1::WatchTopRequest { interval_ms, flows };
        let mut slow = top.watch(&request(3_000, 2)).unwrap();
        let mut fast = top.watch(&request(0, 0)).unwrap();
        let (mut seen, mut seen_fast) = (Vec::new(), Vec::new());
        for at in 0..7 {
            top.0.newest.send_replace(sample(at));
            let next = fast.next().await.unwrap().unwrap();
            assert_eq!(next.flows.len(), 3);
            seen_fast.push(next.at_ms);
            // What is not due does not come.
            let waited = tokio::time::timeout(Duration::from_millis(1), slow.next()).await;
            if let Ok(Some(Ok(sample))) = waited {
                assert_eq!(sample.flows.len(), 2);
                seen.push(sample.at_ms);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(seen_fast, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(seen, [0, 3, 6]);
        assert_eq!(top.0.newest.receiver_count(), 2);
        drop((slow, fast));
        assert_eq!(top.0.newest.receiver_count(), 0);
    }

    #[test]
    fn what_cannot_be_asked_is_named_with_what_can() {
        let said = |interval_ms, flows| {
            let request = v1::WatchTopRequest { interval_ms, flows };
            asked(&request).unwrap_err().message().to_owned()
        };
        assert!(said(999, 0).contains("1000 to 3600000"));
        assert!(said(3_600_001, 0).contains("1000 to 3600000"));
        assert!(said(0, 101).contains("at most 100"));
        let least = asked(&v1::WatchTopRequest::default()).unwrap();
        assert_eq!(least, (SAMPLE_EVERY, 20));
    }
}
