//! A new daemon's workers take the connections of the one before back: from the state file, or
//! from the entries in hardware; with the same ports, and with nothing left in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use common::cluster::foretold;
use common::*;
use proptest::prelude::*;
use shunt_offload::{ConnectionId, InstallerPort, OffloadCommand, OffloadEvent};
use shunt_p4::{FlowKey, SwitchIndex, Tuple, VpcId};
use shunt_slowpath::exception::{self, ExceptionReceiver, ExceptionSender};
use shunt_slowpath::nat::PortShare;
use shunt_slowpath::packet::VecBuf;
use shunt_slowpath::policy::{Filtering, Peering, PortRange};
use shunt_slowpath::record::StateFile;
use shunt_slowpath::worker::{
    Former, Refusal, Restored, SharedQuotas, Source, Verdict, Worker, WorkerConfig,
};
use shunt_slowpath::{DropReason, FibWriter, FlowFilter, FlowSide, FlowView, Policy, State};

const CAPACITY: u32 = 256;
const NEVER: u64 = u64::MAX;

fn switches() -> Vec<String> {
    vec!["sw1".to_owned()]
}

/// The workers of one daemon.
struct Daemon {
    fib: FibWriter,
    workers: Vec<Worker>,
    installers: Vec<InstallerPort>,
    state: Option<StateFile>,
    _ends: Vec<(ExceptionReceiver, ExceptionSender)>,
    now: u64,
}

