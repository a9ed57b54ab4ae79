//! Numbers for ECMP groups: routes with the same set of weighted paths share one.

use std::collections::HashMap;

use shunt_p4::{EcmpGroupId, NexthopId};

/// Groups at once: the size of the table `ecmp`.
pub(crate) const GROUPS_MAX: usize = 4096;

type Paths = Vec<(NexthopId, u16)>;

/// Groups in use. A number that is given back is the last to be given out again, so that a
/// route that has not been moved off it yet doesn't meet another group's paths.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_paths: HashMap<Paths, EcmpGroupId>,
    by_id: HashMap<EcmpGroupId, (Paths, u64)>,
    last: u16,
}

impl Groups {
    /// One user more of the group of these paths; and whether it is new. `None`: all numbers are
    /// in use.
    pub(crate) fn acquire(&mut self, paths: &[(NexthopId, u16)]) -> Option<(EcmpGroupId, bool)> {
        let mut paths = paths.to_vec();
        paths.sort_unstable();
        if let Some(id) = self.by_paths.get(&paths) {
            if let Some((_, users)) = self.by_id.get_mut(id) {
                *users += 1;
            }
            return Some((*id, false));
        }
        if self.by_id.len() >= GROUPS_MAX {
            return None;
        }
        let id = self.free()?;
        self.by_paths.insert(paths.clone(), id);
        self.by_id.insert(id, (paths, 1));
        Some((id, true))
    }

    /// A group's paths.
    pub(crate) fn paths(&self, id: EcmpGroupId) -> Option<&[(NexthopId, u16)]> {
        self.by_id.get(&id).map(|(paths, _)| paths.as_slice())
    }

    /// One user less; the paths, if it was the last.
    pub(crate) fn release(&mut self, id: EcmpGroupId) -> Option<Paths> {
        let (_, users) = self.by_id.get_mut(&id)?;
        *users = users.saturating_sub(1);
        if *users > 0 {
            return None;
        }
        let (paths, _) = self.by_id.remove(&id)?;
        self.by_paths.remove(&paths);
        Some(paths)
    }

    fn free(&mut self) -> Option<EcmpGroupId> {
        for _ in 0..=u16::MAX {
            self.last = self.last.wrapping_add(1);
            if let Some(id) = EcmpGroupId::new(self.last)
                && !self.by_id.contains_key(&id)
            {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(ids: &[u32]) -> Paths {
        ids.iter()
            .map(|id| (NexthopId::new(*id).unwrap(), 1))
            .collect()
    }

    #[test]
    fn equal_sets_share_a_group_whatever_their_order() {
        let mut groups = Groups::default();
        let (one, new) = groups.acquire(&paths(&[1, 2])).unwrap();
        assert!(new);
        assert_eq!(groups.acquire(&paths(&[2, 1])), Some((one, false)));
        let (other, new) = groups.acquire(&paths(&[1, 3])).unwrap();
        assert!(new && other != one);
        assert_eq!(groups.release(one), None);
        assert_eq!(groups.release(one), Some(paths(&[1, 2])));
        assert_eq!(groups.release(one), None);
    }

    #[test]
    fn numbers_end_and_are_not_reused_at_once() {
        let mut groups = Groups::default();
        let ids: Vec<EcmpGroupId> = (1..=GROUPS_MAX as u32)
            .map(|id| groups.acquire(&paths(&[id, id + 1])).unwrap().0)
            .collect();
        assert_eq!(groups.acquire(&paths(&[1, 9])), None);
        groups.release(ids[7]);
        let (id, _) = groups.acquire(&paths(&[1, 9])).unwrap();
        assert!(!ids.contains(&id));
    }
}
