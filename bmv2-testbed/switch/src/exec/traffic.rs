//! The traffic manager: what simple_switch does between ingress, egress and the ports.

use std::collections::VecDeque;

use super::burst::Halted;
use super::memo::Memos;
use super::trace::{Drop, Event, trace};
use super::{Context, Packet, Sink};
use crate::bits::Field;
use crate::port::Burst;
use crate::state::read;

/// One received frame may make this many passes (clones, copies, resubmissions); the rest is
/// dropped and counted, where bmv2 would go on for ever.
const MAX_PASSES: usize = 4096;
/// Packet buffers that a worker keeps.
const MAX_SPARE: usize = 64;

/// `instance_type` values.
const NORMAL: i128 = 0;
const INGRESS_CLONE: i128 = 1;
const EGRESS_CLONE: i128 = 2;
const RECIRCULATED: i128 = 4;
const REPLICATION: i128 = 5;
const RESUBMITTED: i128 = 6;

/// A clone session's copies (port, replication id), and the length they are cut to.
type Session = (Vec<(u32, u32)>, Option<usize>);

enum Work {
    Ingress(Box<Packet>),
    Egress(Box<Packet>, u32),
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Copies handed to ports.
    pub(crate) transmitted: u64,
    /// Copies that the program dropped.
    pub(crate) dropped: u64,
    /// Copies dropped because the frame made too many passes.
    pub(crate) looped: u64,
}

/// A thread's buffers for running packets.
#[derive(Default)]
pub(crate) struct Worker {
    queue: VecDeque<Work>,
    /// Boxed, so that a packet on its way is moved by its address.
    #[expect(clippy::vec_box)]
    spare: Vec<Box<Packet>>,
    out: Vec<u8>,
    /// What its packets found last in each table.
    pub(crate) memos: Memos,
    /// Frames that wait to be sent, between bursts empty.
    pub(crate) burst: Burst,
    /// Packets side by side, between bursts none; and the keys of those that wait.
    pub(super) halted: Vec<Halted>,
    pub(super) keys: Vec<u8>,
}

impl Context<'_> {
    /// Parses a packet and tells the program of errors.
    pub(super) fn parse_all(&mut self, packet: &mut Packet) {
        self.parse(packet);
        self.parsed(packet);
    }

    /// Tells the program of the parser's errors.
    pub(super) fn parsed(&mut self, packet: &mut Packet) {
        let standard = &self.program.standard;
        let (error, wrong) = (packet.parser_error, packet.checksum_error);
        set(standard.parser_error, packet, u64::from(error));
        set(standard.checksum_error, packet, u64::from(wrong));
    }
}

fn set(field: Option<Field>, packet: &mut Packet, value: u64) {
    if let Some(field) = field {
        field.store(&mut packet.buf, i128::from(value));
    }
}

impl Worker {
    /// Runs one frame, and all that comes of it, to completion.
    pub(crate) fn process(
        &mut self,
        context: &mut Context<'_>,
        port: u32,
        frame: &[u8],
        sink: &mut impl Sink,
    ) -> Outcome {
        let packet = self.receive(context, port, frame);
        let mut outcome = Outcome::default();
        self.queue.push_back(Work::Ingress(packet));
        self.work(context, sink, &mut outcome);
        outcome
    }

    /// A packet of a frame that has come in.
    pub(super) fn receive(
        &mut self,
        context: &Context<'_>,
        port: u32,
        frame: &[u8],
    ) -> Box<Packet> {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.reset(context.program, frame);
        packet.ingress_port = port;
        let standard = &context.program.standard;
        let buf = &mut packet.buf;
        standard.ingress_port.store(buf, i128::from(port));
        standard.packet_length.store(buf, frame.len() as i128);
        standard.instance_type.store(buf, NORMAL);
        set(
            standard.ingress_timestamp,
            &mut packet,
            context.now_ns / 1000,
        );
        packet
    }

    /// Runs what comes of a packet that has been through ingress.
    pub(super) fn finish(
        &mut self,
        context: &mut Context<'_>,
        packet: Box<Packet>,
        sink: &mut impl Sink,
        outcome: &mut Outcome,
    ) {
        self.after_ingress(context, packet, sink, outcome);
        self.work(context, sink, outcome);
    }

    /// Works until nothing is left of a frame.
    fn work(&mut self, context: &mut Context<'_>, sink: &mut impl Sink, outcome: &mut Outcome) {
        let mut passes = 0;
        while let Some(work) = self.queue.pop_front() {
            passes += 1;
            if passes > MAX_PASSES {
                outcome.looped += 1 + self.queue.len() as u64;
                trace!(context, Event::Dropped(Drop::Looped));
                self.queue.clear();
                break;
            }
            match work {
                Work::Ingress(packet) => self.ingress(context, packet, sink, outcome),
                Work::Egress(packet, port) => {
                    self.egress(context, packet, port, sink, outcome);
                }
            }
        }
    }

