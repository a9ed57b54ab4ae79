//! Connection states, computed from the packets of both directions.

use shunt_p4::flow::proto;

use crate::packet::{TcpFlags, Transport};
use crate::policy::Timeouts;

/// Which of a connection's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Direction {
    /// That of the packet that made the connection.
    Forward,
    /// The opposite.
    Reply,
}

impl Direction {
    /// As an array index.
    pub const fn index(self) -> usize {
        match self {
            Direction::Forward => 0,
            Direction::Reply => 1,
        }
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

    /// Whether the connection opens, closes, or is open (and may be in hardware).
    pub const fn is_open(self) -> bool {
        matches!(self, State::Established | State::New | State::Replied)
    }
}

/// State and what it takes to compute the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracker {
    state: State,
    /// Who sent the SYN that opened it.
    opener: Direction,
    /// Who sent the first FIN.
    closer: Direction,
}

impl Tracker {
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
        Some(Self::new(state))
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

    const fn new(state: State) -> Self {
        Self {
            state,
            opener: Direction::Forward,
            closer: Direction::Forward,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Takes a packet into account. Of TCP only flags are read: most of a connection's segments
    /// go through the switch, so sequence numbers are not known here.
    pub fn see(&mut self, direction: Direction, transport: &Transport) {
        match transport {
            Transport::Tcp { flags, .. } => self.see_tcp(direction, *flags),
            Transport::Udp { .. } | Transport::EchoRequest { .. } | Transport::EchoReply { .. }
                if direction == Direction::Reply =>
            {
                self.state = State::Replied;
            }
            _ => {}
        }
    }

    fn see_tcp(&mut self, direction: Direction, flags: TcpFlags) {
        if flags.rst() {
            self.state = State::Closed;
            return;
        }
        let opener = direction == self.opener;
        let closer = direction == self.closer;
        self.state = match self.state {
            // Port reuse: either side may open the same tuple again (RFC 9293 section 3.6.1).
            State::TimeWait | State::Closed if flags.syn() && !flags.ack() => {
                self.opener = direction;
                State::SynSent
            }
            State::SynSent if !opener && flags.syn() => State::SynReceived,
            // The third segment, or a simultaneous open's SYN and ACK.
            State::SynReceived if opener && flags.ack() && !flags.fin() => State::Established,
            State::SynReceived | State::SynSent if flags.fin() => {
                self.closer = direction;
                State::FinWait
            }
            State::Adopted if flags.fin() => {
                self.closer = direction;
                State::FinWait
            }
            State::Adopted if direction == Direction::Reply && flags.ack() && !flags.syn() => {
                State::Established
            }
            State::Established if flags.fin() => {
                self.closer = direction;
                State::FinWait
            }
            State::FinWait if !closer && flags.fin() => State::LastAck,
            // Perhaps sent before the FIN arrived; it makes no difference to any timeout.
            State::FinWait if !closer && flags.ack() => State::CloseWait,
            State::CloseWait if !closer && flags.fin() => State::LastAck,
            State::LastAck if closer && flags.ack() && !flags.fin() => State::TimeWait,
            other => other,
        };
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

    fn tcp(flags: u8) -> Transport {
        Transport::Tcp {
            src_port: 1,
            dst_port: 2,
            flags: TcpFlags(flags),
        }
    }

    fn run(segments: &[(Direction, u8)]) -> Vec<State> {
        let mut tracker = Tracker::begin(&tcp(SYN)).unwrap();
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

    #[test]
    fn an_adopted_connection_needs_both_sides() {
        let mut tracker = Tracker::adopt(&tcp(ACK)).unwrap();
        tracker.see(Forward, &tcp(ACK));
        assert_eq!(tracker.state(), State::Adopted);
        tracker.see(Reply, &tcp(ACK));
        assert_eq!(tracker.state(), State::Established);
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
