//! Which connections are offered to hardware, and when again after they were refused.

use shunt_p4::flow::proto;

use super::Core;
use super::offload::nanos;
use crate::conntrack::{Connection, Direction, State};
use crate::fib::Fib;
use crate::policy::{OffloadAfter, OffloadPolicy};

/// Bytes are counted for at most so long to find a rate.
const WINDOW_MS: u32 = 1_000;
/// What a connection's age is rounded to.
const AGE_MS: u128 = 10;

/// Bytes of a connection in the second at hand; of connections that are to have a rate only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// When it began; wraps after 49 days.
    since_ms: u32,
    bytes: u32,
}

impl Core {
    /// Whether the connection, which may be offered otherwise, carries as many bytes within a
    /// second as the policy wants; takes a packet of so many bytes into account.
    #[inline]
    pub(super) fn fast_enough(&mut self, fib: &Fib, now_ns: u64, slot: u32, len: usize) -> bool {
        let min = fib.policy().offload.min_bytes_per_second;
        min == 0 || self.bytes_within_a_second(now_ns, slot, len) >= min
    }

    fn bytes_within_a_second(&mut self, now_ns: u64, slot: u32, len: usize) -> u32 {
        let at = slot as usize;
        if at >= self.windows.len() {
            let slots = self.table.slots().max(slot + 1);
            self.windows.resize(slots as usize, Window::default());
        }
        let age_ms = self.table.age(slot, now_ns).as_millis() + AGE_MS;
        let Some(window) = self.windows.get_mut(at) else {
            return 0;
        };
        let now_ms = (now_ns / 1_000_000) as u32;
        let lasts_ms = now_ms.wrapping_sub(window.since_ms);
        // The slot's last user's window is none of this one's.
        if lasts_ms >= WINDOW_MS || u128::from(lasts_ms) > age_ms {
            *window = Window {
                since_ms: now_ms,
                bytes: 0,
            };
        }
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        window.bytes = window.bytes.saturating_add(len);
        window.bytes
    }
}

/// Whether a connection in software may be offered now, but for its rate.
#[inline(always)] // asked at every packet
pub(super) fn wants_offload(fib: &Fib, now_ns: u64, connection: &mut Connection) -> bool {
    let policy = &fib.policy().offload;
    let carried = (
        connection.packets.both().iter().sum(),
        connection.bytes.iter().sum(),
    );
    let state = connection.tracker.state();
    far_enough(policy, connection.proto(), state, carried) && is_offered(fib, now_ns, connection)
}

/// Whether a connection that carried enough may be offered now.
fn is_offered(fib: &Fib, now_ns: u64, connection: &mut Connection) -> bool {
    let policy = &fib.policy().offload;
    if !policy.enabled
        || connection.is_ending()
        || now_ns < connection.offered_since_ns(now_ns)
        || is_never(fib, connection)
    {
        return false;
    }
    // The switch asks the flow tables only for packets of stateful VPCs.
    let stateful = |side: Direction| {
        let vpc = connection.raw_key(side).vpc();
        fib.vpc(vpc).is_some_and(|vpc| !vpc.stateless)
    };
    stateful(Direction::Forward) && stateful(Direction::Reply)
}

/// Whether it was opened to a port whose connections stay in software.
pub(super) fn is_never(fib: &Fib, connection: &Connection) -> bool {
    let (_, before) = connection.raw_key(Direction::Forward).port_pair();
    let (after, _) = connection.raw_key(Direction::Reply).port_pair();
    is_never_port(fib, connection.proto(), [before, after])
}

/// As the policy says of the port that a connection was opened to, before and after translation.
pub(super) fn is_never_port(fib: &Fib, protocol: u8, ports: [u16; 2]) -> bool {
    let never = fib.never();
    ports.into_iter().any(|port| never.has(protocol, port))
}

/// Whether a connection of that state, after so many packets and bytes, belongs into hardware.
#[inline]
pub(super) fn far_enough(
    policy: &OffloadPolicy,
    protocol: u8,
    state: State,
    (packets, bytes): (u64, u64),
) -> bool {
    let after = match protocol {
        proto::TCP if state != State::Established => return false,
        proto::TCP => policy.tcp,
        proto::UDP => policy.udp,
        _ => policy.icmp,
    };
    match after {
        OffloadAfter::FirstReply => state == State::Established || state == State::Replied,
        OffloadAfter::Packets(n) => packets >= u64::from(n),
        OffloadAfter::Bytes(n) => bytes >= n,
        OffloadAfter::Never => false,
    }
}

/// How long a connection waits that was refused so often before. Up to a quarter longer, each
/// another time, so that they do not all come again at once.
pub(super) fn retry_ns(policy: &OffloadPolicy, refusals: u8, slot: u32) -> u64 {
    let first = nanos(policy.retry_after);
    let longest = nanos(policy.retry_after_max).max(first);
    let doubled = first.saturating_mul(1 << refusals.min(16));
    let spread = slot.wrapping_mul(0x9e37_79b9) >> 24;
    let wait = doubled.min(longest);
    wait.saturating_add(wait / 1024 * u64::from(spread))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let policy = OffloadPolicy::default();
        let wait = |refusals, slot| retry_ns(&policy, refusals, slot) / 1_000_000_000;
        assert_eq!([0, 1, 2, 3].map(|n| wait(n, 0)), [5, 10, 20, 40]);
        assert_eq!([4, 7, u8::MAX].map(|n| wait(n, 0)), [60; 3]);
        let waits: Vec<_> = (0..1000).map(|slot| retry_ns(&policy, 0, slot)).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*most as f64 / *least as f64 > 1.2, "{least} to {most}");
        assert!(*most as f64 / *least as f64 <= 1.25, "{least} to {most}");
    }

    #[test]
    fn the_longest_is_never_shorter_than_the_first() {
        let policy = OffloadPolicy {
            retry_after: Duration::from_secs(300),
            ..OffloadPolicy::default()
        };
        assert_eq!(retry_ns(&policy, 3, 0), 300_000_000_000);
    }
}
