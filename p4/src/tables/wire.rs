//! Flow entries straight to bytes: what the offload engine writes by the million.

use std::net::IpAddr;

use p4runtime::p4::v1::update::Type;
use p4runtime::wire::{BytesMut, ExactEntry, WireUpdate, put_table_update};

use super::ids::{flow4, flow6};
use super::value::P4Value as _;
use crate::flow::{FlowAction, FlowEntry};

/// An update of a flow entry.
#[derive(Clone, Copy, Debug)]
pub struct FlowUpdate {
    r#type: Type,
    flow: FlowEntry,
}

impl FlowUpdate {
    /// `None`: the flow's addresses are not of one family.
    pub fn new(r#type: Type, flow: FlowEntry) -> Option<Self> {
        let (key, action) = (&flow.key.tuple, &flow.action);
        let ipv6 = key.is_ipv6();
        let others = [action.src, action.dst];
        let mut others = others
            .iter()
            .flatten()
            .map(|(address, _)| address.is_ipv6());
        (key.dst.is_ipv6() == ipv6 && others.all(|other| other == ipv6))
            .then_some(Self { r#type, flow })
    }

    /// Insert, modify or delete.
    pub const fn kind(&self) -> Type {
        self.r#type
    }

    /// The flow; of a deletion only the key counts.
    pub const fn flow(&self) -> &FlowEntry {
        &self.flow
    }
}

impl WireUpdate for FlowUpdate {
    fn append_to(&self, request: &mut BytesMut) {
        let FlowUpdate { r#type, flow } = self;
        let tuple = &flow.key.tuple;
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => u128::from(address),
        };
        macro_rules! put {
            ($table:ident, $forward:ident, $snat:ident, $dnat:ident, $nat:ident) => {{
                let matches = [
                    ($table::key::vpc, flow.key.vpc.to_bits()),
                    ($table::key::src, bits(tuple.src)),
                    ($table::key::dst, bits(tuple.dst)),
                    ($table::key::proto, tuple.proto.into()),
                    ($table::key::src_port, tuple.src_port.into()),
                    ($table::key::dst_port, tuple.dst_port.into()),
                ];
                let FlowAction { vpc, src, dst } = flow.action;
                let vpc = vpc.to_bits();
                let mut put = |action, params: &[(u32, u128)]| {
                    let is_delete = *r#type == Type::Delete;
                    let idle = super::mode::idle_to_ns(flow.idle_timeout);
                    let entry = ExactEntry {
                        table_id: $table::ID,
                        matches: &matches,
                        // DELETE takes the key alone.
                        action: (!is_delete).then_some((action, params)),
                        idle_timeout_ns: if is_delete { 0 } else { idle },
                    };
                    put_table_update(*r#type, &entry, request);
                };
                match (src, dst) {
                    (None, None) => {
                        use $table::action::$forward as action;
                        put(action::ID, &[(action::vpc, vpc)]);
                    }
                    (Some((src, src_port)), None) => {
                        use $table::action::$snat as action;
                        put(
                            action::ID,
                            &[
                                (action::vpc, vpc),
                                (action::src, bits(src)),
                                (action::src_port, src_port.into()),
                            ],
                        );
                    }
                    (None, Some((dst, dst_port))) => {
                        use $table::action::$dnat as action;
                        put(
                            action::ID,
                            &[
                                (action::vpc, vpc),
                                (action::dst, bits(dst)),
                                (action::dst_port, dst_port.into()),
                            ],
                        );
                    }
                    (Some((src, src_port)), Some((dst, dst_port))) => {
                        use $table::action::$nat as action;
                        put(
                            action::ID,
                            &[
                                (action::vpc, vpc),
                                (action::src, bits(src)),
                                (action::src_port, src_port.into()),
                                (action::dst, bits(dst)),
                                (action::dst_port, dst_port.into()),
                            ],
                        );
                    }
                }
            }};
        }
        if tuple.is_ipv6() {
            put!(flow6, flow6_forward, flow6_snat, flow6_dnat, flow6_nat);
        } else {
            put!(flow4, flow4_forward, flow4_snat, flow4_dnat, flow4_nat);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use p4runtime::p4::v1 as pb;
    use proptest::prelude::*;

    use super::*;
    use crate::flow::{FlowKey, Tuple};
    use crate::tables::{flow_key_entry, flow_to_entry};
    use crate::types::VpcId;

    fn address(ipv6: bool, bits: u128) -> IpAddr {
        match ipv6 {
            true => Ipv6Addr::from(bits).into(),
            false => Ipv4Addr::from(bits as u32).into(),
        }
    }

    #[test]
    fn two_families_are_no_flow() {
        let flow = |dst| FlowEntry {
            key: FlowKey {
                vpc: VpcId::MIN,
                tuple: Tuple {
                    src: address(false, 1),
                    dst,
                    proto: 6,
                    src_port: 1,
                    dst_port: 2,
                },
            },
            action: FlowAction {
                vpc: VpcId::MIN,
                src: None,
                dst: None,
            },
            idle_timeout: Duration::ZERO,
        };
        assert!(FlowUpdate::new(Type::Insert, flow(address(false, 2))).is_some());
        assert!(FlowUpdate::new(Type::Insert, flow(address(true, 2))).is_none());
    }

    proptest! {
        /// Byte for byte what the messages of the typed tables encode to.
        #[test]
        fn it_is_what_the_typed_tables_write(
            ipv6: bool,
            addresses: [u128; 4],
            ports: [u16; 4],
            proto: u8,
            vpcs in (1u16.., 1u16..),
            new in (any::<bool>(), any::<bool>()),
            idle_ms in 0u64..1_000_000,
            kind in 1i32..4,
        ) {
            let kind = Type::try_from(kind).unwrap();
            let [a, b, c, d] = addresses.map(|bits| address(ipv6, bits));
            let flow = FlowEntry {
                key: FlowKey {
                    vpc: VpcId::new(vpcs.0).unwrap(),
                    tuple: Tuple { src: a, dst: b, proto, src_port: ports[0], dst_port: ports[1] },
                },
                action: FlowAction {
                    vpc: VpcId::new(vpcs.1).unwrap(),
                    src: new.0.then_some((c, ports[2])),
                    dst: new.1.then_some((d, ports[3])),
                },
                idle_timeout: Duration::from_millis(idle_ms),
            };
            let entry = match kind {
                Type::Delete => flow_key_entry(&flow.key),
                _ => flow_to_entry(&flow),
            };
            let message = pb::Update {
                r#type: kind.into(),
                entity: Some(pb::Entity {
                    entity: Some(pb::entity::Entity::TableEntry(entry.unwrap())),
                }),
            };
            let (mut fast, mut slow) = (BytesMut::new(), BytesMut::new());
            FlowUpdate::new(kind, flow).unwrap().append_to(&mut fast);
            message.append_to(&mut slow);
            prop_assert_eq!(fast, slow);
        }
    }
}
