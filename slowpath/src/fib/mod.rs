//! The tables that workers read: network and policy, in a left-right pair.
//!
//! The controller writes [`shunt_p4::NetworkOp`]s and policies and publishes in batches; each worker holds
//! a [`FibReader`] and enters it once a burst. Readers never wait; a publish waits until every
//! worker has left the old copy, which is at most one burst. Every operation is applied to both
//! copies, so a batch costs what changed, not the table's size.

mod never;
mod review;
mod table;

use std::sync::Arc;

use left_right::{Absorb, ReadGuard, ReadHandle, ReadHandleFactory, WriteHandle};
use shunt_p4::NetworkOp;

pub use review::{MAX_REMEMBERED, MAX_WITHDRAWN, Scope};
pub use table::{Fib, NextHop, Resolution};

use crate::conntrack::TimeoutTable;
use crate::nat::Rules;
use crate::policy::Policy;
pub(crate) use never::Never;

/// The policy and its lowered form; one for both copies.
#[derive(Debug, Default)]
pub struct PolicySnapshot {
    /// As configured.
    pub policy: Policy,
    /// NAT rules and peerings, for lookup.
    pub rules: Rules,
    timeouts: TimeoutTable,
    never: Never,
}

impl PolicySnapshot {
    fn new(policy: Policy) -> Self {
        Self {
            rules: Rules::new(&policy),
            timeouts: TimeoutTable::new(&policy.timeouts),
            never: Never::new(&policy.offload.never_ports),
            policy,
        }
    }
}

/// One change, applied once to each copy.
#[derive(Debug, Clone)]
enum FibOp {
    Network(NetworkOp),
    Policy(Arc<PolicySnapshot>),
    /// Every connection is to be held against the tables.
    Review,
    Generation(u64),
}

impl Absorb<FibOp> for Fib {
    fn absorb_first(&mut self, op: &mut FibOp, _: &Self) {
        absorb(self, op.clone());
    }

    fn absorb_second(&mut self, op: FibOp, _: &Self) {
        absorb(self, op);
    }

    fn sync_with(&mut self, first: &Self) {
        *self = first.clone();
    }
}

fn absorb(fib: &mut Fib, op: FibOp) {
    match op {
        FibOp::Network(op) => fib.apply(op),
        FibOp::Policy(policy) => fib.set_policy(policy),
        FibOp::Review => fib.review(),
        FibOp::Generation(generation) => fib.set_generation(generation),
    }
}

/// The only writer.
#[derive(Debug)]
pub struct FibWriter {
    writer: WriteHandle<Fib, FibOp>,
    generation: u64,
}

impl FibWriter {
    /// Empty tables with the default policy, published, and where readers come from.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (FibWriter, FibReaderFactory) {
        let (mut writer, reader) = left_right::new_from_empty(Fib::default());
        writer.publish();
        (
            Self {
                writer,
                generation: 0,
            },
            FibReaderFactory(reader.factory()),
        )
    }

    /// Queues changes, in this order. Nobody sees them before [`FibWriter::publish`].
    pub fn apply(&mut self, ops: impl IntoIterator<Item = NetworkOp>) {
        for op in ops {
            self.writer.append(FibOp::Network(op));
        }
    }

    /// Queues a new policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.writer
            .append(FibOp::Policy(Arc::new(PolicySnapshot::new(policy))));
    }

    /// Queues a look at every connection: those that were taken over from a daemon before were
    /// made by routes that are not known here.
    pub fn review(&mut self) {
        self.writer.append(FibOp::Review);
    }

    /// Shows everything queued to the workers, at once. Waits for their current bursts. Says
    /// whether it may contradict connections that there are: the workers look through them from
    /// now on (see [`FibWriter::generation`]).
    pub fn publish(&mut self) -> bool {
        if !self.writer.has_pending_operations() {
            return false;
        }
        let before = self.generation;
        self.generation += 1;
        self.writer.append(FibOp::Generation(self.generation));
        self.writer.publish();
        let fib = self.published();
        fib.is_some_and(|fib| !fib.to_review(before).is_empty())
    }

    /// The tables as published last.
    pub fn published(&self) -> Option<ReadGuard<'_, Fib>> {
        self.writer.enter()
    }

    /// Of what was published last.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Makes readers, one a worker.
#[derive(Debug, Clone)]
pub struct FibReaderFactory(ReadHandleFactory<Fib>);

impl FibReaderFactory {
    /// A reader; stays on one thread.
    pub fn reader(&self) -> FibReader {
        FibReader(self.0.handle())
    }
}

/// A worker's view.
#[derive(Debug)]
pub struct FibReader(ReadHandle<Fib>);

impl FibReader {
    /// The tables as last published, unchanged while the guard lives; keep it for a burst, not
    /// longer. `None` when the writer has gone.
    pub fn enter(&self) -> Option<ReadGuard<'_, Fib>> {
        self.0.enter()
    }
}

/// The writer moves between tasks, the factory is shared.
const _: () = {
    const fn is_send<T: Send>() {}
    const fn is_sync<T: Sync>() {}
    is_send::<FibWriter>();
    is_send::<FibReaderFactory>();
    is_sync::<FibReaderFactory>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Peering;
    use shunt_p4::{Vpc, VpcId};

    fn vpc(id: u16) -> Vpc {
        Vpc {
            id: VpcId::new(id).unwrap(),
            name: format!("v{id}"),
            stateless: false,
        }
    }

    #[test]
    fn changes_show_when_published_and_in_both_copies() {
        let (mut writer, factory) = FibWriter::new();
        let reader = factory.reader();
        writer.apply([NetworkOp::SetVpc(vpc(1))]);
        assert!(reader.enter().unwrap().vpc(vpc(1).id).is_none());
        writer.publish();
        assert!(reader.enter().unwrap().vpc(vpc(1).id).is_some());
        for id in 2..6 {
            writer.apply([NetworkOp::SetVpc(vpc(id))]);
            writer.publish();
            let fib = reader.enter().unwrap();
            for seen in 1..=id {
                assert!(fib.vpc(vpc(seen).id).is_some(), "{seen} after {id}");
            }
        }
    }

    #[test]
    fn a_policy_reaches_readers_and_raises_the_generation() {
        let (mut writer, factory) = FibWriter::new();
        let reader = factory.reader();
        let (a, b) = (vpc(1).id, vpc(2).id);
        let before = reader.enter().unwrap().generation();
        let peerings = vec![Peering {
            from: a,
            to: b,
            prefixes: Vec::new(),
        }];
        writer.set_policy(Policy {
            peerings,
            ..Policy::default()
        });
        writer.publish();
        let fib = reader.enter().unwrap();
        let anywhere = "192.0.2.1".parse().unwrap();
        assert!(fib.rules().may_cross(a, b, anywhere));
        assert!(!fib.rules().may_cross(b, a, anywhere));
        assert!(fib.generation() > before);
    }

    #[test]
    fn readers_outlive_the_writer() {
        let (writer, factory) = FibWriter::new();
        let reader = factory.reader();
        drop(writer);
        assert!(reader.enter().is_none());
    }
}
