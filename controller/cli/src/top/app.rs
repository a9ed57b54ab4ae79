//! What is shown, and what keys do.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use shunt_api::v1::{Histogram, TopFlow, TopSample};

use super::feed::Event;
use super::rates::{Drops, Rates, Vpc};

/// Rates that the sparklines remember.
pub(super) const HISTORY: usize = 240;
/// Samples that may be missing before the daemon counts as not answering.
const LATE: u32 = 3;

/// A part of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Overview,
    Vpcs,
    Flows,
    Drops,
    Latency,
}

impl Pane {
    pub(super) const ALL: [Pane; 5] = [
        Pane::Overview,
        Pane::Vpcs,
        Pane::Flows,
        Pane::Drops,
        Pane::Latency,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Pane::Overview => "Overview",
            Pane::Vpcs => "VPCs",
            Pane::Flows => "Flows",
            Pane::Drops => "Drops",
            Pane::Latency => "Latency",
        }
    }

    /// What can be sorted by; the first unless asked otherwise. Numbers have the largest first.
    pub(super) const fn columns(self) -> &'static [&'static str] {
        match self {
            Pane::Overview | Pane::Latency => &[],
            Pane::Vpcs => &[
                "bits in",
                "packets in",
                "bits out",
                "packets out",
                "drops",
                "name",
            ],
            Pane::Flows => &["bits", "packets", "age"],
            Pane::Drops => &["rate", "total", "reason"],
        }
    }
}

/// How the daemon is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Two samples make a rate: none yet.
    Waiting,
    Live,
    /// Why.
    Lost(String),
}

/// All state.
#[derive(Debug)]
pub(super) struct App {
    interval: Duration,
    pub(super) pane: Pane,
    pub(super) paused: bool,
    /// By pane: the column, and whether the other way round.
    sort: [(usize, bool); Pane::ALL.len()],
    stage: usize,
    link: Link,
    before: Option<Box<TopSample>>,
    last: Option<Instant>,
    rates: Option<Rates>,
    /// What totals are counted from.
    base: Option<Rates>,
    /// Packets a second of hardware and software, the newest last.
    pub(super) history: VecDeque<[f64; 2]>,
}

