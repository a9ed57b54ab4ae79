//! What the segments of a TCP connection say about each side's sequence space, for as long as
//! software sees all of them.
//!
//! Software sees every segment until the connection goes into hardware. What it knew is then
//! forgotten ([`Window::forget`]) and learned anew from the first segments that come back. Sequence
//! numbers decide only whether a segment may change the connection's *state*; data is never
//! dropped for them, because the ends know better.

use super::Direction;
use crate::packet::Segment;

/// An acknowledgement may lie so far behind the other side's newest byte at least, whatever
/// windows were announced.
const OLD_ACK_MAX: u32 = 66_000;

/// Window scale factors above it mean 14 (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;

/// Where a segment lies, seen from its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Where the receiver may be waiting right now.
    Exact,
    /// In its window, but not there.
    Window,
    /// Neither: the receiver drops it.
    Outside,
    /// Not enough was seen to tell.
    Unknown,
}

/// Packed, because every connection has two, of whatever protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed)]
struct Side {
    /// Behind the newest byte that it sent, SYN and FIN counted.
    end: u32,
    /// What it has acknowledged: the least that it may be waiting for.
    acked: u32,
    /// The largest window that it announced, bytes.
    window: u32,
    /// `HEARD`, `WAITING`, and its window scale option plus one in `SCALE`; 0 for none.
    known: u8,
}

/// `end` is known.
const HEARD: u8 = 0x10;
/// `acked` is known.
const WAITING: u8 = 0x20;
const SCALE: u8 = 0xf;

impl Side {
    const fn heard(&self) -> bool {
        self.known & HEARD != 0
    }

    const fn waiting(&self) -> bool {
        self.known & WAITING != 0
    }

    fn scale(&self) -> Option<u8> {
        (self.known & SCALE).checked_sub(1)
    }

    fn set_scale(&mut self, scale: Option<u8>) {
        let scale = scale.map_or(0, |scale| scale.min(SCALE_MAX) + 1);
        self.known = self.known & !SCALE | scale;
    }
}

/// Both sides of a connection, by the direction that they send in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    sides: [Side; 2],
}

impl Window {
    /// Segments go past us from now on. The scale factors stay: they are said once.
    pub(super) fn forget(&mut self) {
        for side in &mut self.sides {
            *side = Side {
                known: side.known & SCALE,
                ..Side::default()
            };
        }
    }

    /// A SYN opens the tuple anew.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    fn pair(&self, direction: Direction) -> (&Side, &Side) {
        let [forward, reply] = &self.sides;
        match direction {
            Direction::Forward => (forward, reply),
            Direction::Reply => (reply, forward),
        }
    }

    /// Whether a segment that is no reset can be one of the connection's (the four bounds of
    /// van Rooij, "Real stateful TCP packet filtering"): retransmits and segments in any order
    /// are.
    pub(super) fn accepts(&self, direction: Direction, segment: &Segment, ack: bool) -> bool {
        let (sender, receiver) = self.pair(direction);
        if !(sender.heard() && receiver.heard() && receiver.waiting()) {
            return true;
        }
        let end = segment.end();
        let ahead = after(
            segment.seq,
            receiver.acked.wrapping_add(receiver.window.max(1)),
        );
        let behind = after(
            sender.end,
            end.wrapping_add(receiver.window.max(OLD_ACK_MAX)),
        );
        let ack_ahead = after(segment.ack, receiver.end);
        let ack_behind = after(
            receiver.end,
            segment.ack.wrapping_add(sender.window.max(OLD_ACK_MAX)),
        );
        !(ahead || behind || ack && (ack_ahead || ack_behind))
    }

    /// Takes an accepted segment into account.
    pub(super) fn learn(&mut self, direction: Direction, segment: &Segment, ack: bool) {
        let [forward, reply] = &mut self.sides;
        let (sender, receiver) = match direction {
            Direction::Forward => (forward, reply),
            Direction::Reply => (reply, forward),
        };
        let end = segment.end();
        if !sender.heard() || after(end, sender.end) {
            sender.end = end;
            sender.known |= HEARD;
        }
        if segment.syn {
            sender.set_scale(segment.scale);
        }
        // Scaling is in force only if both sides offer it, and never in a SYN itself.
        let scale = match (sender.scale(), receiver.scale()) {
            (Some(scale), Some(_)) if !segment.syn => scale,
            _ => 0,
        };
        sender.window = sender.window.max(u32::from(segment.window) << scale);
        if ack && (!sender.waiting() || after(segment.ack, sender.acked)) {
            sender.acked = segment.ack;
            sender.known |= WAITING;
        }
        if !receiver.waiting() {
            receiver.acked = segment.seq;
            receiver.known |= WAITING;
        }
    }

    /// Where a reset lies (RFC 5961 section 3.2). The receiver's newest acknowledgement may
    /// not have come by yet, so it may be waiting for anything up to the sender's newest byte.
    pub(super) fn reset(&self, direction: Direction, segment: &Segment) -> Fit {
        let (sender, receiver) = self.pair(direction);
        if !(sender.heard() && receiver.waiting()) {
            return Fit::Unknown;
        }
        let seq = segment.seq;
        if after(receiver.acked, seq) {
            Fit::Outside
        } else if !after(seq, sender.end) {
            Fit::Exact
        } else if receiver.heard() && !after(seq, receiver.acked.wrapping_add(receiver.window)) {
            Fit::Window
        } else {
            Fit::Outside
        }
    }

    /// Whether a reset answers the SYN of the other side: it acknowledges it (RFC 9293 section
    /// 3.10.7.3).
    pub(super) fn answers_syn(&self, direction: Direction, segment: &Segment) -> bool {
        let (responder, opener) = self.pair(direction);
        opener.heard()
            && responder.waiting()
            && after(segment.ack, responder.acked)
            && !after(segment.ack, opener.end)
    }

    /// Whether the segment has bytes behind all that its sender has sent: not after a FIN.
    pub(super) fn is_new(&self, direction: Direction, segment: &Segment) -> bool {
        let (sender, _) = self.pair(direction);
        sender.heard() && after(segment.end(), sender.end)
    }
}

/// Whether `a` comes after `b` (RFC 9293 section 3.4: modulo 2^32).
const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
