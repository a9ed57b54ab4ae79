//! A burst: what its frames need is asked for before the first of them takes its way.

use super::{Core, Verdict, fast, fresh};
use crate::conntrack::Direction;
use crate::fib::Fib;
use crate::packet::PacketBuf;

/// Frames that are read before the first of them is looked up.
pub(super) const STAGED: usize = 32;

/// What is known of a frame of a burst before the first one is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Walk,
    /// It has no connection here so far, and is no other worker's.
    Ours,
    /// It has no connection here so far, and is that worker's.
    There(u16),
    /// Its connection is probably in that slot.
    Here(u32, Direction),
}

impl Core {
    /// Every frame is read before the first one's connection is looked for, so that the memory
    /// that all of them need comes while the others are read. What a frame finds is decided in
    /// their order: the second packet of a connection finds what the first one made.
    pub(super) fn burst<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frames: &mut [B],
        mut verdict: impl FnMut(usize, Verdict),
    ) {
        let mut plain = [fast::Plain::NONE; STAGED];
        let mut is_plain = [false; STAGED];
        let mut known = fast::Ingresses::default();
        for ((frame, plain), is_plain) in frames.iter().zip(&mut plain).zip(&mut is_plain) {
            let frame = frame.data();
            self.count_received(frame.len());
            *is_plain = self.plain(fib, &mut known, frame, plain).is_some();
        }
        // In a loop of its own, see [`Core::grants`].
        for (plain, is_plain) in plain.iter().zip(is_plain) {
            if is_plain {
                self.table.prefetch(&plain.flow);
            }
        }
        let mut found = [Found::Walk; STAGED];
        let mut any_ours = false;
        for ((plain, is_plain), found) in plain.iter().zip(is_plain).zip(&mut found) {
            if is_plain {
                *found = self.look(fib, plain);
                if *found == Found::Ours {
                    any_ours = true;
                    let key = &plain.flow.key;
                    self.hops.prefetch(key.vpc(), key.dst());
                }
            }
        }
        let mut granted = None;
        if any_ours {
            let granted = granted.insert([const { fresh::Granted::NONE }; STAGED]);
            self.grants(fib, &plain, &found, granted);
        }
        let made = self.stats.connections_created;
        for (n, ((frame, plain), found)) in frames.iter_mut().zip(&plain).zip(&found).enumerate() {
            let leaves = match found {
                Found::Here(slot, direction) => {
                    self.forward(fib, now_ns, plain, *slot, *direction, frame.data_mut())
                }
                _ => None,
            };
            let seen = match leaves {
                Some(len) => {
                    // Padding of a short frame is the ingress link's, not the packet's.
                    frame.truncate(len);
                    Verdict::Transmit
                }
                None => {
                    let granted = granted.as_mut().and_then(|granted| granted.get_mut(n));
                    self.otherwise(fib, now_ns, frame, plain, *found, granted, made)
                }
            };
            if seen.is_transmit() {
                self.stats.sent.add(frame.data().len());
            }
            verdict(n, seen);
        }
    }

    /// A frame that is not plainly of a connection that we have. `made`: as for
    /// [`Core::pass_on`].
    #[inline(never)] // so that the loop over those that are stays small
    #[allow(clippy::too_many_arguments)]
    fn otherwise<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        frame: &mut B,
        plain: &fast::Plain,
        found: Found,
        granted: Option<&mut fresh::Granted>,
        made: u64,
    ) -> Verdict {
        let seen = match found {
            Found::There(worker) => self.pass_on(plain, worker, made),
            Found::Ours => {
                granted.and_then(|granted| self.begin(fib, now_ns, plain, granted, frame))
            }
            Found::Here(slot, _) => self.forward_other(fib, now_ns, plain, slot, frame),
            Found::Walk => None,
        };
        seen.unwrap_or_else(|| {
            self.ours = found == Found::Ours;
            let seen = self.process(fib, now_ns, frame);
            self.ours = false;
            seen
        })
    }

    /// A packet whose hash led to that slot: it may be another connection's.
    #[inline(never)]
    fn forward_other<B: PacketBuf>(
        &mut self,
        fib: &Fib,
        now_ns: u64,
        plain: &fast::Plain,
        not: u32,
        frame: &mut B,
    ) -> Option<Verdict> {
        let (slot, direction) = self.table.find_hashed(&plain.flow)?;
        if slot == not {
            return None;
        }
        let len = self.forward(fib, now_ns, plain, slot, direction, frame.data_mut())?;
        frame.truncate(len);
        Some(Verdict::Transmit)
    }

    /// Asks for what a plain packet will need, and says what that is.
    #[inline(always)]
    fn look(&mut self, fib: &Fib, plain: &fast::Plain) -> Found {
        match self.table.prefetch_connection(&plain.flow) {
            Some((slot, direction)) => Found::Here(slot, direction),
            None => self.look_further(fib, plain),
        }
    }

    fn look_further(&mut self, fib: &Fib, plain: &fast::Plain) -> Found {
        if self.share.workers <= 1 || self.handed {
            return Found::Ours;
        }
        match self.early_owner(fib, &plain.flow.key) {
            Some(owner) if owner != self.share.worker => Found::There(owner),
            Some(_) => Found::Ours,
            None => Found::Walk,
        }
    }

    /// Hands a packet to the worker that it belongs to. `made`: connections that there had been
    /// when it was looked for here. `None`: it takes the walk.
    #[inline]
    fn pass_on(&mut self, plain: &fast::Plain, worker: u16, made: u64) -> Option<Verdict> {
        let may_be_here = self.stats.connections_created != made;
        if may_be_here && self.table.find_hashed(&plain.flow).is_some() {
            return None;
        }
        self.count_punt(plain.reason());
        self.stats.handed_over += 1;
        Some(Verdict::Handover(worker))
    }
}
