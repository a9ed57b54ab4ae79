//! What a parser value set holds.

/// One member, packed as the select key is: each part padded to whole bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    /// For a range part its low end; elsewhere stored masked.
    pub(crate) value: Box<[u8]>,
    /// For a range part its high end.
    pub(crate) mask: Box<[u8]>,
}

/// The members, and which bytes of the key are ranges (offset and length).
#[derive(Debug, Default)]
pub(crate) struct ValueSetState {
    pub(crate) members: Vec<Member>,
    pub(crate) ranges: Box<[(usize, usize)]>,
}

impl ValueSetState {
    /// Whether a member matches the key.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.members.iter().any(|member| self.matches(member, key))
    }

    fn matches(&self, member: &Member, key: &[u8]) -> bool {
        let in_range = |at: usize| {
            self.ranges
                .iter()
                .any(|(o, len)| (*o..o + len).contains(&at))
        };
        let bytes = key.iter().zip(&member.value).zip(&member.mask).enumerate();
        let masked = bytes
            .into_iter()
            .all(|(at, ((k, v), m))| in_range(at) || k & m == *v);
        masked
            && self.ranges.iter().all(|(offset, len)| {
                let part = *offset..offset + len;
                let key = key.get(part.clone());
                key >= member.value.get(part.clone()) && key <= member.mask.get(part)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_match_by_mask_and_range() {
        let set = ValueSetState {
            members: vec![Member {
                value: [0x10, 5, 0].into(),
                mask: [0xf0, 9, 0].into(),
            }],
            ranges: [(1, 1)].into(),
        };
        for (key, expected) in [
            ([0x1f, 5, 7], true),
            ([0x10, 9, 0], true),
            ([0x10, 4, 0], false),
            ([0x10, 10, 0], false),
            ([0x20, 5, 0], false),
        ] {
            assert_eq!(set.contains(&key), expected, "{key:?}");
        }
        assert!(!ValueSetState::default().contains(&[0x10, 5, 0]));
    }
}
