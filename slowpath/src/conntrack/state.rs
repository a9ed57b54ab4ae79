//! Connection states, computed from the packets of both directions.

use std::mem::offset_of;

use shunt_p4::flow::proto;

use super::window::{Fit, Window};
use crate::packet::{Segment, TcpFlags, Transport};
use crate::policy::Timeouts;

/// Which of a connection's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[repr(u8)]
pub enum Direction {
    /// That of the packet that made the connection.
    Forward = 0,
    /// The opposite.
    Reply = 1,
}

impl Direction {
    /// As an array index.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The opposite one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Direction::Forward => Direction::Reply,
            Direction::Reply => Direction::Forward,
        }
    }
}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Where a connection is in its life. TCP's names are those of RFC 9293, as seen from
        /// the middle; UDP and echo are `New` or `Replied`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[repr(u8)]
        pub enum State { $($(#[$doc])* $name,)* }

        impl State {
            /// Every state.
            pub const ALL: &'static [State] = &[$(State::$name,)*];

            /// Its name in output and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(State::$name => $text,)* }
            }
        }
    };
}

states! {
    /// TCP: a SYN, no answer yet.
    SynSent = "syn_sent";
    /// TCP: a SYN from both sides.
    SynReceived = "syn_received";
    /// TCP: found in mid-stream, heard from one side so far.
    Adopted = "adopted";
    /// TCP: open in both directions.
    Established = "established";
    /// TCP: a FIN from one side.
    FinWait = "fin_wait";
    /// TCP: that FIN was followed by a segment of the other side.
    CloseWait = "close_wait";
    /// TCP: a FIN from both sides.
    LastAck = "last_ack";
    /// TCP: the second FIN was acknowledged.
    TimeWait = "time_wait";
    /// TCP: reset.
    Closed = "closed";
    /// UDP, echo: no reply yet.
    New = "new";
    /// UDP, echo: packets both ways.
    Replied = "replied";
}

impl State {
    /// How long a connection lives in this state without packets, nanoseconds.
    pub fn timeout_ns(self, protocol: u8, timeouts: &Timeouts) -> u64 {
        let timeout = match self {
            State::Established => timeouts.tcp_established,
            State::SynSent
            | State::SynReceived
            | State::Adopted
            | State::FinWait
            | State::CloseWait
            | State::LastAck => timeouts.tcp_transitory,
            State::TimeWait => timeouts.tcp_time_wait,
            State::Closed => timeouts.tcp_closed,
            State::New if protocol == proto::UDP => timeouts.udp,
            State::Replied if protocol == proto::UDP => timeouts.udp_stream,
            State::New | State::Replied => timeouts.icmp,
        };
        u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether it is a state of TCP; the others are of UDP and echo.
    pub const fn is_tcp(self) -> bool {
        !matches!(self, State::New | State::Replied)
    }

    /// TCP that opens: two of the handshake's three segments at most.
    pub const fn is_half_open(self) -> bool {
        matches!(self, State::SynSent | State::SynReceived)
    }

    /// Whether the connection opens, closes, or is open (and may be in hardware).
    pub const fn is_open(self) -> bool {
        matches!(self, State::Established | State::New | State::Replied)
    }
}

/// [`State::timeout_ns`], computed once a policy: every packet asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeoutTable([[u64; 2]; State::ALL.len()]);

impl TimeoutTable {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let mut table = Self::default();
        for (row, state) in table.0.iter_mut().zip(State::ALL) {
            *row = [proto::ICMP, proto::UDP].map(|protocol| state.timeout_ns(protocol, timeouts));
        }
        table
    }

    #[inline]
    pub(crate) fn of(&self, state: State, udp: bool) -> u64 {
        self.0[state as usize][usize::from(udp)]
    }
}

/// State and what it takes to compute the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tracker {
    /// TCP: sequence numbers, while software sees all segments.
    window: Window,
    state: State,
    /// `OPENER`, `CLOSER`, `DOUBTFUL` and `UDP`.
    bits: u8,
}

/// Who sent the SYN that opened it, by [`Direction::index`].
const OPENER: u8 = 1 << 4;
/// Who sent the first FIN.
const CLOSER: u8 = 1 << 5;
/// The reset that closed it may not have been its sender's: software had not seen the segments
/// before it.
const DOUBTFUL: u8 = 1 << 6;
/// Its protocol is UDP, which has timeouts of its own.
const UDP: u8 = 1 << 7;

impl Tracker {
    /// Where the state lies, bytes.
    pub(super) const STATE_AT: usize = offset_of!(Tracker, state);