impl Daemon {
    fn start(policy: Policy, count: u16, path: Option<&Path>, seed: u64) -> Self {
        let (mut fib, factory) = FibWriter::new();
        fib.apply(network());
        fib.set_policy(policy);
        fib.publish();
        let state = path.map(|path| {
            StateFile::begin(path, count, CAPACITY, seed, SECOND, &switches()).unwrap()
        });
        let seed = state.as_ref().map_or(seed, |state| state.seed);
        let (mut workers, mut installers, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let quotas = Arc::new(SharedQuotas::new(count, CAPACITY, seed));
        for worker in 0..count {
            let (offload, installer) = shunt_offload::channel(1024);
            let (port, receiver, sender) = exception::channel();
            ends.push((receiver, sender));
            installers.push(installer);
            let config = WorkerConfig {
                max_connections: CAPACITY,
                seed,
            };
            let share = PortShare {
                worker,
                workers: count,
            };
            let quotas = Arc::clone(&quotas);
            let (reader, offload) = (factory.reader(), vec![offload]);
            let mut made = Worker::shared(config, share, quotas, reader, offload, port);
            made.set_starting(true);
            if let Some(state) = &state {
                made.keep_records(state.records(worker), seed + u64::from(worker));
            }
            workers.push(made);
        }
        Self {
            fib,
            workers,
            installers,
            state,
            _ends: ends,
            now: SECOND,
        }
    }

    /// As the manager does it. How many were refused, by reason.
    fn restore(
        &mut self,
        first: usize,
        sources: &[Source],
    ) -> (Vec<(usize, ConnectionId)>, Vec<Refusal>) {
        let (mut here, mut refused) = (Vec::new(), Vec::new());
        for source in sources {
            let mut at = first % self.workers.len();
            for turn in 0..2 {
                match self.workers[at].restore(self.now, &[*source]).unwrap()[0] {
                    Restored::Here(id) => here.push((at, id)),
                    Restored::Refused(refusal) => refused.push(refusal),
                    Restored::Elsewhere(to) => {
                        assert_eq!(turn, 0, "sent on twice");
                        at = usize::from(to);
                        continue;
                    }
                }
                break;
            }
        }
        (here, refused)
    }

    fn restore_file(&mut self) -> (Vec<(usize, ConnectionId)>, Vec<Refusal>) {
        let former = self.state.as_mut().unwrap().former.take().unwrap();
        let (mut here, mut refused) = (Vec::new(), Vec::new());
        for worker in 0..former.workers() {
            let (records, next) = former.records(worker, 0, usize::MAX);
            assert_eq!(next, None);
            let sources: Vec<_> = records
                .iter()
                .map(|record| {
                    let switch = former.switch(record.switch, &switches());
                    Source::Record(Former::new(record, self.now, switch))
                })
                .collect();
            let (more, no) = self.restore(worker.into(), &sources);
            here.extend(more);
            refused.extend(no);
        }
        self.state.as_mut().unwrap().finish().unwrap();
        (here, refused)
    }

    fn started(&mut self) {
        self.workers
            .iter_mut()
            .for_each(|worker| worker.set_starting(false));
    }

    fn frame(&mut self, at: usize, interface: u16, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let sent = from_switch(interface, frame);
        let at = at % self.workers.len();
        let told = self.workers[at].trace(self.now, &sent);
        let mut buffer = VecBuf::new(&sent);
        let mut verdict = Verdict::Held;
        let frames = std::slice::from_mut(&mut buffer);
        self.workers[at].burst(self.now, frames, |_, seen| verdict = seen);
        assert!(foretold(&told, verdict), "{verdict:?}: {told:#?}");
        while let Verdict::Handover(to) | Verdict::Hairpin(to) = verdict {
            self.workers[usize::from(to)].burst_handed(self.now, frames, |_, seen| verdict = seen);
        }
        (verdict, buffer.into_vec())
    }

    fn flows(&self) -> Vec<(usize, FlowView)> {
        let all = self.workers.iter().enumerate();
        all.flat_map(|(n, worker)| {
            let filter = FlowFilter::default();
            let (flows, _) = worker.list_flows(self.now, &filter, 0, u32::MAX, usize::MAX);
            flows.into_iter().map(move |flow| (n, flow))
        })
        .collect()
    }

    /// Whose each connection is, its keys and where they are routed, and its state.
    fn table(&self) -> BTreeSet<String> {
        let told = |(at, flow): (usize, FlowView)| {
            let side = |side: &shunt_slowpath::FlowSide| (side.vpc, side.tuple, side.route_vpc);
            format!(
                "{at} {:?} {:?} {:?}",
                side(&flow.forward),
                side(&flow.reply),
                flow.state
            )
        };
        self.flows().into_iter().map(told).collect()
    }

    /// The same without direction and state.
    fn pairs(&self) -> BTreeSet<String> {
        let told = |(at, flow): (usize, FlowView)| {
            let mut sides = [flow.forward, flow.reply]
                .map(|side| format!("{:?}", (side.vpc, side.tuple, side.route_vpc)));
            sides.sort();
            format!("{at} {sides:?}")
        };
        self.flows().into_iter().map(told).collect()
    }

    fn pools(&self) -> Vec<String> {
        let all = self.workers.iter().enumerate();
        let mut pools: Vec<_> = all
            .flat_map(|(n, worker)| {
                let pools = worker.pool_use();
                pools.into_iter().map(move |pool| format!("{n} {pool:?}"))
            })
            .collect();
        pools.sort();
        pools
    }

    /// No two connections have a key of theirs in common.
    fn is_consistent(&self) {
        let mut keys: HashSet<FlowKey> = HashSet::new();
        for (_, flow) in self.flows() {
            for side in [flow.forward, flow.reply] {
                let key = FlowKey {
                    vpc: side.vpc,
                    tuple: side.tuple,
                };
                assert!(keys.insert(key), "{key:?} twice");
            }
        }
    }

    /// Every connection's packets, in both directions, are forwarded as they always were.
    fn forwards(&mut self) {
        let flows = self.flows();
        let sides = |(_, flow): &(usize, FlowView)| [flow.forward, flow.reply];
        let all: Vec<_> = flows.iter().flat_map(sides).collect();
        let shown = ["203.0.113.10", "203.0.113.11", "203.0.113.30"].map(ip);
        let outside =
            |vpc: VpcId, tuple: Tuple| vpc == common::vpc(WAN) && shown.contains(&tuple.src);
        for (n, (_, flow)) in flows.into_iter().enumerate() {
            let sides = [(&flow.forward, &flow.reply), (&flow.reply, &flow.forward)];
            for (at, (side, other)) in sides.into_iter().enumerate() {
                let (tuple, mut to) = (side.tuple, side.translated);
                assert_eq!(to, other.tuple.reversed());
                if outside(side.vpc, tuple) {
                    // From another worker only.
                    continue;
                }
                if outside(other.vpc, to) && outside(other.vpc, to.reversed()) {
                    // What there is of the other half, if the change has left it.
                    let half = |half: &&FlowSide| (half.vpc, half.tuple) == (other.vpc, to);
                    match all.iter().find(half) {
                        Some(half) => to = half.translated,
                        None => continue,
                    }
                }
                let src = (tuple.src, tuple.src_port).into();
                let dst = (tuple.dst, tuple.dst_port).into();
                let frame = match tuple.proto {
                    6 => tcp_with(src, dst, "A", 64, b"data"),
                    17 => udp_with(src, dst, 64, b"data"),
                    _ => {
                        let id = tuple.src_port.max(tuple.dst_port);
                        echo(&tuple.src.to_string(), &tuple.dst.to_string(), id, at == 0)
                    }
                };
                let (verdict, out) = self.frame(n, side.vpc.get(), &frame);
                assert_eq!(verdict, Verdict::Transmit, "{flow:?}");
                let seen = Seen::new(&out);
                assert_eq!(seen.src.ip(), to.src, "{flow:?}");
                assert_eq!(seen.dst.ip(), to.dst, "{flow:?}");
                if tuple.proto != 1 {
                    assert_eq!(
                        (seen.src.port(), seen.dst.port()),
                        (to.src_port, to.dst_port)
                    );
                }
            }
        }
    }

    /// All end, as soon as the engine lets go; nothing is leased any more.
    fn ends(&mut self) {
        for (worker, installer) in self.workers.iter_mut().zip(&mut self.installers) {
            let (_, next) = worker.delete_flows(self.now, &FlowFilter::default(), 0, u32::MAX);
            assert_eq!(next, None);
            while let Some(command) = installer.take() {
                if let OffloadCommand::Remove { id, .. } = command {
                    installer.send(OffloadEvent::Removed(id)).unwrap();
                }
            }
            worker.poll(self.now, &mut Vec::new());
        }
        assert_eq!(self.flows(), vec![]);
        assert_eq!(self.pools(), Vec::<String>::new());
    }
}

/// Everything that NAT does: masquerades, one of which lets others in, a static address, a
/// forwarded port, a peering.
fn everything() -> Policy {
    let mut policy = policy();
    policy.masquerades[1].filtering = Filtering::EndpointIndependent;
    policy.masquerades[1].pool = vec![ip("203.0.113.11").into()];
    policy.peerings = vec![Peering {
        from: vpc(RED),
        to: vpc(WAN),
        prefixes: vec!["2001:db8:9::/64".parse().unwrap()],
    }];
    policy
}

#[derive(Debug, Clone)]
enum Step {
    /// (VPC, client, server, protocol)
    Out(u16, u8, u8, u8),
    /// From outside, to a forwarded port or the static address.
    In(u8, u8),
    /// To what the n-th connection has leased, from inside and from outside.
    Leased(prop::sample::Index, bool),
    /// The n-th connection's other side answers, or its opener goes on.
    More(prop::sample::Index, bool, usize),
}

const FLAGS: [&str; 6] = ["SA", "A", "A", "A", "FA", "R"];

fn step() -> impl Strategy<Value = Step> {
    let n = any::<prop::sample::Index>;
    prop_oneof![
        4 => (prop_oneof![Just(RED), Just(BLUE)], 0u8..6, 0u8..3, 0u8..4)
            .prop_map(|(v, c, s, p)| Step::Out(v, c, s, p)),
        1 => (0u8..4, 0u8..4).prop_map(|(c, w)| Step::In(c, w)),
        2 => (n(), any::<bool>()).prop_map(|(n, inside)| Step::Leased(n, inside)),
        8 => (n(), any::<bool>(), 0..FLAGS.len()).prop_map(|(n, reply, f)| Step::More(n, reply, f)),
    ]
}

fn run(daemon: &mut Daemon, steps: &[Step]) {
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Out(vpc, client, server, proto) => {
                let port = 1000 + u16::from(client);
                let frame = match proto {
                    0 => tcp(
                        &format!("10.0.0.2:{port}"),
                        &format!("192.0.2.{server}:80"),
                        "S",
                    ),
                    1 => udp(&format!("10.0.0.3:{port}"), &format!("192.0.2.{server}:53")),
                    2 => udp(
                        &format!("[2001:db8:1::2]:{port}"),
                        &format!("[2001:db8:9::2]:{}", 50 + u16::from(server)),
                    ),
                    _ => echo("10.0.0.2", &format!("192.0.2.{server}"), port, true),
                };
                daemon.frame(at, vpc, &frame);
            }
            Step::In(client, what) => {
                let client = format!("203.0.113.2:{}", 4000 + u16::from(client));
                let (interface, frame) = match what {
                    0 => (WAN, tcp(&client, "203.0.113.10:8081", "S")),
                    1 => (WAN, udp(&client, "203.0.113.30:99")),
                    // Hairpins: from inside to what is inside.
                    2 => (RED, tcp("10.0.0.2:77", "203.0.113.10:8082", "S")),
                    _ => (BLUE, udp("10.0.0.2:78", "203.0.113.30:98")),
                };
                daemon.frame(at, interface, &frame);
            }
            Step::Leased(n, inside) => {
                let flows = daemon.flows();
                if flows.is_empty() {
                    continue;
                }
                let to = n.get(&flows).1.reply.tuple;
                if to.proto != 17 || !to.dst.is_ipv4() {
                    continue;
                }
                let to = format!("{}:{}", to.dst, to.dst_port);
                match inside {
                    true => daemon.frame(at, RED, &udp("10.0.0.2:79", &to)),
                    false => daemon.frame(at, WAN, &udp("203.0.113.2:80", &to)),
                };
            }
            Step::More(n, reply, flags) => {
                let flows = daemon.flows();
                if flows.is_empty() {
                    continue;
                }
                let (_, flow) = *n.get(&flows);
                let side = if reply { flow.reply } else { flow.forward };
                let tuple = side.tuple;
                let src = (tuple.src, tuple.src_port).into();
                let dst = (tuple.dst, tuple.dst_port).into();
                let frame = match tuple.proto {
                    6 => tcp_with(src, dst, FLAGS[flags], 64, b"data"),
                    17 => udp_with(src, dst, 64, b"data"),
                    _ => {
                        let id = tuple.src_port.max(tuple.dst_port);
                        echo(&tuple.src.to_string(), &tuple.dst.to_string(), id, !reply)
                    }
                };
                daemon.frame(at, side.vpc.get(), &frame);
            }
        }
    }
}

