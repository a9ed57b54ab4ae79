//! Comparing what is known with a dump, without a second copy of what is the same: a table of a
//! million routes is compared every half a minute.
//!
//! A dump tells the routes of a prefix in the kernel's order. As long as they are the ones that are
//! known, in the same order, it is enough to count them; a prefix with another one is copied.

use ipnet::IpNet;

use super::{Entry, List, Rib, RouteKey};
use crate::kernel::message::RouteInfo;

impl Rib {
    /// Forgets a comparison that came to no end.
    pub(crate) fn begin_comparison(&mut self) {
        if std::mem::take(&mut self.comparing) {
            for list in self.routes.values_mut() {
                list.confirmed = 0;
            }
        }
    }

    /// Takes the next route of a dump. Prefixes that are not as known go to `fresh`.
    pub(crate) fn compare(&mut self, fresh: &mut Rib, info: RouteInfo) {
        let key = (info.table, info.prefix);
        let entry = Entry::new(info);
        if !fresh.routes.contains_key(&key)
            && let Some(known) = self.routes.get_mut(&key)
        {
            self.comparing = true;
            let at = known.confirmed as usize;
            if known.entries.get(at) == Some(&entry) {
                known.confirmed += 1;
                return;
            }
            for same in known.entries.iter().take(at) {
                fresh.append(key, same.clone());
            }
        }
        fresh.append(key, entry);
    }

    /// Ends the comparison of a family: what the dump did not tell of goes, what it told otherwise
    /// comes. Says for each prefix that differs what it had and what it has.
    pub(crate) fn end_comparison(
        &mut self,
        mut fresh: Rib,
        family: impl Fn(&IpNet) -> bool,
        mut differs: impl FnMut(&RouteKey, &[Entry], &[Entry]),
    ) {
        self.comparing = false;
        self.routes.retain(|key, list| {
            if !family(&key.1) {
                return true;
            }
            let confirmed = std::mem::take(&mut list.confirmed) as usize;
            if let Some(now) = fresh.routes.remove(key) {
                // Dumped in another order it may be the same after all.
                if now.entries != list.entries {
                    differs(key, &list.entries, &now.entries);
                    *list = now;
                }
                return true;
            }
            if confirmed < list.entries.len() {
                let now: Box<[Entry]> = list.entries.iter().take(confirmed).cloned().collect();
                differs(key, &list.entries, &now);
                list.entries = now;
            }
            !list.entries.is_empty()
        });
        for (key, list) in &fresh.routes {
            differs(key, &[], &list.entries);
        }
        if self.routes.is_empty() {
            // The first dump: nothing is copied.
            self.routes = fresh.routes;
        } else {
            self.routes.extend(fresh.routes);
        }
    }

    fn append(&mut self, key: RouteKey, entry: Entry) {
        let list = self.routes.entry(key).or_default();
        list.change(1, |entries| {
            // Behind those of its rank: what is in a dump twice is there twice.
            let at = super::equals(entries, &entry).end;
            entries.insert(at, entry);
        });
    }
}

impl List {
    /// Changes the list, by `more` routes at most. It has no room to spare afterwards.
    pub(super) fn change<T>(&mut self, more: usize, how: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        let mut entries = std::mem::take(&mut self.entries).into_vec();
        entries.reserve_exact(more);
        let what = how(&mut entries);
        self.entries = entries.into_boxed_slice();
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::message::{Path, Placement, RouteType};

    fn route(prefix: &str, metric: u32, index: u32) -> RouteInfo {
        RouteInfo {
            table: 101,
            prefix: prefix.parse().unwrap(),
            tos: 0,
            metric,
            kind: RouteType::Unicast,
            protocol: 3,
            nexthop: None,
            mtu: None,
            extras: 0,
            paths: vec![Path {
                index,
                gateway: None,
                weight: 1,
                flags: 0,
                encapsulated: false,
            }],
        }
    }

    /// Compares with a dump; returns the prefixes that differ, sorted, with the devices of their
    /// routes before and after.
    fn dump(rib: &mut Rib, routes: &[RouteInfo]) -> Vec<(String, Vec<u32>, Vec<u32>)> {
        let mut fresh = Rib::default();
        rib.begin_comparison();
        for route in routes {
            rib.compare(&mut fresh, route.clone());
        }
        let devices = |list: &[Entry]| list.iter().map(|entry| entry.paths[0].index).collect();
        let mut different = Vec::new();
        rib.end_comparison(
            fresh,
            |net| matches!(net, IpNet::V4(_)),
            |key, before, after| {
                different.push((key.1.to_string(), devices(before), devices(after)));
            },
        );
        different.sort();
        different
    }

    #[test]
    fn only_what_differs_is_told_and_copied() {
        let mut rib = Rib::default();
        let (a, b, c) = ("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16");
        let known = [
            route(a, 0, 1),
            route(a, 5, 2),
            route(b, 0, 3),
            route(c, 0, 4),
        ];
        let told = dump(&mut rib, &known);
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], (a.to_owned(), vec![], vec![1, 2]));
        assert_eq!(dump(&mut rib, &known), []);
        // Another order of prefixes, and of one prefix, is the same table.
        let turned = [
            known[3].clone(),
            known[1].clone(),
            known[2].clone(),
            known[0].clone(),
        ];
        assert_eq!(dump(&mut rib, &turned), []);
        // One is gone behind another, one is otherwise, one is new, one has gone altogether.
        let d = "10.3.0.0/16";
        let later = [known[0].clone(), route(b, 0, 9), route(d, 0, 7)];
        assert_eq!(
            dump(&mut rib, &later),
            [
                (a.to_owned(), vec![1, 2], vec![1]),
                (b.to_owned(), vec![3], vec![9]),
                (c.to_owned(), vec![4], vec![]),
                (d.to_owned(), vec![], vec![7]),
            ]
        );
        assert_eq!(rib.iter().count(), 3);
        // The first one is told of twice now.
        let twice = [
            later[0].clone(),
            later[0].clone(),
            later[1].clone(),
            later[2].clone(),
        ];
        assert_eq!(
            dump(&mut rib, &twice),
            [(a.to_owned(), vec![1], vec![1, 1])]
        );
        // Other families are left alone.
        rib.insert(route("2001:db8::/32", 0, 1), Placement::First);
        assert_eq!(dump(&mut rib, &twice), []);
        assert_eq!(rib.iter().count(), 4);
    }

    /// A dump that the kernel cuts short counts for nothing.
    #[test]
    fn a_comparison_that_comes_to_no_end_is_forgotten() {
        let mut rib = Rib::default();
        let known = [route("10.0.0.0/8", 0, 1), route("10.1.0.0/16", 0, 2)];
        dump(&mut rib, &known);
        rib.begin_comparison();
        let mut fresh = Rib::default();
        rib.compare(&mut fresh, known[0].clone());
        rib.compare(&mut fresh, known[0].clone());
        assert_eq!(dump(&mut rib, &known), []);
        rib.begin_comparison();
        rib.compare(&mut Rib::default(), known[0].clone());
        let gone = ("10.0.0.0/8".to_owned(), vec![1], vec![]);
        assert_eq!(dump(&mut rib, &known[1..]), [gone]);
    }
}