    /// The state of a connection that begins with this packet. `None`: no connection begins
    /// with it, and a TCP segment may only be adopted.
    pub fn begin(transport: &Transport) -> Option<Self> {
        let state = match transport {
            Transport::Tcp { flags, .. } => {
                if !flags.syn() || flags.ack() || flags.rst() || flags.fin() {
                    return None;
                }
                State::SynSent
            }
            Transport::Udp { .. } | Transport::EchoRequest { .. } => State::New,
            _ => return None,
        };
        let mut tracker = Self::new(state);
        tracker.set(UDP, matches!(transport, Transport::Udp { .. }));
        Some(tracker)
    }

    /// The state of a TCP connection that was open before we heard of it: after a restart, or
    /// when a route moved it here. Only a plain segment shows that it is open.
    pub fn adopt(transport: &Transport) -> Option<Self> {
        match transport {
            Transport::Tcp { flags, .. }
                if flags.ack() && !flags.syn() && !flags.fin() && !flags.rst() =>
            {
                Some(Self::new(State::Adopted))
            }
            _ => None,
        }
    }

    fn new(state: State) -> Self {
        Self {
            window: Window::default(),
            state,
            bits: 0,
        }
    }

    #[inline]
    const fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    fn set(&mut self, bit: u8, to: bool) {
        self.bits = self.bits & !bit | if to { bit } else { 0 };
    }

    /// Remembers a direction.
    fn set_side(&mut self, bit: u8, direction: Direction) {
        self.set(bit, direction == Direction::Reply);
    }

    /// Whether the direction is the one remembered.
    fn is_side(&self, bit: u8, direction: Direction) -> bool {
        self.has(bit) == (direction == Direction::Reply)
    }

    /// That of a connection that was in hardware, and of which nothing else is known.
    pub(crate) fn in_hardware(protocol: u8) -> Self {
        let mut tracker = Self::new(match protocol {
            proto::TCP => State::Established,
            _ => State::Replied,
        });
        tracker.set(UDP, protocol == proto::UDP);
        tracker
    }

    /// All but the sequence numbers and the protocol, in a byte.
    #[inline]
    pub(crate) const fn packed(&self) -> u8 {
        self.state as u8 | self.bits & !UDP
    }

    /// The reverse of [`Tracker::packed`]; sequence numbers are learned anew. `None`: no such
    /// state, or not of that protocol.
    pub(crate) fn unpacked(byte: u8, protocol: u8) -> Option<Self> {
        let state = *State::ALL.get(usize::from(byte & 0xf))?;
        if state.is_tcp() != (protocol == proto::TCP) || byte & UDP != 0 {
            return None;
        }
        let mut tracker = Self::new(state);
        tracker.bits = byte & (OPENER | CLOSER | DOUBTFUL);
        tracker.set(UDP, protocol == proto::UDP);
        Some(tracker)
    }