/// Packets that begin something, of each kind.
fn beginnings() -> Vec<(u16, Vec<u8>)> {
    vec![
        (RED, tcp("10.0.0.2:1", "192.0.2.1:80", "S")),
        (RED, tcp("10.0.0.2:1", "192.0.2.1:80", "A")),
        (BLUE, udp("10.0.0.2:1", "192.0.2.1:80")),
        (WAN, tcp("203.0.113.2:1", "203.0.113.10:8080", "S")),
        (WAN, tcp("203.0.113.2:1", "203.0.113.10:5000", "A")),
        (RED, udp("[2001:db8:1::2]:1", "[2001:db8:9::2]:2")),
        (RED, udp("10.0.0.2:1", "10.0.0.3:2")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_state_file_has_everything(
        steps in prop::collection::vec(step(), 1..60), count in 1u16..4, installed: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut first = Daemon::start(everything(), count, Some(&path), 42);
        first.state.as_mut().unwrap().finish().unwrap();
        first.started();
        run(&mut first, &steps);
        let (table, pools) = (first.table(), first.pools());
        // Killed: nothing is told to anybody. The next has another seed of its own.
        drop(first);
        let mut second = Daemon::start(everything(), count, Some(&path), 43);
        for (at, (interface, frame)) in beginnings().iter().enumerate() {
            let verdict = second.frame(at, *interface, frame).0;
            prop_assert_eq!(verdict, Verdict::Drop(DropReason::Starting));
        }
        let (here, refused) = second.restore_file();
        prop_assert_eq!(refused, vec![]);
        second.started();
        prop_assert_eq!(second.table(), table.clone());
        prop_assert_eq!(second.pools(), pools.clone());
        second.is_consistent();
        // A third, from what the second has written down.
        drop(second);
        let mut third = Daemon::start(everything(), count, Some(&path), 44);
        let (again, _) = third.restore_file();
        prop_assert_eq!(again.len(), here.len());
        third.started();
        prop_assert_eq!(third.table(), table);
        prop_assert_eq!(third.pools(), pools);
        for (at, id) in again {
            let now = third.now;
            third.workers[at].settle(now, &[(id, installed)]);
        }
        third.is_consistent();
        third.forwards();
        third.ends();
        drop(third);
        let mut fourth = Daemon::start(everything(), count, Some(&path), 45);
        prop_assert_eq!(fourth.restore_file(), (vec![], vec![]));
    }

    /// Without the file, by the entries; which direction was the opener's may be another one, but
    /// not who has which port.
    #[test]
    fn entries_in_hardware_have_their_connections(
        steps in prop::collection::vec(step(), 1..60), count in 1u16..4,
        turned in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut first = Daemon::start(everything(), count, None, 42);
        first.started();
        run(&mut first, &steps);
        let mut entries = Vec::new();
        for ((at, flow), turned) in first.flows().into_iter().zip(turned) {
            let mut pair = first.workers[at].units(&[flow.id])[0].flows.entries();
            if turned {
                pair.reverse();
            }
            entries.push(Source::Entries(pair, 0, SwitchIndex::MIN));
        }
        let mut second = Daemon::start(everything(), count, None, 42);
        let (here, refused) = second.restore(0, &entries);
        prop_assert_eq!(refused, vec![]);
        second.started();
        prop_assert_eq!(second.pairs(), first.pairs());
        prop_assert_eq!(second.pools(), first.pools());
        second.is_consistent();
        for (at, id) in here {
            let now = second.now;
            second.workers[at].settle(now, &[(id, true)]);
        }
        second.forwards();
        let open = |flow: &FlowView| matches!(flow.state, State::Established | State::Replied);
        prop_assert!(second.flows().iter().all(|(_, flow)| open(flow)));
    }

    /// Whatever is offered, tables and ports stay consistent, and a changed configuration has
    /// nothing in it that it does not allow.
    #[test]
    fn what_does_not_fit_is_refused(
        steps in prop::collection::vec(step(), 1..60), change in 0u8..5, count in 1u16..4,
        other_count in 1u16..4, twice: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut first = Daemon::start(everything(), count, Some(&path), 42);
        first.state.as_mut().unwrap().finish().unwrap();
        first.started();
        run(&mut first, &steps);
        let before = first.flows().len();
        drop(first);
        let mut changed = everything();
        match change {
            0 => changed.masquerades.clear(),
            1 => changed.static_nat.clear(),
            2 => changed.masquerades[0].pool = vec![ip("203.0.113.12").into()],
            3 => changed.masquerades[0].ports = PortRange::new(1024, 30_000).unwrap(),
            _ => changed.port_forwards.clear(),
        }
        let mut second = Daemon::start(changed, other_count, Some(&path), 43);
        let (here, refused) = second.restore_file();
        prop_assert_eq!(here.len() + refused.len(), before);
        if twice {
            // The same again, as entries.
            let mut sources = Vec::new();
            for (at, id) in &here {
                let unit = second.workers[*at].units(&[*id])[0];
                sources.push(Source::Entries(unit.flows.entries(), NEVER, SwitchIndex::MIN));
            }
            let (again, refused) = second.restore(0, &sources);
            prop_assert_eq!(again, vec![]);
            prop_assert!(refused.iter().all(|refusal| *refusal == Refusal::TupleInUse));
        }
        second.started();
        second.is_consistent();
        for (_, flow) in second.flows() {
            let translated = flow.forward.tuple.src != flow.forward.translated.src;
            let outside = flow.forward.translated.src;
            match change {
                0 => prop_assert!(!translated || outside == ip("203.0.113.30"), "{:?}", flow),
                2 if flow.forward.vpc == vpc(RED) => {
                    prop_assert!(outside != ip("203.0.113.10"), "{:?}", flow);
                }
                _ => {}
            }
        }
        for (at, id) in here {
            let now = second.now;
            second.workers[at].settle(now, &[(id, false)]);
        }
        second.forwards();
        second.ends();
    }
}

/// A connection that ended while nobody was there is not kept for another whole time-out; what
/// hardware still forwards is.
#[test]
fn what_was_silent_for_too_long_ends_unless_it_is_in_hardware() {
    for in_hardware in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut first = Daemon::start(everything(), 1, Some(&path), 42);
        first.state.as_mut().unwrap().finish().unwrap();
        first.started();
        first.frame(0, RED, &udp("10.0.0.2:1", "192.0.2.1:53"));
        drop(first);
        let mut second = Daemon::start(everything(), 1, Some(&path), 43);
        // An hour later.
        second.now += HOUR;
        let former = second.state.as_mut().unwrap().former.take().unwrap();
        let (records, _) = former.records(0, 0, usize::MAX);
        let source = Source::Record(Former::new(&records[0], SECOND, Some(SwitchIndex::MIN)));
        let (here, _) = second.restore(0, &[source]);
        second.started();
        let [(_, id)] = here[..] else {
            panic!("{here:?}")
        };
        // Until the switch has been heard it may be in hardware.
        second.workers[0].poll(second.now, &mut Vec::new());
        assert_eq!(second.flows().len(), 1);
        let now = second.now;
        second.workers[0].settle(now, &[(id, in_hardware)]);
        second.now += SECOND;
        second.workers[0].poll(second.now, &mut Vec::new());
        assert_eq!(second.flows().len(), usize::from(in_hardware));
        assert_eq!(second.pools().len(), usize::from(in_hardware));
    }
}

/// The gateway itself is reached while connections are taken back; nobody is told that there is
/// no route.
#[test]
fn the_gateway_itself_answers_while_it_starts() {
    let mut daemon = Daemon::start(everything(), 1, None, 42);
    let for_kernel = tcp("203.0.113.2:1", "203.0.113.1:179", "S");
    assert_eq!(daemon.frame(0, WAN, &for_kernel).0, Verdict::Exception);
    // To a pool's address, which is the tap's too: a kernel that heard of it would reset it.
    let for_nat = tcp("192.0.2.1:80", "203.0.113.10:5000", "A");
    assert_eq!(
        daemon.frame(0, WAN, &for_nat).0,
        Verdict::Drop(DropReason::Starting)
    );
    daemon.fib.apply([shunt_p4::NetworkOp::SetRoute(
        vpc(PLAIN),
        "0.0.0.0/0".parse().unwrap(),
        shunt_p4::Route::Unreachable,
    )]);
    daemon.fib.publish();
    let nowhere = udp("10.4.0.2:1", "192.0.2.1:53");
    assert_eq!(
        daemon.frame(0, PLAIN, &nowhere).0,
        Verdict::Drop(DropReason::Starting)
    );
    daemon.started();
    assert_eq!(
        daemon.frame(0, PLAIN, &nowhere).0,
        Verdict::Answered(DropReason::Unreachable)
    );
}
