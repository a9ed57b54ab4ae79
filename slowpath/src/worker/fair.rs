//! Queues of frames by VPC, for when more arrives than a worker can walk: a flood in one VPC
//! waits for itself and is dropped by itself.
//!
//! ```text
//!   rx ──▶ by the VPC in the switch's header ──▶ a queue each, bounded ──▶ in turns, as many
//!          (full: dropped, counted for the VPC)                           frames as its weight
//! ```
//!
//! As long as a worker keeps up, none of this is touched. Sorting a frame costs a fraction of
//! walking it, so the port is emptied whatever one VPC sends, and the others' frames are found
//! among it. Frames leave in the order in which they were walked, so what is fair here is fair
//! on the way out.

use std::collections::VecDeque;

/// Frames of one VPC that wait. A turn's worth of the largest weight, and some bursts.
pub const VPC_FRAMES: usize = 512;

/// The largest weight of a VPC: frames that are walked in one turn.
pub const MAX_WEIGHT: u16 = 256;

/// The weight of a VPC unless configured.
pub const DEFAULT_WEIGHT: u16 = 16;

#[derive(Debug)]
struct Queue<T> {
    vpc: u16,
    frames: VecDeque<T>,
    /// Frames that it may still have walked in this turn.
    credit: u16,
}

/// The queues. A turn goes around all VPCs that have frames.
#[derive(Debug)]
pub struct Fair<T> {
    /// By VPC: its queue's place, plus one.
    places: Vec<u16>,
    queues: Vec<Queue<T>>,
    /// Queues with frames, the one whose turn it is in front.
    turn: VecDeque<u16>,
    waiting: usize,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            queues: Vec::new(),
            turn: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<T> Fair<T> {
    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Adds a frame of a VPC.
    ///
    /// # Errors
    /// The frame back: [`VPC_FRAMES`] of that VPC wait already.
    pub fn push(&mut self, vpc: u16, frame: T) -> Result<(), T> {
        let place = self.place(vpc);
        let Some(queue) = self.queues.get_mut(usize::from(place)) else {
            return Err(frame);
        };
        if queue.frames.len() >= VPC_FRAMES {
            return Err(frame);
        }
        if queue.frames.is_empty() {
            queue.credit = 0;
            self.turn.push_back(place);
        }
        queue.frames.push_back(frame);
        self.waiting += 1;
        Ok(())
    }

    fn place(&mut self, vpc: u16) -> u16 {
        let at = usize::from(vpc);
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        let Some(place) = self.places.get_mut(at) else {
            return 0;
        };
        if *place == 0 {
            // VPCs come and go with the configuration: what none uses is used again.
            let unused = self.queues.iter().position(|queue| queue.frames.is_empty());
            let new = match unused.filter(|_| self.queues.len() >= MAX_VPCS) {
                Some(unused) => unused,
                None => {
                    self.queues.push(Queue {
                        vpc,
                        frames: VecDeque::new(),
                        credit: 0,
                    });
                    self.queues.len() - 1
                }
            };
            *place = (new + 1) as u16;
            if let Some(queue) = self.queues.get_mut(new)
                && queue.vpc != vpc
            {
                let old = std::mem::replace(&mut queue.vpc, vpc);
                if let Some(place) = self.places.get_mut(usize::from(old)) {
                    *place = 0;
                }
            }
        }
        self.places.get(at).map_or(0, |place| place - 1)
    }

    /// The next frame in turn. `weight` says how many frames a VPC may have walked in a turn;
    /// at least one.
    pub fn pop(&mut self, weight: impl Fn(u16) -> u16) -> Option<T> {
        let place = *self.turn.front()?;
        let queue = self.queues.get_mut(usize::from(place))?;
        if queue.credit == 0 {
            queue.credit = weight(queue.vpc).clamp(1, MAX_WEIGHT);
        }
        let frame = queue.frames.pop_front()?;
        self.waiting -= 1;
        queue.credit -= 1;
        if queue.frames.is_empty() {
            self.turn.pop_front();
        } else if queue.credit == 0 {
            self.turn.rotate_left(1);
        }
        Some(frame)
    }
}

/// Queues that are kept for VPCs without frames; more are made while more VPCs have some.
const MAX_VPCS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn shares_are_as_the_weights_and_a_trickle_waits_for_one_turn() {
        let mut fair = Fair::default();
        let weight = |vpc| if vpc == 1 { 8 } else { 2 };
        let mut walked = [0; 4];
        for _ in 0..1000 {
            // Two VPCs send more than there is time for, the third one little.
            for vpc in [1, 2] {
                while fair.push(vpc, vpc).is_ok() {}
            }
            fair.push(3, 3).unwrap();
            for _ in 0..12 {
                walked[usize::from(fair.pop(weight).unwrap())] += 1;
            }
        }
        assert!(walked[3] >= 999, "{walked:?}");
        let ratio = f64::from(walked[1]) / f64::from(walked[2]);
        assert!((3.9..4.1).contains(&ratio), "{walked:?}");
    }

    proptest! {
        #[test]
        fn frames_keep_their_order_and_none_is_lost(
            ops in prop::collection::vec((any::<bool>(), 0u16..2000), 1..600),
        ) {
            let mut fair = Fair::default();
            let mut model: HashMap<u16, VecDeque<usize>> = HashMap::new();
            let mut waiting = 0;
            for (n, (push, vpc)) in ops.into_iter().enumerate() {
                if push {
                    let vpc = vpc % 7 * 300;
                    if fair.push(vpc, (vpc, n)).is_ok() {
                        model.entry(vpc).or_default().push_back(n);
                        waiting += 1;
                    }
                } else {
                    let popped = fair.pop(|vpc| vpc % 5);
                    prop_assert_eq!(popped.is_some(), waiting > 0);
                    if let Some((vpc, n)) = popped {
                        prop_assert_eq!(model.get_mut(&vpc).and_then(VecDeque::pop_front), Some(n));
                        waiting -= 1;
                    }
                }
                prop_assert_eq!(fair.len(), waiting);
            }
        }

        #[test]
        fn more_vpcs_than_queues_are_kept(vpcs in prop::collection::vec(1u16.., 1..3000)) {
            let mut fair = Fair::default();
            for vpc in vpcs {
                fair.push(vpc, vpc).unwrap();
                prop_assert_eq!(fair.pop(|_| 1), Some(vpc));
                prop_assert!(fair.queues.len() <= MAX_VPCS);
            }
        }
    }
}
