//! The switch: ports on one side, the loaded program on the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use arc_swap::{ArcSwap, ArcSwapOption};
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4::v1 as pb;
use tokio::sync::mpsc::Sender;

use crate::clock::{Clock, SystemClock};
use crate::exec::trace::{Delivery, Trace};
use crate::exec::{Context, Outcome, Registers, Sink, Worker};
use crate::info::Info;
use crate::log::PacketTrace;
use crate::port::{
    Burst, Captures, ChannelPort, InterfaceError, InterfacePort, Outgoing, Port, PortError, Way,
};
use crate::program::Program;
use crate::program::error::LoadError;
use crate::server::{Deviations, Formats, UndoLog, Writer};
use crate::state::entry::{Entry, Spec, Target};
use crate::state::profile::Call;
use crate::state::{State, lock};

/// The default of `--drop-port`, as simple_switch's.
pub const DROP_PORT: u32 = 511;

/// Takes each packet's trace, in the thread that ran the packet: what takes time, such as
/// rendering it, is better done elsewhere.
pub type TraceSink = Arc<dyn Fn(PacketTrace) + Send + Sync>;

/// What a switch is made with.
#[derive(Clone)]
pub struct Options {
    /// P4Runtime's device id; not 0.
    pub device_id: u64,
    /// The egress port that means "drop".
    pub drop_port: u32,
    /// Queues of each port. A packet whose priority is that of no queue is dropped.
    pub priority_queues: u32,
    /// The port whose frames go to the controller.
    pub cpu_port: Option<u32>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who wants to see each packet's way.
    pub trace: Option<TraceSink>,
    /// Where each port's frames are captured, if anywhere.
    pub captures: Option<Captures>,
    /// How the P4Runtime server departs from the specification.
    pub deviations: Deviations,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device_id: 1,
            drop_port: DROP_PORT,
            priority_queues: 1,
            cpu_port: None,
            clock: Arc::new(SystemClock::default()),
            trace: None,
            captures: None,
            deviations: Deviations::default(),
        }
    }
}

/// What happened to frames since the switch started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received on ports.
    pub received: u64,
    /// Frames handed to ports.
    pub transmitted: u64,
    /// Copies that the program dropped.
    pub dropped: u64,
    /// Frames for ports that do not exist.
    pub no_port: u64,
    /// Frames that a full or broken port did not take.
    pub port_refused: u64,
    /// Frames received while no program was loaded.
    pub no_program: u64,
    /// Copies dropped because a frame went round too often.
    pub looped: u64,
    /// Received frames longer than [`crate::MAX_FRAME_BYTES`].
    pub oversized: u64,
    /// Packet-ins, digests and notifications that nobody took in time.
    pub events_lost: u64,
    /// Frames that are missing in captures, because the disk is slower than the ports.
    pub capture_lost: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    transmitted: AtomicU64,
    dropped: AtomicU64,
    no_port: AtomicU64,
    port_refused: AtomicU64,
    no_program: AtomicU64,
    looped: AtomicU64,
    oversized: AtomicU64,
    events_lost: AtomicU64,
}

/// What the control plane is to hear of.
#[derive(Debug)]
pub(crate) enum Event {
    PacketIn(Vec<u8>),
    Digest { id: u32, values: Vec<Vec<u8>> },
    Idle { table: usize, entries: Vec<Entry> },
}

/// A loaded program with its state.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: Program,
    pub(crate) state: State,
    pub(crate) info: Info,
    pub(crate) formats: Formats,
}

impl Loaded {
    /// Compiles the program and checks the P4Info against it.
    pub(crate) fn new(json: &[u8], p4info: P4Info) -> Result<Self, LoadError> {
        let program = Program::load(json)?;
        let info = Info::bind(p4info, &program)?;
        let state = State::new(&program);
        let formats = Formats::new(&program, &info);
        let loaded = Self {
            program,
            state,
            info,
            formats,
        };
        loaded.release();
        Ok(loaded)
    }

