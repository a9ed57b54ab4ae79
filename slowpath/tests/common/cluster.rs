//! Several workers in the small network, each frame given to any of them.

use std::sync::Arc;

use shunt_offload::InstallerPort;
use shunt_p4::{PuntReason, ShuntHeader};
use shunt_slowpath::exception::{self, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::worker::{SharedQuotas, Verdict, Worker, WorkerConfig};
use shunt_slowpath::{DropReason, FibWriter, FlowFilter, FlowView, Policy};

use super::{SECOND, network};

pub struct Cluster {
    pub fib: FibWriter,
    pub workers: Vec<Worker>,
    _ends: Vec<(InstallerPort, ExceptionReceiver, ExceptionSender)>,
    pub now: u64,
    pub handovers: usize,
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
        }
    }

    /// The frame arrives at worker `at`, which may hand it over, once.
    pub fn frame(&mut self, at: usize, interface: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let header = ShuntHeader {
            reason: PuntReason::FlowMiss as u8,
            interface,
            vpc: interface,
            port: interface,
            flow_hash: 7,
        };
        let sent = [header.encode().as_slice(), frame].concat();
        let mut buffer = VecBuf::new(&sent);
        let mut verdict = Verdict::Held;
        let now = self.now;
        let told = self.workers[at].trace(now, &sent);
        let frames = std::slice::from_mut(&mut buffer);
        self.workers[at].burst(now, frames, |_, seen| verdict = seen);
        let unlucky = told.any_port && verdict == Verdict::Drop(DropReason::TupleInUse);
        assert!(told.verdict == verdict || unlucky, "{verdict:?}: {told:#?}");
        if let Verdict::Handover(to) = verdict {
            assert_eq!(buffer.clone().into_vec(), sent, "handed over as it came");
            assert_ne!(usize::from(to), at);
            self.handovers += 1;
            let frames = std::slice::from_mut(&mut buffer);
            self.workers[usize::from(to)].burst_handed(now, frames, |_, seen| verdict = seen);
            assert!(!matches!(verdict, Verdict::Handover(_)), "handed on");
        }
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

    pub fn pass(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.now = (self.now + 10 * SECOND).min(end);
            for worker in &mut self.workers {
                while worker.poll(self.now, &mut Vec::new()) > 0 {}
            }
        }
    }
}