    /// Whether its protocol is UDP.
    #[inline]
    pub(crate) const fn is_udp(&self) -> bool {
        self.has(UDP)
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Segments go past software from now on: into hardware.
    pub fn forget_window(&mut self) {
        self.window.forget();
    }

    /// Takes a packet into account. `false`: by its sequence numbers it cannot be the
    /// connection's, and changed nothing (RFC 5961).
    pub fn see(&mut self, direction: Direction, transport: &Transport) -> bool {
        match transport {
            Transport::Tcp { flags, segment, .. } => self.see_tcp(direction, *flags, segment),
            Transport::Udp { .. } | Transport::EchoRequest { .. } | Transport::EchoReply { .. }
                if direction == Direction::Reply =>
            {
                self.state = State::Replied;
                true
            }
            _ => true,
        }
    }

    fn see_tcp(&mut self, direction: Direction, flags: TcpFlags, segment: &Segment) -> bool {
        if flags.rst() {
            return self.see_reset(direction, flags, segment);
        }
        let opener = self.is_side(OPENER, direction);
        let closer = self.is_side(CLOSER, direction);
        let over = matches!(self.state, State::TimeWait | State::Closed);
        if over && flags.syn() && !flags.ack() {
            // Port reuse: either side may open the same tuple again (RFC 9293 section 3.6.1).
            *self = Self::new(State::SynSent);
            self.set_side(OPENER, direction);
            self.window.learn(direction, segment, false);
            return true;
        }
        if self.state == State::SynSent && opener && flags.syn() {
            // Perhaps a new attempt, with another sequence number.
            self.window.restart();
        }
        if !self.window.accepts(direction, segment, flags.ack()) {
            return false;
        }
        let plain = flags.ack() && !flags.syn() && !flags.fin();
        let new = self.window.is_new(direction, segment);
        self.window.learn(direction, segment, flags.ack());
        self.state = match self.state {
            State::SynSent if !opener && flags.syn() => State::SynReceived,
            // The third segment, or a simultaneous open's SYN and ACK.
            State::SynReceived if opener && flags.ack() && !flags.fin() => State::Established,
            State::SynReceived | State::SynSent | State::Adopted | State::Established
                if flags.fin() =>
            {
                self.set_side(CLOSER, direction);
                State::FinWait
            }
            State::Adopted if !opener && plain => State::Established,
            // Nobody sends anything new behind a FIN: that one was somebody else's.
            State::FinWait | State::CloseWait if closer && plain && new => State::Established,
            State::FinWait | State::CloseWait if !closer && flags.fin() => State::LastAck,
            // Perhaps sent before the FIN arrived; it makes no difference to any timeout.
            State::FinWait if !closer && flags.ack() => State::CloseWait,
            State::LastAck if closer && flags.ack() && !flags.fin() => State::TimeWait,
            // Nobody sends on after a reset: if the other side does too, that one was somebody
            // else's.
            State::Closed if self.has(DOUBTFUL) && closer && plain => {
                self.set(DOUBTFUL, false);
                self.set_side(OPENER, direction);
                State::Adopted
            }
            other => other,
        };
        true
    }

    /// A reset ends the connection if its receiver will take it (RFC 5961 section 3.2): one that
    /// lies in the window but not at its start is answered by a challenge, whose answer ends it.
    fn see_reset(&mut self, direction: Direction, flags: TcpFlags, segment: &Segment) -> bool {
        let fit = match self.state {
            State::TimeWait | State::Closed => return true,
            State::SynSent if !self.is_side(OPENER, direction) => {
                match flags.ack() && self.window.answers_syn(direction, segment) {
                    true => Fit::Exact,
                    false => Fit::Outside,
                }
            }
            _ => self.window.reset(direction, segment),
        };
        match fit {
            Fit::Exact | Fit::Unknown => {
                self.set(DOUBTFUL, fit == Fit::Unknown);
                self.set_side(CLOSER, direction);
                self.state = State::Closed;
                true
            }
            Fit::Window | Fit::Outside => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Forward, Reply};
    use super::*;

    const SYN: u8 = TcpFlags::SYN;
    const ACK: u8 = TcpFlags::ACK;
    const FIN: u8 = TcpFlags::FIN;
    const RST: u8 = TcpFlags::RST;

    /// Both sides start at 1000; what follows the SYN is at 1001.
    fn tcp(flags: u8) -> Transport {
        let syn = flags & SYN != 0;
        at(flags, if syn { 1000 } else { 1001 }, 1001, 0)
    }

    fn at(flags: u8, seq: u32, ack: u32, len: u16) -> Transport {
        let flags = TcpFlags(flags);
        Transport::Tcp {
            src_port: 1,
            dst_port: 2,
            flags,
            segment: Segment {
                seq,
                ack,
                window: 1000,
                len,
                syn: flags.syn(),
                fin: flags.fin(),
                scale: None,
            },
        }
    }

    fn run(segments: &[(Direction, u8)]) -> Vec<State> {
        let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
        tracker.see(Forward, &tcp(SYN));
        segments
            .iter()
            .map(|(direction, flags)| {
                tracker.see(*direction, &tcp(*flags));
                tracker.state()
            })
            .collect()
    }

    #[test]
    fn a_whole_life() {
        let states = run(&[
            (Forward, SYN),
            (Reply, SYN | ACK),
            (Reply, SYN | ACK),
            (Forward, ACK),
            (Reply, ACK),
            (Forward, FIN | ACK),
            (Reply, ACK),
            (Reply, FIN | ACK),
            (Forward, ACK),
            (Forward, SYN),
        ]);
        use State::*;
        assert_eq!(
            states,
            [
                SynSent,
                SynReceived,
                SynReceived,
                Established,
                Established,
                FinWait,
                CloseWait,
                LastAck,
                TimeWait,
                SynSent
            ]
        );
    }

    #[test]
    fn a_simultaneous_open_and_close() {
        let states = run(&[(Reply, SYN), (Forward, SYN | ACK), (Reply, SYN | ACK)]);
        assert_eq!(states.last(), Some(&State::Established));
        let states = run(&[
            (Reply, SYN | ACK),
            (Forward, ACK),
            (Reply, FIN | ACK),
            (Forward, FIN | ACK),
            (Forward, ACK),
            (Reply, ACK),
        ]);
        assert_eq!(
            states[3..],
            [State::LastAck, State::LastAck, State::TimeWait]
        );
    }

    #[test]
    fn a_reset_closes_and_a_syn_from_either_side_opens_again() {
        let states = run(&[
            (Reply, RST | ACK),
            (Forward, ACK),
            (Reply, SYN),
            (Forward, SYN | ACK),
            (Reply, ACK),
        ]);
        use State::*;
        assert_eq!(states, [Closed, Closed, SynSent, SynReceived, Established]);
    }

    #[test]
    fn the_responder_cannot_establish_alone() {
        assert_eq!(
            run(&[(Reply, SYN | ACK), (Reply, ACK)])[1],
            State::SynReceived
        );
        assert_eq!(run(&[(Reply, ACK), (Forward, ACK)])[1], State::SynSent);
    }

    #[test]
    fn only_a_syn_begins_and_only_an_ack_is_adopted() {
        for flags in 0..0x40 {
            let begins = flags & (SYN | ACK | RST | FIN) == SYN;
            let adopted = flags & (SYN | ACK | RST | FIN) == ACK;
            assert_eq!(Tracker::begin(&tcp(flags)).is_some(), begins, "{flags:#x}");
            assert_eq!(Tracker::adopt(&tcp(flags)).is_some(), adopted, "{flags:#x}");
        }
        assert!(Tracker::begin(&Transport::EchoReply { id: 1 }).is_none());
    }

    /// Open, 100 bytes sent by the client, 50 of them acknowledged.
    fn open() -> Tracker {
        let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
        for (direction, segment) in [
            (Forward, tcp(SYN)),
            (Reply, tcp(SYN | ACK)),
            (Forward, tcp(ACK)),
            (Forward, at(ACK, 1001, 1001, 100)),
            (Reply, at(ACK, 1001, 1051, 0)),
        ] {
            assert!(tracker.see(direction, &segment));
        }
        tracker
    }

    #[test]
    fn a_reset_ends_it_only_where_its_receiver_may_be_waiting() {
        // (from, sequence number, whether it ends the connection)
        for (direction, seq, ends) in [
            (Forward, 1050, false),
            (Forward, 1051, true),
            (Forward, 1101, true),
            (Forward, 1102, false),
            (Forward, 1051 + 1001, false),
            (Forward, 0x9000_0000, false),
            (Reply, 1000, false),
            (Reply, 1001, true),
            (Reply, 1002, false),
        ] {
            let mut tracker = open();
            let seen = tracker.see(direction, &at(RST, seq, 0, 0));
            assert_eq!(seen, ends, "{direction:?} {seq}");
            let state = if ends {
                State::Closed
            } else {
                State::Established
            };
            assert_eq!(tracker.state(), state, "{direction:?} {seq}");
        }
    }

    #[test]
    fn a_reset_of_a_syn_has_to_acknowledge_it() {
        for (flags, ack, ends) in [
            (RST | ACK, 1001, true),
            (RST | ACK, 1000, false),
            (RST | ACK, 1002, false),
            (RST, 1001, false),
        ] {
            let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
            tracker.see(Forward, &tcp(SYN));
            tracker.see(Reply, &at(flags, 0, ack, 0));
            assert_eq!(tracker.state() == State::Closed, ends, "{flags:#x} {ack}");
        }
    }

    #[test]
    fn a_fin_outside_the_window_closes_nothing() {
        let mut tracker = open();
        assert!(!tracker.see(Reply, &at(FIN | ACK, 0x8000_0000, 1051, 0)));
        assert_eq!(tracker.state(), State::Established);
        // An acknowledgement of what was never sent neither.
        assert!(!tracker.see(Reply, &at(FIN | ACK, 1001, 5000, 0)));
        assert_eq!(tracker.state(), State::Established);
    }

    #[test]
    fn retransmits_and_segments_out_of_order_are_taken() {
        let mut tracker = open();
        for (direction, seq, ack, len) in [
            (Forward, 1001, 1001, 100),
            (Forward, 1500, 1001, 100),
            (Forward, 1101, 1001, 399),
            (Reply, 1001, 1101, 0),
            (Reply, 1001, 1600, 0),
            (Reply, 1001, 1101, 0),
        ] {
            assert!(tracker.see(direction, &at(ACK, seq, ack, len)), "{seq}");
        }
        assert!(!tracker.see(Forward, &at(ACK, 1600 + 1002, 1001, 1)));
    }

    /// After hardware, software does not know the numbers: a reset is believed until both sides
    /// are heard again.
    #[test]
    fn a_false_reset_of_what_was_in_hardware_is_found_out() {
        let mut tracker = open();
        tracker.forget_window();
        tracker.see(Reply, &at(RST, 77, 0, 0));
        assert_eq!(tracker.state(), State::Closed);
        tracker.see(Forward, &at(ACK, 90_001, 70_001, 10));
        assert_eq!(tracker.state(), State::Closed, "it may have been under way");
        tracker.see(Reply, &at(ACK, 70_001, 90_011, 0));
        assert_eq!(tracker.state(), State::Adopted);
        tracker.see(Forward, &at(ACK, 90_011, 70_001, 10));
        assert_eq!(tracker.state(), State::Established);
        assert!(!tracker.see(Reply, &at(RST, 77, 0, 0)));
        assert_eq!(tracker.state(), State::Established);
        // A true one is followed by nothing of its sender.
        tracker.see(Reply, &at(RST, 70_001, 0, 0));
        tracker.see(Forward, &at(ACK, 90_021, 70_001, 10));
        assert_eq!(tracker.state(), State::Closed);
    }

    #[test]
    fn a_false_fin_is_found_out_by_what_is_sent_behind_it() {
        let mut tracker = open();
        tracker.forget_window();
        tracker.see(Reply, &at(FIN | ACK, 5000, 1051, 0));
        assert_eq!(tracker.state(), State::FinWait);
        tracker.see(Reply, &at(ACK, 6000, 1051, 100));
        assert_eq!(tracker.state(), State::Established);
    }

    #[test]
    fn windows_are_scaled_only_if_both_sides_offer_it() {
        for (other, edge) in [(Some(2), 1001 + 8000), (None, 1001 + 1000)] {
            let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
            let offer = |transport, scale| match transport {
                Transport::Tcp {
                    src_port,
                    dst_port,
                    flags,
                    segment,
                } => Transport::Tcp {
                    src_port,
                    dst_port,
                    flags,
                    segment: Segment { scale, ..segment },
                },
                other => other,
            };
            tracker.see(Forward, &offer(tcp(SYN), other));
            tracker.see(Reply, &offer(tcp(SYN | ACK), Some(3)));
            tracker.see(Forward, &tcp(ACK));
            tracker.see(Reply, &tcp(ACK));
            assert!(tracker.see(Forward, &at(ACK, edge, 1001, 1)));
            assert!(!tracker.see(Forward, &at(ACK, edge + 1, 1001, 1)));
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
        tracker.see(Forward, &at(SYN, u32::MAX, 0, 0));
        tracker.see(Reply, &at(SYN | ACK, u32::MAX - 1, 0, 0));
        tracker.see(Forward, &at(ACK, 0, u32::MAX, 10));
        tracker.see(Reply, &at(ACK, u32::MAX, 10, 10));
        assert_eq!(tracker.state(), State::Established);
        assert!(!tracker.see(Forward, &at(RST, u32::MAX, 0, 0)));
        assert!(tracker.see(Reply, &at(RST, 9, 0, 0)));
        assert_eq!(tracker.state(), State::Closed);
    }

    #[test]
    fn an_adopted_connection_needs_both_sides() {
        let mut tracker = Tracker::adopt(&tcp(ACK)).unwrap();
        tracker.see(Forward, &tcp(ACK));
        assert_eq!(tracker.state(), State::Adopted);
        tracker.see(Reply, &tcp(ACK));
        assert_eq!(tracker.state(), State::Established);
    }

    #[test]
    fn a_tracker_in_a_byte_is_all_but_its_sequence_numbers() {
        let mut seen = Vec::new();
        for byte in 0..=u8::MAX {
            for protocol in [proto::TCP, proto::UDP] {
                let Some(tracker) = Tracker::unpacked(byte, protocol) else {
                    continue;
                };
                assert_eq!(tracker.packed(), byte);
                assert_eq!(tracker.state().is_tcp(), protocol == proto::TCP);
                seen.push(tracker.state());
            }
        }
        assert!(State::ALL.iter().all(|state| seen.contains(state)));
        let mut closed = open();
        closed.see(Reply, &at(FIN | ACK, 1001, 1001, 0));
        let unpacked = Tracker::unpacked(closed.packed(), proto::TCP).unwrap();
        closed.window = Window::default();
        assert_eq!(unpacked, closed);
    }

    #[test]
    fn udp_is_replied_by_the_other_side_only() {
        let udp = Transport::Udp {
            src_port: 1,
            dst_port: 2,
        };
        let mut tracker = Tracker::begin(&udp).unwrap();
        tracker.see(Forward, &udp);
        assert_eq!(tracker.state(), State::New);
        tracker.see(Reply, &udp);
        assert_eq!(tracker.state(), State::Replied);
    }
}