    /// Entries that a program brings are constant, unless the P4Info says that their table is not
    /// (`entries` without `const`).
    fn release(&self) {
        for table in self.info.tables.values().filter(|t| !t.is_const) {
            let Some(state) = self.state.tables.get(table.index) else {
                continue;
            };
            let mut brought = Vec::new();
            let done: Result<(), ()> = state.scan(|entry| brought.push(entry.clone()), || Ok(()));
            debug_assert!(done.is_ok());
            for old in brought {
                if let Target::Call { slot, args } = old.target()
                    && state.remove(old.key()).is_ok()
                {
                    let args = args.into();
                    let call = Call { slot, args };
                    let entry = Entry::with_call(&old.pattern(), &call, Spec::default());
                    // There is room, for it was here just now.
                    let _ = state.insert(entry);
                }
            }
        }
    }
}

/// The loaded program as packets take it. Nothing but a packet in work refers to it, so that
/// whoever takes it away knows when the last such packet is done.
#[derive(Debug)]
struct Running(Arc<Loaded>);

/// What threads share.
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) loaded: ArcSwapOption<Loaded>,
    /// What packets run through; none without a program, and while packets are held.
    running: ArcSwapOption<Running>,
    /// Held while packets are.
    held: Mutex<()>,
    /// Replaced whole when a port is connected, so that packets need no lock.
    ports: ArcSwap<HashMap<u32, Arc<dyn Port>>>,
    events: Mutex<Option<Sender<Event>>>,
    counters: Counters,
    /// Packets traced so far.
    traced: AtomicU64,
}

struct Ports<'a> {
    inner: &'a Inner,
    /// Where frames wait for the end of their burst; none sends each at once.
    burst: Option<&'a mut Burst>,
}

impl Sink for Ports<'_> {
    fn transmit(&mut self, port: u32, frame: &[u8]) -> Delivery {
        match &mut self.burst {
            None => self.inner.transmit(port, frame),
            Some(burst) => {
                burst.push(port, frame);
                if burst.is_full() {
                    self.inner.flush(burst);
                }
                Delivery::Sent
            }
        }
    }

    fn digest(&mut self, id: u32, values: Vec<Vec<u8>>) {
        self.inner.event(Event::Digest { id, values });
    }
}

fn count(counter: &AtomicU64, by: usize) {
    if by > 0 {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }
}

