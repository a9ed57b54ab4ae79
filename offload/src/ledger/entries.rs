//! What a unit writes.

use std::time::Duration;

use p4runtime::p4::v1::update::Type;
use shunt_p4::tables::FlowUpdate;
use shunt_p4::{FlowAction, FlowEntry, FlowKey, FlowPair};

use super::room::{Family, Place};
use crate::queue::OffloadUnit;
use crate::unit::Op;

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are pairs
pub(super) enum Entries {
    Pair(FlowPair),
    Orphan(FlowKey),
}

impl Entries {
    pub(super) fn keys(&self) -> [Option<FlowKey>; 2] {
        match self {
            Self::Pair(flows) => flows.keys.map(Some),
            Self::Orphan(key) => [Some(*key), None],
        }
    }

    /// What they take of the switch's room.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Pair(FlowPair {
                keys: [forward, _], ..
            }) => Place {
                family: Family::of(forward.tuple.is_ipv6()),
                entries: 2,
                vpc: Some(forward.vpc),
            },
            Self::Orphan(key) => Place {
                family: Family::of(key.tuple.is_ipv6()),
                entries: 1,
                vpc: None,
            },
        }
    }

    /// A write; `None` cannot be: addresses were checked at the start.
    pub(super) fn update(&self, index: usize, op: Op) -> Option<FlowUpdate> {
        match self {
            Self::Pair(pair) => {
                let kind = match op {
                    Op::Insert => Type::Insert,
                    Op::Modify => Type::Modify,
                    Op::Delete => Type::Delete,
                };
                let entry = match index {
                    0 => pair.forward(),
                    _ => pair.reply(),
                };
                FlowUpdate::new(kind, entry)
            }
            Self::Orphan(key) => {
                // A deletion takes the key alone.
                let flow = FlowEntry {
                    key: *key,
                    action: FlowAction {
                        vpc: key.vpc,
                        src: None,
                        dst: None,
                    },
                    idle_timeout: Duration::ZERO,
                };
                FlowUpdate::new(Type::Delete, flow)
            }
        }
    }
}

/// Two different keys, all addresses of one family.
pub(super) fn is_writable(unit: &OffloadUnit) -> bool {
    let [forward, reply] = &unit.flows.keys;
    let v6 = forward.tuple.is_ipv6();
    let mut addresses = [forward, reply]
        .into_iter()
        .flat_map(|key| [key.tuple.src, key.tuple.dst]);
    forward != reply && addresses.all(|address| address.is_ipv6() == v6)
}
