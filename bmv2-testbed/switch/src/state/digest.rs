//! Digests on their way to the controller: gathered into lists without duplicates, and remembered
//! until they are acknowledged (P4Runtime, "DigestEntry").

use std::collections::{HashMap, HashSet};

/// The most digests of one list.
const MAX_LIST: usize = 1_000;
/// The most digests remembered as sent; when they are more, some are sent twice.
const MAX_REMEMBERED: usize = 65_536;

/// The fields of one digest.
pub(crate) type Values = Vec<Vec<u8>>;

/// How a digest is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DigestConfig {
    /// How long the first of a list waits for others.
    pub(crate) max_timeout_ns: u64,
    /// 0: no limit of the client's.
    pub(crate) max_list_size: usize,
    /// How long the same digest is not sent again without an acknowledgement.
    pub(crate) ack_timeout_ns: u64,
}

#[derive(Debug, Default)]
struct Digest {
    config: DigestConfig,
    waiting: Vec<Values>,
    /// What is in `waiting`.
    known: HashSet<Values>,
    first_ns: u64,
    /// Sent and not acknowledged: in which list, and when.
    sent: HashMap<Values, (u64, u64)>,
}

/// A list to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) digest_id: u32,
    pub(crate) list_id: u64,
    pub(crate) digests: Vec<Values>,
}

/// The digests that a client enabled, by their id in the P4Info.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    enabled: HashMap<u32, Digest>,
    lists: u64,
}

impl Digest {
    fn list(&mut self, digest_id: u32, lists: &mut u64, now_ns: u64) -> List {
        *lists += 1;
        let digests = std::mem::take(&mut self.waiting);
        self.known.clear();
        if self.config.ack_timeout_ns > 0 {
            let room = MAX_REMEMBERED.saturating_sub(self.sent.len());
            for digest in digests.iter().take(room) {
                self.sent.insert(digest.clone(), (*lists, now_ns));
            }
        }
        List {
            digest_id,
            list_id: *lists,
            digests,
        }
    }

    fn forget(&mut self, now_ns: u64) {
        let timeout = self.config.ack_timeout_ns;
        self.sent
            .retain(|_, (_, sent_ns)| now_ns.saturating_sub(*sent_ns) < timeout);
    }
}

impl Digests {
    pub(crate) fn config(&self, id: u32) -> Option<DigestConfig> {
        self.enabled.get(&id).map(|d| d.config)
    }

    /// Ids and configurations of the enabled ones, in order.
    pub(crate) fn configs(&self) -> Vec<(u32, DigestConfig)> {
        let mut all: Vec<_> = self.enabled.iter().map(|(id, d)| (*id, d.config)).collect();
        all.sort_by_key(|c| c.0);
        all
    }

    /// Enables, reconfigures or disables.
    pub(crate) fn configure(&mut self, id: u32, config: Option<DigestConfig>) {
        match config {
            None => {
                self.enabled.remove(&id);
            }
            Some(config) => self.enabled.entry(id).or_default().config = config,
        }
    }

    /// A digest of the data plane; a list if one is full. Nothing comes of a digest that is not
    /// enabled, or that the controller knows.
    pub(crate) fn push(&mut self, id: u32, digest: Values, now_ns: u64) -> Option<List> {
        let found = self.enabled.get_mut(&id)?;
        found.forget(now_ns);
        if found.sent.contains_key(&digest) || !found.known.insert(digest.clone()) {
            return None;
        }
        if found.waiting.is_empty() {
            found.first_ns = now_ns;
        }
        found.waiting.push(digest);
        let limit = match found.config.max_list_size {
            0 => MAX_LIST,
            limit => limit.min(MAX_LIST),
        };
        let full = found.waiting.len() >= limit || found.config.max_timeout_ns == 0;
        full.then(|| found.list(id, &mut self.lists, now_ns))
    }

    /// The lists whose first digest has waited long enough.
    pub(crate) fn due(&mut self, now_ns: u64) -> Vec<List> {
        let mut lists = Vec::new();
        for (id, digest) in &mut self.enabled {
            let waited = now_ns.saturating_sub(digest.first_ns);
            if !digest.waiting.is_empty() && waited >= digest.config.max_timeout_ns {
                lists.push(digest.list(*id, &mut self.lists, now_ns));
            }
        }
        lists
    }

    /// Whether a list is being gathered.
    pub(crate) fn gathers(&self) -> bool {
        self.enabled.values().any(|d| !d.waiting.is_empty())
    }

    /// The controller has dealt with a list: its digests may be sent again.
    pub(crate) fn acknowledge(&mut self, id: u32, list_id: u64) {
        if let Some(digest) = self.enabled.get_mut(&id) {
            digest.sent.retain(|_, (list, _)| *list != list_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u32 = 7;

    fn digests(config: DigestConfig) -> Digests {
        let mut digests = Digests::default();
        digests.configure(ID, Some(config));
        digests
    }

    fn values(value: u8) -> Values {
        vec![vec![value]]
    }

    fn sent(list: Option<List>) -> Vec<u8> {
        let digests = list.map(|l| l.digests).unwrap_or_default();
        digests.into_iter().map(|d| d[0][0]).collect()
    }

    #[test]
    fn a_list_is_sent_when_it_is_full_or_old() {
        let mut d = digests(DigestConfig {
            max_timeout_ns: 100,
            max_list_size: 2,
            ack_timeout_ns: 0,
        });
        assert_eq!(d.push(ID, values(1), 0), None);
        // The same again is no second one.
        assert_eq!(d.push(ID, values(1), 1), None);
        assert_eq!(sent(d.push(ID, values(2), 2)), [1, 2]);
        assert!(!d.gathers());
        d.push(ID, values(1), 10);
        assert!(d.gathers());
        assert_eq!(d.due(109), []);
        assert_eq!(sent(d.due(110).pop()), [1]);
        assert_eq!(d.due(1_000), []);
    }

    #[test]
    fn without_a_timeout_each_is_sent_at_once() {
        let mut d = digests(DigestConfig::default());
        let first = d.push(ID, values(1), 0).unwrap();
        let second = d.push(ID, values(1), 0).unwrap();
        assert!(second.list_id > first.list_id);
    }

    #[test]
    fn what_was_sent_is_not_sent_again_until_acknowledged_or_forgotten() {
        let mut d = digests(DigestConfig {
            ack_timeout_ns: 100,
            ..DigestConfig::default()
        });
        let list = d.push(ID, values(1), 0).unwrap();
        assert_eq!(d.push(ID, values(1), 50), None);
        d.acknowledge(ID, list.list_id + 1);
        assert_eq!(d.push(ID, values(1), 51), None);
        d.acknowledge(ID, list.list_id);
        assert_eq!(sent(d.push(ID, values(1), 52)), [1]);
        assert_eq!(d.push(ID, values(1), 151), None);
        assert_eq!(sent(d.push(ID, values(1), 152)), [1]);
    }

    #[test]
    fn nothing_comes_of_what_is_not_enabled() {
        let mut d = digests(DigestConfig::default());
        assert_eq!(d.push(ID + 1, values(1), 0), None);
        d.configure(ID, None);
        assert_eq!(d.push(ID, values(1), 0), None);
        assert_eq!(d.configs(), []);
    }
}
