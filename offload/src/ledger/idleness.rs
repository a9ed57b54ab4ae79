//! Reports of idle entries: which connection, and what they mean.

use std::cmp::Reverse;

use shunt_p4::FlowKey;

use super::Ledger;
use super::entries::Entries;
use crate::idle::Verdict;
use crate::queue::OffloadEvent;
use crate::unit::Life;

impl Ledger {
    /// The switch reports that no packet hit these entries for their idle timeout.
    pub(crate) fn idle(&mut self, keys: &[FlowKey], now_ns: u64) {
        for key in keys {
            self.stats.idle_reports += 1;
            let Some((at, direction)) = self.units.holder(key) else {
                continue;
            };
            let Some(held) = self.units.get(at) else {
                continue;
            };
            let Entries::Pair(pair) = &held.entries else {
                continue;
            };
            if held.unit.life() != Life::Installed {
                continue;
            }
            let timeouts = [pair.idle_timeout; 2];
            let idle = self.idle.entry(at).or_default();
            match idle.report(direction, now_ns, timeouts) {
                Verdict::Idle => {
                    self.idle.remove(&at);
                    self.idle_verdict(at, now_ns);
                }
                Verdict::AskAt(due_ns) => self.idle_watch.push(Reverse((due_ns, at))),
                Verdict::Nothing => {}
            }
        }
    }

    /// Asks the directions that were watched until `now_ns`.
    pub(super) fn expire_watches(&mut self, now_ns: u64) {
        while let Some(&Reverse((due_ns, at))) = self.idle_watch.peek() {
            if due_ns > now_ns {
                break;
            }
            self.idle_watch.pop();
            let pair = self.idle.get_mut(&at);
            if pair.is_some_and(|pair| pair.expire(now_ns)) {
                self.tell_owner(at, OffloadEvent::Active);
            }
        }
    }
}
