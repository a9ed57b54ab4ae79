//! Several workers in the small network, each frame given to any of them.

use std::sync::Arc;

use shunt_offload::InstallerPort;
use shunt_slowpath::exception::{self, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::packet::{Packet, VecBuf};
use shunt_slowpath::worker::{MAX_HANDOVERS, Output, SharedQuotas, Verdict, Worker, WorkerConfig};
use shunt_slowpath::{DropReason, FibWriter, FlowFilter, FlowView, Policy, Trace};

use super::{SECOND, from_switch, network};

/// Where frames go that a poll brings.
#[derive(Default)]
struct Rings {
    sent: Vec<Vec<u8>>,
    handed: Vec<(u16, Vec<u8>)>,
}

impl Output for Rings {
    fn transmit(&mut self, head: &[u8], frame: &[u8]) -> bool {
        self.sent.push([head, frame].concat());
        true
    }

    fn hand_over(&mut self, worker: u16, frame: &[u8]) -> bool {
        self.handed.push((worker, frame.to_vec()));
        true
    }
}

/// Whether a trace told what became of a frame, as far as that can be told.
pub fn foretold(told: &Trace, verdict: Verdict) -> bool {
    // The ports that it tried belong to connections without NAT.
    let unlucky = verdict == Verdict::Drop(DropReason::TupleInUse);
    // Which worker is the other half's may depend on the port.
    let inside = told.steps.iter().any(|step| step.stage == "hairpin");
    let either = inside && matches!(verdict, Verdict::Hairpin(_) | Verdict::Transmit);
    told.verdict == verdict || told.any_port && (unlucky || either)
}

pub struct Cluster {
    pub fib: FibWriter,
    pub workers: Vec<Worker>,
    _ends: Vec<(InstallerPort, ExceptionReceiver, ExceptionSender)>,
    pub now: u64,
    pub handovers: usize,
    /// Packets whose way two workers shared.
    pub hairpins: usize,
}

impl Cluster {
    pub fn new(policy: Policy, workers: u16) -> Self {
        let (mut fib, factory) = FibWriter::new();
        fib.apply(network());
        fib.set_policy(policy);
        fib.publish();
        let mut ends = Vec::new();
        let quotas = Arc::new(SharedQuotas::new(workers, 1024, 42));
        let workers = (0..workers)
            .map(|worker| {
                let (offload, installer) = shunt_offload::channel(1024);
                let (port, receiver, sender) = exception::channel();
                ends.push((installer, receiver, sender));
                let config = WorkerConfig {
                    max_connections: 1024,
                    seed: 42,
                };
                let share = PortShare { worker, workers };
                let quotas = Arc::clone(&quotas);
                Worker::shared(config, share, quotas, factory.reader(), vec![offload], port)
            })
            .collect();
        Self {
            fib,
            workers,
            _ends: ends,
            now: SECOND,
            handovers: 0,
            hairpins: 0,
        }
    }

    /// The frame arrives at worker `at`, which may hand it over, once.
    pub fn frame(&mut self, at: usize, interface: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let sent = from_switch(interface, frame);
        let mut buffer = VecBuf::new(&sent);
        let mut verdict = Verdict::Held;
        let now = self.now;
        let told = self.workers[at].trace(now, &sent);
        let frames = std::slice::from_mut(&mut buffer);
        self.workers[at].burst(now, frames, |_, seen| verdict = seen);
        assert!(foretold(&told, verdict), "{verdict:?}: {told:#?}");
        let mut before = at;
        let mut handed = 0;
        while let Verdict::Handover(to) | Verdict::Hairpin(to) = verdict {
            let to = usize::from(to);
            if verdict == Verdict::Hairpin(to as u16) {
                return self.hairpin(before, to, buffer);
            }
            assert_eq!(buffer.clone().into_vec(), sent, "handed over as it came");
            assert_ne!(to, before);
            before = to;
            handed += 1;
            let told = self.workers[to].trace_handed(now, &sent);
            let frames = std::slice::from_mut(&mut buffer);
            self.workers[to].burst_handed(now, frames, |_, seen| verdict = seen);
            assert!(foretold(&told, verdict), "{verdict:?}: {told:#?}");
        }
        let fragment = Packet::parse(frame).is_ok_and(|packet| packet.is_fragment());
        assert!(
            handed <= if fragment { MAX_HANDOVERS } else { 1 },
            "{handed}"
        );
        self.handovers += handed;
        (verdict, buffer.into_vec())
    }

    pub fn flows(&self) -> Vec<(usize, FlowView)> {
        let all = self.workers.iter().enumerate();
        all.flat_map(|(n, worker)| {
            let filter = FlowFilter::default();
            let (flows, _) = worker.list_flows(self.now, &filter, 0, u32::MAX, usize::MAX);
            flows.into_iter().map(move |flow| (n, flow))
        })
        .collect()
    }

    /// Time passes; says what leaves.
    pub fn pass(&mut self, ns: u64) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let end = self.now + ns;
        loop {
            for at in 0..self.workers.len() {
                let mut rings = Rings::default();
                while self.workers[at].poll(self.now, &mut rings) > 0 {}
                sent.append(&mut rings.sent);
                for (to, frame) in rings.handed {
                    assert_ne!(usize::from(to), at);
                    let (verdict, out) = self.handed(usize::from(to), &frame);
                    sent.extend(verdict.is_transmit().then_some(out));
                }
            }
            if self.now >= end {
                return sent;
            }
            self.now = (self.now + 10 * SECOND).min(end);
        }
    }

    /// The second half of a packet's way from inside to inside; an error about it comes back.
    fn hairpin(&mut self, from: usize, to: usize, mut buffer: VecBuf) -> (Verdict, Vec<u8>) {
        self.hairpins += 1;
        let (mut from, mut to) = (from, to);
        for _ in 0..2 {
            assert_ne!(from, to, "both halves are its own");
            let mut verdict = Verdict::Held;
            let frames = std::slice::from_mut(&mut buffer);
            self.workers[to].burst_handed(self.now, frames, |_, seen| verdict = seen);
            match verdict {
                Verdict::Hairpin(next) => (from, to) = (to, next.into()),
                Verdict::Handover(_) => panic!("handed on"),
                _ => return (verdict, buffer.into_vec()),
            }
        }
        panic!("there and back again");
    }

    /// A frame that was handed over while no frame arrived.
    fn handed(&mut self, at: usize, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = VecBuf::new(frame);
        let mut verdict = Verdict::Held;
        let (now, frames) = (self.now, std::slice::from_mut(&mut buffer));
        self.workers[at].burst_handed(now, frames, |_, seen| verdict = seen);
        assert!(!matches!(verdict, Verdict::Handover(_)), "handed on");
        match verdict {
            Verdict::Hairpin(to) => self.hairpin(at, to.into(), buffer),
            verdict => (verdict, buffer.into_vec()),
        }
    }
}