impl Inner {
    /// Runs frames that came in at `port` together; when this returns, all that comes of them
    /// has left. They have one time stamp.
    pub(crate) fn process<'f>(
        &self,
        worker: &mut Worker,
        port: u32,
        frames: impl Iterator<Item = &'f [u8]>,
    ) {
        let mut running = self.running.load();
        if running.is_none() {
            drop(lock(&self.held));
            running = self.running.load();
        }
        let Some(Running(loaded)) = running.as_deref() else {
            let lost = frames.count();
            count(&self.counters.received, lost);
            count(&self.counters.no_program, lost);
            return;
        };
        let now_ns = self.options.clock.now_ns();
        let mut context = Context {
            program: &loaded.program,
            state: &loaded.state,
            drop_port: self.options.drop_port,
            priority_queues: self.options.priority_queues,
            now_ns,
            trace: None,
            large: 0,
            memos: std::mem::take(&mut worker.memos).of(&loaded.state),
            registers: Registers::default(),
        };
        let mut burst = std::mem::take(&mut worker.burst);
        let (mut received, mut dropped, mut looped) = (0, 0, 0);
        let captures = self.options.captures.as_ref();
        let mut frames = frames.inspect(|frame| {
            received += 1;
            if let Some(captures) = captures {
                captures.frame(port, Way::In, frame);
            }
        });
        if self.options.trace.is_none() && loaded.program.takes_turns {
            let mut ports = Ports {
                inner: self,
                burst: Some(&mut burst),
            };
            let outcome = worker.process_burst(&mut context, port, &mut frames, &mut ports);
            (dropped, looped) = (outcome.dropped, outcome.looped);
        }
        for frame in frames {
            context.trace = self.options.trace.as_ref().map(|_| Trace::default());
            let mut ports = Ports {
                inner: self,
                // A trace tells what became of each frame.
                burst: context.trace.is_none().then_some(&mut burst),
            };
            let outcome: Outcome = worker.process(&mut context, port, frame, &mut ports);
            dropped += outcome.dropped;
            looped += outcome.looped;
            if let (Some(sink), Some(trace)) = (&self.options.trace, context.trace.take()) {
                let number = self.traced.fetch_add(1, Ordering::Relaxed);
                sink(PacketTrace {
                    loaded: Arc::clone(loaded),
                    number,
                    time_ns: now_ns,
                    port,
                    frame: frame.into(),
                    trace,
                });
            }
        }
        // Who sees a frame that has left, finds it counted.
        context.memos.settle_all(&loaded.state, now_ns);
        worker.memos = context.memos;
        self.flush(&mut burst);
        worker.burst = burst;
        count(&self.counters.received, received);
        count(&self.counters.dropped, dropped as usize);
        count(&self.counters.looped, looped as usize);
    }

    /// Sends what waits.
    fn flush(&self, burst: &mut Burst) {
        burst.drain(|port, frames| match frames {
            [frame] => {
                self.transmit(port, frame);
            }
            _ if self.options.cpu_port == Some(port) => {
                for frame in frames {
                    self.transmit(port, frame);
                }
            }
            _ => match self.ports.load().get(&port) {
                None => count(&self.counters.no_port, frames.len()),
                Some(found) => {
                    let sent = found.transmit_burst(frames);
                    if let Some(captures) = &self.options.captures {
                        for frame in frames.iter().take(sent) {
                            captures.frame(port, Way::Out, frame);
                        }
                    }
                    count(&self.counters.transmitted, sent);
                    count(&self.counters.port_refused, frames.len() - sent);
                }
            },
        });
    }

    /// Packets run through this program from now on.
    pub(crate) fn install(&self, loaded: Arc<Loaded>) {
        let _held = lock(&self.held);
        self.running
            .store(Some(Arc::new(Running(Arc::clone(&loaded)))));
        self.loaded.store(Some(loaded));
    }

    /// Does something that every packet is to see whole or not at all: packets in work end
    /// first, and those that come wait, as long as `change` takes. A port that has a frame run
    /// while it takes another would wait for itself.
    pub(crate) fn between_packets<T>(&self, change: impl FnOnce() -> T) -> T {
        let _held = lock(&self.held);
        let running = self.running.swap(None);
        let loaded = running.as_ref().map(|r| Arc::clone(&r.0));
        if let Some(mut running) = running {
            // A burst takes microseconds.
            while Arc::get_mut(&mut running).is_none() {
                std::thread::yield_now();
            }
        }
        let done = change();
        self.running
            .store(loaded.map(|loaded| Arc::new(Running(loaded))));
        done
    }

    fn transmit(&self, port: u32, frame: &[u8]) -> Delivery {
        if self.options.cpu_port == Some(port) {
            self.event(Event::PacketIn(frame.to_vec()));
            return Delivery::Controller;
        }
        let (counter, delivery) = match self.ports.load().get(&port) {
            None => (&self.counters.no_port, Delivery::NoPort),
            Some(found) => match found.transmit(frame) {
                Ok(()) => {
                    if let Some(captures) = &self.options.captures {
                        captures.frame(port, Way::Out, frame);
                    }
                    (&self.counters.transmitted, Delivery::Sent)
                }
                Err(error) => {
                    if let PortError::Interface(why) = error {
                        tracing::debug!(port, why, "a frame could not be sent");
                    }
                    (&self.counters.port_refused, Delivery::Refused)
                }
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
        delivery
    }

    /// Tells the control plane, if it listens and keeps up.
    pub(crate) fn event(&self, event: Event) {
        let taken = lock(&self.events)
            .as_ref()
            .is_some_and(|events| events.try_send(event).is_ok());
        if !taken {
            self.counters.events_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends events from now on here.
    pub(crate) fn listen(&self, events: Sender<Event>) {
        *lock(&self.events) = Some(events);
    }

    /// Connects a port.
    pub(crate) fn attach(&self, port: u32, to: Arc<dyn Port>) {
        self.ports.rcu(|ports| {
            let mut ports = HashMap::clone(ports);
            ports.insert(port, Arc::clone(&to));
            ports
        });
    }

    pub(crate) fn count_event_lost(&self) {
        self.counters.events_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_oversized(&self) {
        self.counters.oversized.fetch_add(1, Ordering::Relaxed);
    }

    /// Notifies idle entries, in groups of at most `limit`.
    pub(crate) fn sweep(&self, limit: usize) {
        let Some(loaded) = self.loaded.load_full() else {
            return;
        };
        let now = self.options.clock.now_ns();
        let tables = loaded.program.tables.iter().zip(&loaded.state.tables);
        for (index, (table, state)) in tables.enumerate() {
            if !table.support_timeout {
                continue;
            }
            state.sweep(now, limit, |entries| {
                self.event(Event::Idle {
                    table: index,
                    entries,
                });
            });
        }
    }
}

/// A switch. Clones are handles to the same switch.
#[derive(Clone)]
pub struct Switch(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Switch(device {})", self.0.options.device_id)
    }
}

impl Switch {
    /// A switch without ports and without a program.
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            options,
            loaded: ArcSwapOption::empty(),
            running: ArcSwapOption::empty(),
            held: Mutex::default(),
            ports: ArcSwap::default(),
            events: Mutex::new(None),
            counters: Counters::default(),
            traced: AtomicU64::new(0),
        }))
    }

    /// Loads a program (the JSON's text) with its P4Info; all state starts afresh.
    ///
    /// # Errors
    /// The program is refused as [`LoadError`] says, and the old one stays.
    pub fn load(&self, json: &[u8], p4info: P4Info) -> Result<(), LoadError> {
        let loaded = Loaded::new(json, p4info)?;
        self.0.install(Arc::new(loaded));
        Ok(())
    }

    /// Adds an in-process port that holds up to `capacity` frames on their way out.
    pub fn attach_channel(&self, port: u32, capacity: usize) -> ChannelPort {
        let (sender, receiver) = mpsc::sync_channel(capacity);
        if let Some(captures) = &self.0.options.captures
            && let Err(error) = captures.add(port, &format!("port{port}"))
        {
            tracing::error!(port, %error, "the port is not captured");
        }
        self.0.attach(port, Arc::new(Outgoing(sender)));
        ChannelPort {
            port,
            inner: Arc::clone(&self.0),
            frames: Mutex::new(receiver),
            worker: Mutex::default(),
        }
    }

    /// Adds a port of the caller's own making, which receives nothing by itself.
    pub fn attach_port(&self, port: u32, to: Arc<dyn Port>) {
        self.0.attach(port, to);
    }

    /// Adds a network interface, and a thread that receives from it until the result is dropped.
    ///
    /// # Errors
    /// The interface is missing or cannot be opened.
    pub fn attach_interface(
        &self,
        port: u32,
        interface: &str,
    ) -> Result<InterfacePort, InterfaceError> {
        InterfacePort::attach(&self.0, port, interface)
    }

    /// Runs a frame as if it came in at `port`; for callers that receive by themselves.
    pub fn inject(&self, port: u32, frame: &[u8]) {
        let frames = std::iter::once(frame);
        self.0.process(&mut Worker::default(), port, frames);
    }

    /// Inserts an entity as a primary's Write does; for who holds the switch in his own process.
    ///
    /// # Errors
    /// What a Write would be answered.
    pub fn insert(&self, entity: pb::Entity) -> Result<(), String> {
        let loaded = self.0.loaded.load_full();
        let loaded = loaded.ok_or_else(|| "no program is loaded".to_owned())?;
        let update = pb::Update {
            r#type: pb::update::Type::Insert.into(),
            entity: Some(entity),
        };
        let now_ns = self.0.options.clock.now_ns();
        Writer::new(&loaded, now_ns, UndoLog::default())
            .update(&update)
            .map_err(|fault| fault.message)
    }

    /// The counts so far.
    pub fn stats(&self) -> Stats {
        let c = &self.0.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            received: get(&c.received),
            transmitted: get(&c.transmitted),
            dropped: get(&c.dropped),
            no_port: get(&c.no_port),
            port_refused: get(&c.port_refused),
            no_program: get(&c.no_program),
            looped: get(&c.looped),
            oversized: get(&c.oversized),
            events_lost: get(&c.events_lost),
            capture_lost: self.0.options.captures.as_ref().map_or(0, Captures::lost),
        }
    }
}
