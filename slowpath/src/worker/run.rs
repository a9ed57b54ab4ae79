//! The loop that drives a worker on DPDK, until it is told to stop.
//!
//! ```text
//!   rx burst ──▶ Worker::burst ──▶ tx burst ──▶ Worker::poll ──▶ commands ──▶ again
//!                                              └─ nothing to do for SPINS rounds: sleep
//! ```

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use shunt_dpdk::{Burst, Mbuf, Pool, RxQueue, TxQueue};
use shunt_offload::Clock;

use super::{Output, Verdict, Worker};
use crate::stats::DropReason;

/// Rounds without work before the first sleep.
pub const SPINS: u32 = 64;

/// Times a full transmit queue is offered the rest of a burst before that is dropped.
pub const TX_TRIES: u32 = 16;

/// What the manager asks of a worker, between two bursts. It may look and change; it must be
/// short, because packets wait.
pub type Command = Box<dyn FnOnce(&mut Worker, u64) + Send>;

/// The queues of one worker.
#[derive(Debug)]
pub struct Queues {
    /// From the switch.
    pub rx: RxQueue,
    /// To the switch.
    pub tx: TxQueue,
    /// Where buffers for our own frames come from.
    pub pool: Pool,
}

/// A worker and its queues.
#[derive(Debug)]
pub struct Runner {
    worker: Worker,
    queues: Queues,
    received: Burst,
}

impl Runner {
    /// Nothing happens before the first [`Runner::round`].
    pub fn new(worker: Worker, queues: Queues) -> Self {
        Self {
            worker,
            queues,
            received: Burst::new(),
        }
    }

    /// One turn: a burst in and out, then what no frame brings along. Says how much it did.
    pub fn round(&mut self, clock: impl Fn() -> u64) -> usize {
        let Self {
            worker,
            queues,
            received,
        } = self;
        let mut work = queues.rx.burst(received);
        let mut sender = Sender {
            queues,
            burst: Burst::new(),
            unsent: 0,
        };
        if work > 0 {
            let mut send = [false; shunt_dpdk::CAPACITY];
            worker.burst(clock(), received, |n, verdict: Verdict| {
                if let Some(send) = send.get_mut(n) {
                    *send = verdict.is_transmit();
                }
            });
            for (mbuf, send) in received.drain().zip(send) {
                if send {
                    sender.push(mbuf);
                }
            }
            sender.flush();
        }
        work += worker.poll(clock(), &mut sender);
        sender.flush();
        let unsent = sender.unsent;
        worker.count_unsent(DropReason::TxFull, unsent);
        work
    }

    /// Sends what waits back as it came: what a round costs without the worker.
    pub fn reflect(&mut self) {
        self.queues.rx.burst(&mut self.received);
        self.queues.tx.burst(&mut self.received);
        self.received.clear();
    }

    /// The worker, between two rounds.
    pub fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

/// Runs until the manager drops its end of `commands`. Then what waits is still sent.
pub fn run(
    worker: Worker,
    queues: Queues,
    commands: &Receiver<Command>,
    clock: &Clock,
    idle_sleep: Duration,
) {
    let mut runner = Runner::new(worker, queues);
    let mut idle = 0;
    loop {
        let mut work = runner.round(|| clock.now_ns());
        match commands.try_recv() {
            Ok(command) => {
                command(runner.worker(), clock.now_ns());
                work += 1;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        if work > 0 {
            idle = 0;
        } else {
            idle += 1;
            if idle < SPINS {
                std::hint::spin_loop();
            } else if !idle_sleep.is_zero() {
                idle = SPINS;
                std::thread::sleep(idle_sleep);
            }
        }
    }
}

/// Collects frames into bursts for the transmit queue.
struct Sender<'a> {
    queues: &'a mut Queues,
    burst: Burst,
    unsent: usize,
}

impl Sender<'_> {
    fn push(&mut self, mbuf: Mbuf) {
        if let Err(mbuf) = self.burst.push(mbuf) {
            self.flush();
            // Empty now, so it fits.
            let _ = self.burst.push(mbuf);
        }
    }

    fn flush(&mut self) {
        for _ in 0..TX_TRIES {
            if self.burst.is_empty() {
                return;
            }
            self.queues.tx.burst(&mut self.burst);
        }
        self.unsent += self.burst.len();
        self.burst.clear();
    }
}

impl Output for Sender<'_> {
    fn transmit(&mut self, head: &[u8], frame: &[u8]) -> bool {
        let filled = self.queues.pool.alloc().and_then(|mut mbuf| {
            mbuf.extend_from_slice(head)?;
            mbuf.extend_from_slice(frame)?;
            Some(mbuf)
        });
        match filled {
            Some(mbuf) => {
                self.push(mbuf);
                true
            }
            None => false,
        }
    }
}
