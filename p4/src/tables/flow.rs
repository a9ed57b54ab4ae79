//! Flow entries and the two tables that hold them, `flow4` and `flow6`.

use std::net::IpAddr;

use p4runtime::p4::v1::TableEntry;

use super::{Flow4, Flow4Action, Flow4Key, Flow6, Flow6Action, Flow6Key, P4Table, TableError};
use crate::flow::{FlowAction, FlowEntry, FlowKey, Tuple};

/// Whether the entry is of `flow4` or `flow6`.
pub const fn is_flow(entry: &TableEntry) -> bool {
    entry.table_id == Flow4::ID || entry.table_id == Flow6::ID
}

macro_rules! family {
    ($key_fn:ident, $from_key:ident, $action_fn:ident, $from_action:ident,
     $key:ident, $action:ident, $ip:ident) => {
        fn $key_fn(key: &FlowKey) -> Option<$key> {
            match (key.tuple.src, key.tuple.dst) {
                (IpAddr::$ip(src), IpAddr::$ip(dst)) => Some($key {
                    vpc: key.vpc,
                    src,
                    dst,
                    proto: key.tuple.proto,
                    src_port: key.tuple.src_port,
                    dst_port: key.tuple.dst_port,
                }),
                _ => None,
            }
        }

        fn $from_key(key: &$key) -> FlowKey {
            FlowKey {
                vpc: key.vpc,
                tuple: Tuple {
                    src: IpAddr::$ip(key.src),
                    dst: IpAddr::$ip(key.dst),
                    proto: key.proto,
                    src_port: key.src_port,
                    dst_port: key.dst_port,
                },
            }
        }

        fn $action_fn(action: &FlowAction) -> Option<$action> {
            let vpc = action.vpc;
            Some(match (action.src, action.dst) {
                (None, None) => $action::Forward { vpc },
                (Some((IpAddr::$ip(src), src_port)), None) => $action::Snat { vpc, src, src_port },
                (None, Some((IpAddr::$ip(dst), dst_port))) => $action::Dnat { vpc, dst, dst_port },
                (Some((IpAddr::$ip(src), src_port)), Some((IpAddr::$ip(dst), dst_port))) => {
                    $action::Nat {
                        vpc,
                        src,
                        src_port,
                        dst,
                        dst_port,
                    }
                }
                _ => return None,
            })
        }

        fn $from_action(action: &$action) -> FlowAction {
            let (vpc, src, dst) = match *action {
                $action::Forward { vpc } => (vpc, None, None),
                $action::Snat { vpc, src, src_port } => (vpc, Some((src, src_port)), None),
                $action::Dnat { vpc, dst, dst_port } => (vpc, None, Some((dst, dst_port))),
                $action::Nat {
                    vpc,
                    src,
                    src_port,
                    dst,
                    dst_port,
                } => (vpc, Some((src, src_port)), Some((dst, dst_port))),
            };
            FlowAction {
                vpc,
                src: src.map(|(address, port)| (IpAddr::$ip(address), port)),
                dst: dst.map(|(address, port)| (IpAddr::$ip(address), port)),
            }
        }
    };
}

family!(
    key4,
    from_key4,
    action4,
    from_action4,
    Flow4Key,
    Flow4Action,
    V4
);
family!(
    key6,
    from_key6,
    action6,
    from_action6,
    Flow6Key,
    Flow6Action,
    V6
);

/// The table entry of a flow; `None`: its addresses are not of one family.
pub fn flow_to_entry(flow: &FlowEntry) -> Option<TableEntry> {
    let idle_timeout = flow.idle_timeout;
    if let Some(key) = key4(&flow.key) {
        let action = action4(&flow.action)?;
        Some(
            Flow4 {
                key,
                action,
                idle_timeout,
            }
            .to_entry(),
        )
    } else {
        let (key, action) = (key6(&flow.key)?, action6(&flow.action)?);
        Some(
            Flow6 {
                key,
                action,
                idle_timeout,
            }
            .to_entry(),
        )
    }
}

/// The key alone, for DELETE; `None`: its addresses are not of one family.
pub fn flow_key_entry(key: &FlowKey) -> Option<TableEntry> {
    match key4(key) {
        Some(key) => Some(key.to_key_entry()),
        None => key6(key).map(|key| key.to_key_entry()),
    }
}

/// The flow of a table entry.
///
/// # Errors
/// [`TableError`]: not an entry of `flow4` or `flow6`, or none that [`flow_to_entry`] writes.
pub fn flow_from_entry(entry: &TableEntry) -> Result<FlowEntry, TableError> {
    if entry.table_id == Flow6::ID {
        let Flow6 {
            key,
            action,
            idle_timeout,
        } = Flow6::from_entry(entry)?;
        Ok(FlowEntry {
            key: from_key6(&key),
            action: from_action6(&action),
            idle_timeout,
        })
    } else {
        let Flow4 {
            key,
            action,
            idle_timeout,
        } = Flow4::from_entry(entry)?;
        Ok(FlowEntry {
            key: from_key4(&key),
            action: from_action4(&action),
            idle_timeout,
        })
    }
}

/// The key of a flow's table entry, whatever else it has (idle notifications carry only the key).
///
/// # Errors
/// [`TableError`]: not an entry of `flow4` or `flow6`, or a field is not in order.
pub fn flow_key_from_entry(entry: &TableEntry) -> Result<FlowKey, TableError> {
    match entry.table_id {
        Flow4::ID => Flow4Key::from_matches(&entry.r#match).map(|key| from_key4(&key)),
        Flow6::ID => Flow6Key::from_matches(&entry.r#match).map(|key| from_key6(&key)),
        id => Err(TableError::OtherTable {
            table: Flow4::NAME,
            id,
        }),
    }
}