impl App {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            pane: Pane::Overview,
            paused: false,
            sort: Default::default(),
            stage: 3,
            link: Link::Waiting,
            before: None,
            last: None,
            rates: None,
            base: None,
            history: VecDeque::new(),
        }
    }

    pub(super) fn event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Lost(error) => {
                self.link = Link::Lost(error.to_string());
                // What the next daemon counts begins anew.
                self.before = None;
            }
            Event::Sample(sample) => {
                self.last = Some(now);
                let rates = self.before.as_ref();
                let rates = rates.and_then(|before| Rates::between(before, &sample));
                self.before = Some(sample);
                let Some(rates) = rates else {
                    self.link = Link::Waiting;
                    return;
                };
                self.link = Link::Live;
                if self.paused {
                    return;
                }
                self.history.push_back([
                    rates.hardware.packets_per_second,
                    rates.software.packets_per_second,
                ]);
                if self.history.len() > HISTORY {
                    self.history.pop_front();
                }
                if self
                    .rates
                    .as_ref()
                    .is_some_and(|old| old.at_ms > rates.at_ms)
                {
                    self.base = None;
                }
                self.rates = Some(rates);
            }
        }
    }

    /// Whether that was the last one.
    pub(super) fn key(&mut self, key: KeyEvent) -> bool {
        let at = Pane::ALL.iter().position(|pane| *pane == self.pane);
        let (at, panes) = (at.unwrap_or(0), Pane::ALL.len());
        let columns = self.pane.columns().len();
        let stages = self.rates.as_ref().map_or(0, |rates| rates.install.len());
        let (column, reversed) = &mut self.sort[at];
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Tab | KeyCode::Right => self.show((at + 1) % panes),
            KeyCode::BackTab | KeyCode::Left => self.show((at + panes - 1) % panes),
            KeyCode::Char(digit @ '1'..='5') => self.show(digit as usize - '1' as usize),
            KeyCode::Char('s') if columns > 0 => *column = (*column + 1) % columns,
            KeyCode::Char('r') if columns > 0 => *reversed = !*reversed,
            KeyCode::Char(' ' | 'p') => self.paused = !self.paused,
            KeyCode::Char('z') => self.base = self.rates.clone(),
            KeyCode::Char('>' | '.') if stages > 0 => self.stage = (self.stage + 1) % stages,
            KeyCode::Char('<' | ',') if stages > 0 => {
                self.stage = (self.stage + stages - 1) % stages;
            }
            _ => {}
        }
        false
    }

    fn show(&mut self, at: usize) {
        if let Some(pane) = Pane::ALL.get(at) {
            self.pane = *pane;
        }
    }

    pub(super) const fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    /// How the daemon is, in words; and why, if it is not well.
    pub(super) fn link(&self, now: Instant) -> (String, Option<&str>) {
        let late = self.last.map(|last| now.saturating_duration_since(last));
        let late = late.filter(|late| *late > self.interval * LATE);
        match (&self.link, late) {
            (Link::Lost(why), _) => ("disconnected, retrying".to_owned(), Some(why.as_str())),
            (_, Some(late)) => (format!("no answer for {} s", late.as_secs()), None),
            (Link::Waiting, _) => ("waiting for two samples".to_owned(), None),
            (Link::Live, _) => ("live".to_owned(), None),
        }
    }

    /// What the pane is sorted by, and whether the other way round.
    pub(super) fn sorted_by(&self, pane: Pane) -> (&'static str, bool) {
        let (column, reversed) = self.sort[pane as usize];
        (pane.columns().get(column).copied().unwrap_or(""), reversed)
    }

    fn sorted<'a, T>(
        &self,
        pane: Pane,
        items: impl Iterator<Item = &'a T>,
        compare: impl Fn(&str, &T, &T) -> Ordering,
    ) -> Vec<&'a T> {
        let (column, reversed) = self.sorted_by(pane);
        let mut items: Vec<_> = items.collect();
        items.sort_by(|a, b| {
            let order = compare(column, a, b);
            if reversed { order.reverse() } else { order }
        });
        items
    }

    pub(super) fn vpcs(&self) -> Vec<&Vpc> {
        let vpcs = self.rates.iter().flat_map(|rates| &rates.vpcs);
        self.sorted(Pane::Vpcs, vpcs, |column, a: &Vpc, b: &Vpc| {
            let value = |vpc: &Vpc| match column {
                "bits in" => vpc.received.bits_per_second,
                "packets in" => vpc.received.packets_per_second,
                "bits out" => vpc.sent.bits_per_second,
                "packets out" => vpc.sent.packets_per_second,
                "drops" => vpc.drops_per_second,
                _ => 0.0,
            };
            value(b).total_cmp(&value(a)).then(a.name.cmp(&b.name))
        })
    }

    pub(super) fn flows(&self) -> Vec<&TopFlow> {
        let flows = self.rates.iter().flat_map(|rates| &rates.flows);
        self.sorted(Pane::Flows, flows, |column, a: &TopFlow, b: &TopFlow| {
            let value = |flow: &TopFlow| match column {
                "packets" => flow.packets_per_second,
                "age" => flow.age_ms as f64,
                _ => flow.bits_per_second,
            };
            value(b).total_cmp(&value(a))
        })
    }

    pub(super) fn drops(&self) -> Vec<&Drops> {
        let drops = self.rates.iter().flat_map(|rates| &rates.drops);
        self.sorted(Pane::Drops, drops, |column, a: &Drops, b: &Drops| {
            let order = match column {
                "rate" => b.packets_per_second.total_cmp(&a.packets_per_second),
                "total" => b.packets.cmp(&a.packets),
                _ => Ordering::Equal,
            };
            let names = (&a.r#where, &a.reason).cmp(&(&b.r#where, &b.reason));
            order.then(names)
        })
    }

    /// Packets dropped for a reason since totals are counted.
    pub(super) fn dropped(&self, drops: &Drops) -> u64 {
        let base = self.base.iter().flat_map(|base| &base.drops);
        let same = |old: &&Drops| (&old.r#where, &old.reason) == (&drops.r#where, &drops.reason);
        let before = base.into_iter().find(same).map_or(0, |old| old.packets);
        drops.packets.saturating_sub(before)
    }

    /// Totals are counted from a moment on that somebody chose.
    pub(super) const fn counts_from_now(&self) -> bool {
        self.base.is_some()
    }

    /// The stage of installs that is looked at, and what it was when totals began.
    pub(super) fn histogram(&self) -> Option<(&Histogram, Option<&Histogram>)> {
        let now = self.rates.as_ref()?.install.get(self.stage)?;
        Some((now, self.base_of(now)))
    }

    /// What a stage's histogram was when totals began.
    pub(super) fn base_of(&self, now: &Histogram) -> Option<&Histogram> {
        let base = self.base.as_ref()?;
        base.install.iter().find(|old| old.stage == now.stage)
    }
}
