//! A worker with two switches: what is whose, and that neither waits for the other. The test plays
//! both offload engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use common::*;
use shunt_offload::{InstallerPort, OffloadCommand, OffloadEvent, OffloadUnit};
use shunt_p4::{NetworkOp, SwitchIndex};
use shunt_slowpath::exception::{self, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::worker::{SharedQuotas, Verdict, Worker, WorkerConfig};
use shunt_slowpath::{DropReason, FibWriter, FlowFilter, FlowView, Offload};

const CLIENT: &str = "10.0.0.2:1234";
const SERVER: &str = "192.0.2.80:53";

struct Two {
    fib: FibWriter,
    worker: Worker,
    installers: [InstallerPort; 2],
    _kernel: (ExceptionReceiver, ExceptionSender),
    now: u64,
}

fn place(n: usize) -> SwitchIndex {
    SwitchIndex::of(n)
}

/// The network, with these interfaces on the second switch.
fn split(second: &[u16]) -> Vec<NetworkOp> {
    let mut ops = network();
    for op in &mut ops {
        if let NetworkOp::SetInterface(interface) = op {
            interface.switch = place(usize::from(second.contains(&interface.id.get())));
        }
    }
    ops
}

impl Two {
    /// Each ring takes so many commands.
    fn new(second: &[u16], queue: usize) -> Self {
        let (mut fib, factory) = FibWriter::new();
        fib.apply(split(second));
        fib.set_policy(policy());
        fib.publish();
        let (ports, installers): (Vec<_>, Vec<_>) =
            (0..2).map(|_| shunt_offload::channel(queue)).unzip();
        let (port, receiver, sender) = exception::channel();
        let config = WorkerConfig {
            max_connections: 64,
            seed: 42,
        };
        let (quotas, share) = (Arc::new(SharedQuotas::new(1, 64, 42)), PortShare::ALL);
        let worker = Worker::shared(config, share, quotas, factory.reader(), ports, port);
        Self {
            fib,
            worker,
            installers: installers.try_into().ok().unwrap(),
            _kernel: (receiver, sender),
            now: SECOND,
        }
    }

    /// A frame that comes from a switch, and names an interface.
    fn frame(&mut self, switch: usize, interface: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut frames = [VecBuf::from(from_switch(interface, frame))];
        let mut seen = None;
        self.worker
            .burst_from(place(switch), self.now, &mut frames, |_, verdict| {
                seen = Some(verdict);
            });
        let [frame] = frames;
        (seen.unwrap(), frame.into_vec())
    }

    fn forwarded(&mut self, switch: usize, interface: u16, frame: &[u8]) -> Seen {
        let (verdict, out) = self.frame(switch, interface, frame);
        assert_eq!(verdict, Verdict::Transmit);
        Seen::new(&out)
    }

    /// A request and its reply, of a client in a VPC on one switch by way of the wan on another;
    /// the outside end.
    fn exchange(&mut self, switches: [usize; 2], vpc: u16, client: &str) -> String {
        let out = self.forwarded(switches[0], vpc, &udp(client, SERVER));
        assert_eq!(out.interface, WAN);
        let outside = out.src.to_string();
        let back = self.forwarded(switches[1], WAN, &udp(SERVER, &outside));
        assert_eq!((back.interface, back.dst), (vpc, sock(client)));
        outside
    }

    fn install(&mut self, switch: usize) -> OffloadUnit {
        match self.installers[switch].take() {
            Some(OffloadCommand::Install(unit)) => unit,
            other => panic!("no installation but {other:?}"),
        }
    }

    fn event(&mut self, switch: usize, event: OffloadEvent) {
        self.installers[switch].send(event).unwrap();
        self.worker.poll(self.now, &mut Vec::new());
    }

    fn flows(&self) -> Vec<FlowView> {
        let all = FlowFilter::default();
        let (flows, _) = self.worker.list_flows(self.now, &all, 0, u32::MAX, 100);
        flows
    }

    fn leased(&self) -> u32 {
        self.worker.pool_use().iter().map(|pool| pool.leased).sum()
    }
}

#[test]
fn a_connection_goes_to_the_switch_that_both_its_interfaces_are_on() {
    let mut two = Two::new(&[BLUE, WAN], 64);
    two.exchange([1, 1], BLUE, CLIENT);
    let unit = two.install(1);
    assert_eq!(two.installers[0].take(), None);
    two.event(1, OffloadEvent::Installed(unit.id));
    let [flow] = two.flows()[..] else { panic!() };
    assert_eq!((flow.offload, flow.switch), (Offload::Installed, place(1)));
}

#[test]
fn a_connection_between_two_switches_stays_in_software_and_is_counted() {
    let mut two = Two::new(&[WAN], 64);
    let outside = two.exchange([0, 1], RED, CLIENT);
    assert_eq!(two.worker.stats().offload_across, 1);
    // Not asked again at every packet.
    for _ in 0..10 {
        two.forwarded(0, RED, &udp(CLIENT, SERVER));
        two.forwarded(1, WAN, &udp(SERVER, &outside));
    }
    assert_eq!(two.worker.stats().offload_across, 1);
    assert_eq!([0, 1].map(|n| two.installers[n].take()), [None, None]);
    let frame = from_switch(RED, &udp(CLIENT, SERVER));
    let told = two.worker.trace(two.now, &frame);
    let said = told.steps.iter().find(|step| step.stage == "offload");
    assert!(
        said.unwrap().text.contains("different switches"),
        "{told:?}"
    );
    // The wan moves to the first switch: it is offered again after a while.
    two.fib.apply(split(&[]));
    two.fib.publish();
    two.now += 10 * SECOND;
    two.worker.poll(two.now, &mut Vec::new());
    two.forwarded(0, RED, &udp(CLIENT, SERVER));
    two.install(0);
}

/// What a switch names is held against its own interfaces, on the short way and on the long one.
#[test]
fn a_switch_does_not_speak_for_another_s_interface() {
    let mut two = Two::new(&[WAN], 64);
    two.exchange([0, 1], RED, CLIENT);
    for interface in [RED, BLUE] {
        let (verdict, _) = two.frame(1, interface, &udp(CLIENT, SERVER));
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownInterface));
    }
    two.forwarded(0, RED, &udp(CLIENT, SERVER));
    assert_eq!(two.worker.stats().dropped(DropReason::UnknownInterface), 2);
}

