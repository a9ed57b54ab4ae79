//! Watches for masquerades that ran out of ports: said in the log, and in the status while it
//! lasts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shunt_p4::flow::proto::{ICMP, ICMPV6, TCP, UDP};
use shunt_slowpath::ManagerHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Current};

/// How often the slow path is asked.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A pool counts as exhausted for so long after the last refused connection.
const LASTS: Duration = Duration::from_secs(60);
/// A pool's exhaustion is logged at most so often.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The pools of a masquerade: protocol number and whether it is IPv4's.
pub const KINDS: [(u8, bool); 6] = [
    (TCP, true),
    (UDP, true),
    (ICMP, true),
    (TCP, false),
    (UDP, false),
    (ICMPV6, false),
];

/// A masquerade that has refused connections, of one protocol and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Its name.
    pub rule: String,
    /// IP protocol number.
    pub protocol: u8,
    /// The family.
    pub ipv4: bool,
    /// Connections refused since the daemon started.
    pub refused: u64,
    /// When the last ones were seen.
    last: Instant,
    /// When it was last logged.
    logged: Option<Instant>,
}

impl Exhausted {
    /// What an operator should know and do.
    pub fn text(&self, config: &Config) -> String {
        let mut rules = config.policy.masquerades.iter();
        let rule = rules.find(|rule| rule.name == self.rule);
        let name = &self.rule;
        let pool: Vec<_> = rule
            .iter()
            .flat_map(|rule| &rule.pool)
            .filter(|range| range.first().is_ipv4() == self.ipv4)
            .map(ToString::to_string)
            .collect();
        let protocol = match self.protocol {
            TCP => "tcp",
            UDP => "udp",
            _ => "echo",
        };
        format!(
            "the pool {} of masquerade {name} is exhausted for {protocol}: {} connections refused; \
             add addresses or ports",
            pool.join(", "),
            self.refused,
        )
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen(HashMap<(String, u8, bool), Exhausted>);

impl Seen {
    /// Takes a count of refused connections into account; true: to be logged.
    fn look(
        &mut self,
        now: Instant,
        rule: &str,
        (protocol, ipv4): (u8, bool),
        refused: u64,
    ) -> bool {
        let seen = self
            .0
            .entry((rule.to_owned(), protocol, ipv4))
            .or_insert_with(|| Exhausted {
                rule: rule.to_owned(),
                protocol,
                ipv4,
                refused: 0,
                last: now,
                logged: None,
            });
        if refused <= seen.refused {
            return false;
        }
        seen.refused = refused;
        seen.last = now;
        let due = seen
            .logged
            .is_none_or(|logged| now.duration_since(logged) >= LOG_EVERY);
        if due {
            seen.logged = Some(now);
        }
        due
    }

    fn all(&self) -> Vec<Exhausted> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by(|a, b| (&a.rule, !a.ipv4, a.protocol).cmp(&(&b.rule, !b.ipv4, b.protocol)));
        all
    }
}

/// What the watcher has seen.
#[derive(Clone, Debug)]
pub struct Pools(watch::Receiver<Vec<Exhausted>>);

impl Pools {
    /// Those that are exhausted.
    pub fn exhausted(&self, now: Instant) -> Vec<Exhausted> {
        let mut all = self.0.borrow().clone();
        all.retain(|seen| now.saturating_duration_since(seen.last) < LASTS);
        all
    }
}

/// Starts watching, until `stop`.
pub fn start(
    configuration: watch::Receiver<Current>,
    slow_path: ManagerHandle,
    stop: CancellationToken,
) -> (Pools, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        stop.run_until_cancelled(look(&configuration, &slow_path, &sender))
            .await;
    });
    (Pools(receiver), task)
}

async fn look(
    configuration: &watch::Receiver<Current>,
    slow_path: &ManagerHandle,
    found: &watch::Sender<Vec<Exhausted>>,
) {
    let mut seen = Seen::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A slow path that does not answer is in the status anyway.
        let Ok(stats) = slow_path.nat().await else {
            continue;
        };
        let now = Instant::now();
        let config = Arc::clone(&configuration.borrow().config);
        let rules = &config.policy.masquerades;
        seen.0
            .retain(|(name, ..), _| rules.iter().any(|rule| rule.name == *name));
        for rule in rules {
            for (protocol, ipv4) in KINDS {
                let refused = stats.counters.exhausted(&rule.name, protocol, ipv4);
                if refused > 0 && seen.look(now, &rule.name, (protocol, ipv4), refused) {
                    let said = seen.0.get(&(rule.name.clone(), protocol, ipv4));
                    tracing::warn!(
                        "{}",
                        said.map(|seen| seen.text(&config)).unwrap_or_default()
                    );
                }
            }
        }
        found.send_replace(seen.all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_is_logged_once_a_minute_while_it_grows() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seen = Seen::default();
        let udp = (UDP, true);
        assert!(seen.look(at(0), "a", udp, 1));
        assert!(!seen.look(at(2), "a", udp, 5), "logged a moment ago");
        assert!(seen.look(at(2), "b", udp, 5), "another rule");
        assert!(!seen.look(at(60), "a", udp, 5), "nothing new");
        assert!(seen.look(at(62), "a", udp, 6));
        assert!(!seen.look(at(121), "a", udp, 7));
        assert!(seen.look(at(122), "a", udp, 8));
    }

    #[test]
    fn a_pool_is_exhausted_for_a_minute_after_the_last_refusal() {
        let start = Instant::now();
        let mut seen = Seen::default();
        seen.look(start, "a", (TCP, true), 3);
        let (_sender, receiver) = watch::channel(seen.all());
        let pools = Pools(receiver);
        assert_eq!(pools.exhausted(start)[0].refused, 3);
        assert_eq!(pools.exhausted(start + LASTS), []);
    }

    #[test]
    fn the_text_names_rule_pool_and_remedy() {
        let text = shunt_testbed::topology::configuration(std::path::Path::new("/tmp/s.sock"));
        let config = crate::config::validate(&crate::config::document_of(&text).unwrap()).unwrap();
        let mut seen = Seen::default();
        seen.look(Instant::now(), "green-out", (UDP, true), 7);
        assert_eq!(
            seen.all()[0].text(&config),
            "the pool 203.0.113.12-203.0.113.13 of masquerade green-out is exhausted for udp: \
             7 connections refused; add addresses or ports"
        );
    }
}