    fn recycle(&mut self, packet: Box<Packet>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(packet);
        }
    }

    fn fresh(&mut self, context: &Context<'_>, like: &Packet, data: &[u8]) -> Box<Packet> {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.reset(context.program, data);
        copy.ingress_port = like.ingress_port;
        copy
    }

    fn enqueue(
        &mut self,
        context: &mut Context<'_>,
        mut packet: Box<Packet>,
        port: u32,
        outcome: &mut Outcome,
    ) {
        let standard = &context.program.standard;
        if let Some(priority) = standard.priority {
            // There is always room: only a queue that does not exist takes nothing.
            let queue = priority.load_raw(&packet.buf);
            if queue >= u128::from(context.priority_queues) {
                trace!(context, Event::Dropped(Drop::NoQueue));
                outcome.dropped += 1;
                self.recycle(packet);
                return;
            }
            set(standard.qid, &mut packet, queue as u64);
        }
        set(standard.enq_timestamp, &mut packet, context.now_ns / 1000);
        set(standard.enq_qdepth, &mut packet, 0);
        packet.clear_marks();
        self.queue.push_back(Work::Egress(packet, port));
    }

    fn ingress(
        &mut self,
        context: &mut Context<'_>,
        mut packet: Box<Packet>,
        sink: &mut impl Sink,
        outcome: &mut Outcome,
    ) {
        let program = context.program;
        let standard = &program.standard;
        trace!(
            context,
            Event::Ingress {
                instance: standard.instance_type.load_raw(&packet.buf) as u8,
                port: packet.ingress_port,
                bytes: packet.data.len(),
            }
        );
        context.parse_all(&mut packet);
        context.pipeline(program.ingress, program.code.ingress, &mut packet);
        self.after_ingress(context, packet, sink, outcome);
    }

    /// Does what ingress has decided.
    fn after_ingress(
        &mut self,
        context: &mut Context<'_>,
        mut packet: Box<Packet>,
        sink: &mut impl Sink,
        outcome: &mut Outcome,
    ) {
        let program = context.program;
        let standard = &program.standard;
        if let Some((session, list)) = packet.clone {
            self.clone_ingress(context, &packet, session, list, outcome);
        }
        if let Some(id) = packet.digest {
            digest(context, id, &packet, sink);
        }
        let resubmit = packet.resubmit;
        let group = standard
            .mcast_grp
            .map_or(0, |f| f.load_raw(&packet.buf) as u32);
        let port = standard.egress_spec.load_raw(&packet.buf) as u32;
        if let Some(list) = resubmit {
            trace!(context, Event::Resubmit);
            let data = std::mem::take(&mut packet.data);
            let mut copy = self.fresh(context, &packet, &data);
            copy.preserve(program, list, &packet);
            let buf = &mut copy.buf;
            standard.instance_type.store(buf, RESUBMITTED);
            standard.packet_length.store(buf, data.len() as i128);
            // As in simple_switch, `ingress_port` is only kept if the list names it.
            self.queue.push_back(Work::Ingress(copy));
            self.recycle(packet);
        } else if group != 0 {
            standard.instance_type.store(&mut packet.buf, REPLICATION);
            let replicas = context.replicas(group);
            trace!(
                context,
                Event::Multicast {
                    group,
                    copies: replicas.clone(),
                }
            );
            if replicas.is_empty() {
                trace!(context, Event::Dropped(Drop::EmptyGroup));
                outcome.dropped += 1;
            }
            self.multicast(context, &packet, &replicas, None, outcome);
            self.recycle(packet);
        } else if port == context.drop_port {
            trace!(context, Event::Dropped(Drop::Ingress));
            outcome.dropped += 1;
            self.recycle(packet);
        } else {
            trace!(context, Event::Forward(port));
            standard.instance_type.store(&mut packet.buf, NORMAL);
            self.enqueue(context, packet, port, outcome);
        }
    }

    /// Copies are cut to `truncate` bytes when they leave. As in bmv2, what the program asked to
    /// be cut is whole in copies.
    fn multicast(
        &mut self,
        context: &mut Context<'_>,
        packet: &Packet,
        replicas: &[(u32, u32)],
        truncate: Option<usize>,
        outcome: &mut Outcome,
    ) {
        for (port, instance) in replicas {
            let mut copy = self.spare.pop().unwrap_or_default();
            Packet::clone_from(&mut copy, packet);
            copy.truncate = truncate;
            set(
                context.program.standard.egress_rid,
                &mut copy,
                u64::from(*instance),
            );
            self.enqueue(context, copy, *port, outcome);
        }
    }

    /// Copies of the session; they are cut to the session's length when they leave.
    fn session(context: &Context<'_>, session: u32) -> Option<Session> {
        let replication = read(&context.state.replication);
        let session = replication.sessions.get(&session)?;
        let limit = usize::try_from(session.packet_length_bytes).ok();
        let replicas = session.replicas.iter().map(|r| (r.port, r.instance));
        Some((replicas.collect(), limit.filter(|l| *l > 0)))
    }

    /// The frame as it came in, parsed again, with nothing but the listed metadata.
    fn clone_ingress(
        &mut self,
        context: &mut Context<'_>,
        packet: &Packet,
        session: u32,
        list: u32,
        outcome: &mut Outcome,
    ) {
        let found = Self::session(context, session);
        trace!(
            context,
            Event::Clone {
                session,
                copies: found.as_ref().map(|s| s.0.clone()),
            }
        );
        let Some((replicas, limit)) = found else {
            return;
        };
        let program = context.program;
        let mut copy = self.fresh(context, packet, &packet.data);
        let port = i128::from(packet.ingress_port);
        program.standard.ingress_port.store(&mut copy.buf, port);
        let lines = context.trace.take();
        context.parse(&mut copy);
        context.trace = lines;
        copy.reset_metadata(program);
        copy.preserve(program, list, packet);
        let instance = program.standard.instance_type;
        instance.store(&mut copy.buf, INGRESS_CLONE);
        self.multicast(context, &copy, &replicas, limit, outcome);
        self.recycle(copy);
    }

    fn egress(
        &mut self,
        context: &mut Context<'_>,
        mut packet: Box<Packet>,
        port: u32,
        sink: &mut impl Sink,
        outcome: &mut Outcome,
    ) {
        let program = context.program;
        let standard = &program.standard;
        set(
            standard.egress_timestamp,
            &mut packet,
            context.now_ns / 1000,
        );
        set(standard.deq_timedelta, &mut packet, 0);
        set(standard.deq_qdepth, &mut packet, 0);
        let length = packet.length as i128;
        let buf = &mut packet.buf;
        standard.egress_port.store(buf, i128::from(port));
        // So that the drop port is only there if the program puts it there.
        let other = i128::from(context.drop_port) + 1;
        standard.egress_spec.store(buf, other);
        standard.packet_length.store(buf, length);
        trace!(
            context,
            Event::Egress {
                instance: standard.instance_type.load_raw(&packet.buf) as u8,
                port,
                rid: standard
                    .egress_rid
                    .map_or(0, |f| f.load_raw(&packet.buf) as u32),
                bytes: packet.length,
            }
        );
        context.pipeline(program.egress, program.code.egress, &mut packet);

        if let Some((session, list)) = packet.clone.take() {
            let found = Self::session(context, session);
            trace!(
                context,
                Event::Clone {
                    session,
                    copies: found.as_ref().map(|s| s.0.clone()),
                }
            );
            if let Some((replicas, limit)) = found {
                let mut copy = self.spare.pop().unwrap_or_default();
                Packet::clone_from(&mut copy, &packet);
                copy.reset_metadata(program);
                copy.preserve(program, list, &packet);
                standard.instance_type.store(&mut copy.buf, EGRESS_CLONE);
                self.multicast(context, &copy, &replicas, limit, outcome);
                self.recycle(copy);
            }
        }
        if standard.egress_spec.load_raw(&packet.buf) as u32 == context.drop_port {
            trace!(context, Event::Dropped(Drop::Egress));
            outcome.dropped += 1;
            self.recycle(packet);
            return;
        }
        let mut out = std::mem::take(&mut self.out);
        context.deparse(&mut packet, &mut out);
        if let Some(list) = packet.recirculate {
            trace!(context, Event::Recirculate);
            let mut copy = self.fresh(context, &packet, &out);
            copy.preserve(program, list, &packet);
            let buf = &mut copy.buf;
            standard.instance_type.store(buf, RECIRCULATED);
            standard.packet_length.store(buf, out.len() as i128);
            self.queue.push_back(Work::Ingress(copy));
        } else {
            if let Some(limit) = packet.truncate {
                out.truncate(limit);
            }
            outcome.transmitted += 1;
            let delivery = sink.transmit(port, &out);
            trace!(
                context,
                Event::Transmitted {
                    port,
                    frame: out.as_slice().into(),
                    delivery,
                }
            );
        }
        self.out = out;
        self.recycle(packet);
    }
}

fn digest(context: &mut Context<'_>, id: u32, packet: &Packet, sink: &mut impl Sink) {
    if let Some((_, fields)) = context.program.digests.get(&id) {
        let values = fields.iter().map(|field| {
            let mut bytes = vec![0; field.bytes()];
            field.export(&packet.buf, &mut bytes);
            bytes
        });
        trace!(context, Event::Digest(id));
        sink.digest(id, values.collect());
    }
}