#[test]
fn a_full_queue_to_one_switch_holds_nothing_back_from_the_other() {
    // Red and wan on the first; another wan would be needed on the second, so plain traffic
    // between red and blue is what it gets.
    let mut two = Two::new(&[], 2);
    let clients: Vec<String> = (1..=3).map(|n| format!("10.0.0.2:{n}")).collect();
    for client in &clients[..2] {
        two.exchange([0, 0], RED, client);
    }
    // The first engine takes nothing: its ring is full of two installations, and both removals
    // wait.
    two.worker
        .delete_flows(two.now, &FlowFilter::default(), 0, u32::MAX);
    let removing = |two: &Two| {
        let flows = two.flows().into_iter();
        flows
            .filter(|flow| flow.offload == Offload::RemoveQueued)
            .count()
    };
    assert_eq!((removing(&two), two.leased()), (2, 2));
    // All moves to the second: a connection goes into hardware there and out of it.
    two.fib.apply(split(&[RED, BLUE, WAN]));
    two.fib.publish();
    two.exchange([1, 1], RED, &clients[2]);
    let unit = two.install(1);
    two.event(1, OffloadEvent::Installed(unit.id));
    two.worker
        .delete_flows(two.now, &FlowFilter::default(), 0, u32::MAX);
    two.worker.poll(two.now, &mut Vec::new());
    let decided_ns = two.now;
    let remove = OffloadCommand::Remove {
        id: unit.id,
        decided_ns,
    };
    assert_eq!(two.installers[1].take(), Some(remove));
    two.event(1, OffloadEvent::Removed(unit.id));
    assert_eq!((removing(&two), two.leased()), (2, 2));
    // The first one wakes up.
    let waiting = [two.install(0), two.install(0)];
    two.worker.poll(two.now, &mut Vec::new());
    for unit in waiting {
        // Another switch's word does not count.
        two.event(1, OffloadEvent::Removed(unit.id));
    }
    assert_eq!(two.leased(), 2);
    for unit in waiting {
        two.event(0, OffloadEvent::Removed(unit.id));
    }
    assert_eq!((two.flows().len(), two.leased()), (0, 0));
}
