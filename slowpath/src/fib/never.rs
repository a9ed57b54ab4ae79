//! Ports whose connections stay in software: a bit each, asked at every packet in software.

use shunt_p4::flow::proto::{TCP, UDP};

use crate::policy::NeverPorts;

const WORDS: usize = 65_536 / 64;

/// The ports, by protocol; nothing where there are none.
#[derive(Debug, Default)]
pub(crate) struct Never {
    tcp: Option<Box<[u64; WORDS]>>,
    udp: Option<Box<[u64; WORDS]>>,
}

impl Never {
    pub(super) fn new(rules: &[NeverPorts]) -> Self {
        let mut never = Self::default();
        for rule in rules {
            for (protocol, bits) in [(TCP, &mut never.tcp), (UDP, &mut never.udp)] {
                if rule.protocol.is_some_and(|only| only != protocol) {
                    continue;
                }
                let bits = bits.get_or_insert_with(|| Box::new([0; WORDS]));
                for port in rule.ports.first()..=rule.ports.last() {
                    bits[usize::from(port) / 64] |= 1 << (port % 64);
                }
            }
        }
        never
    }

    /// Whether connections of that protocol to that port stay in software.
    #[inline]
    pub(crate) fn has(&self, protocol: u8, port: u16) -> bool {
        let bits = match protocol {
            TCP => &self.tcp,
            UDP => &self.udp,
            _ => &None,
        };
        bits.as_ref()
            .is_some_and(|bits| bits[usize::from(port) / 64] >> (port % 64) & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shunt_p4::flow::proto::ICMP;

    use super::*;
    use crate::policy::PortRange;

    fn rule() -> impl Strategy<Value = NeverPorts> {
        let protocol = prop_oneof![Just(None), Just(Some(TCP)), Just(Some(UDP))];
        (protocol, 1u16.., 0u16..200).prop_map(|(protocol, first, more)| NeverPorts {
            protocol,
            ports: PortRange::new(first, first.saturating_add(more)).unwrap(),
        })
    }

    proptest! {
        #[test]
        fn it_is_what_the_rules_say(
            rules in proptest::collection::vec(rule(), 0..6),
            ports in proptest::collection::vec(any::<u16>(), 32),
        ) {
            let never = Never::new(&rules);
            let edges = rules.iter().flat_map(|rule| [rule.ports.first(), rule.ports.last()]);
            let beside = edges.flat_map(|port| [port.wrapping_sub(1), port, port.wrapping_add(1)]);
            for port in ports.into_iter().chain(beside) {
                for protocol in [TCP, UDP, ICMP] {
                    let wanted = protocol != ICMP
                        && rules.iter().any(|rule| {
                            rule.protocol.is_none_or(|only| only == protocol)
                                && rule.ports.contains(port)
                        });
                    prop_assert_eq!(never.has(protocol, port), wanted, "{} {}", protocol, port);
                }
            }
        }
    }
}
