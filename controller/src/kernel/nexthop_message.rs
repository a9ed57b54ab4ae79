//! Next-hop objects on the wire (`linux/nexthop.h`).
//!
//! The only messages that shunt codes by itself: `netlink-packet-route` does not know them
//! (`RTM_NEWNEXTHOP` and its like end as "unknown message type" there). All others are its.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NetlinkSerializable;

use super::message::{Message, NexthopInfo, NexthopKind, Path};
use super::wire::{Frame, attributes, u8_at, u16_at, u32_at};

/// Message kinds.
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

/// Bytes of `struct nhmsg`.
const HEADER_LEN: usize = 8;

/// Attributes.
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;

/// Asks for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetNexthops;

impl NetlinkSerializable for GetNexthops {
    fn message_type(&self) -> u16 {
        RTM_GETNEXTHOP
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Every family: all zero.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// Reads one; `None` when it is cut short or contradicts itself.
pub(crate) fn parse(frame: &Frame<'_>) -> Option<Message> {
    let payload = frame.payload;
    let mut id = None;
    let mut group = None;
    let mut blackhole = false;
    let mut path = Path {
        index: 0,
        gateway: None,
        weight: 1,
        flags: u32_at(payload, 4)?,
        encapsulated: false,
    };
    for (kind, value) in attributes(payload.get(HEADER_LEN..)?) {
        match kind {
            NHA_ID => id = u32_at(value, 0),
            NHA_GROUP => {
                let members = value.chunks_exact(8).filter_map(|member| {
                    let low = u32::from(u8_at(member, 4)?);
                    let high = u32::from(u8_at(member, 5)?);
                    Some((u32_at(member, 0)?, (high << 8 | low) + 1))
                });
                group = Some(members.collect());
            }
            NHA_BLACKHOLE => blackhole = true,
            NHA_OIF => path.index = u32_at(value, 0)?,
            NHA_GATEWAY => path.gateway = Some(address(value)?),
            NHA_ENCAP_TYPE => path.encapsulated = u16_at(value, 0)? != 0,
            NHA_FDB => return Some(Message::Ignored),
            _ => {}
        }
    }
    let id = id?;
    if frame.kind == RTM_DELNEXTHOP {
        return Some(Message::DelNexthop(id));
    }
    let kind = match group {
        Some(members) => NexthopKind::Group(members),
        None if blackhole => NexthopKind::Blackhole,
        None => NexthopKind::Path(path),
    };
    Some(Message::NewNexthop(NexthopInfo { id, kind }))
}

/// An address as netlink carries it: 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{DefaultNla, Emitable as _};

    fn read(kind: u16, attributes: &[(u16, &[u8])]) -> Option<Message> {
        let mut payload = vec![2, 0, 4, 0, 0, 0, 0, 0];
        for &(kind, value) in attributes {
            let attribute = DefaultNla::new(kind, value.to_vec());
            let at = payload.len();
            payload.resize(at + attribute.buffer_len(), 0);
            attribute.emit(&mut payload[at..]);
        }
        parse(&Frame {
            kind,
            flags: 0,
            sequence: 1,
            payload: &payload,
        })
    }

    #[test]
    fn paths_groups_and_what_ends_them() {
        let id = |id: u32| id.to_ne_bytes();
        // ip nexthop add id 7 via 10.0.0.2 dev if4
        let (object, device) = (id(7), id(4));
        let path = read(
            RTM_NEWNEXTHOP,
            &[
                (NHA_ID, &object),
                (NHA_OIF, &device),
                (NHA_GATEWAY, &[10, 0, 0, 2]),
            ],
        );
        let Some(Message::NewNexthop(info)) = path else {
            panic!("not an object");
        };
        let NexthopKind::Path(path) = info.kind else {
            panic!("not a path");
        };
        assert_eq!((info.id, path.index), (7, 4));
        assert_eq!(path.gateway, "10.0.0.2".parse().ok());

        // ip nexthop add id 9 group 7,3/8
        let mut members = Vec::new();
        for (id, weight) in [(7u32, 2u8), (8, 0)] {
            members.extend(id.to_ne_bytes());
            members.extend([weight, 0, 0, 0]);
        }
        let object = id(9);
        let group = read(RTM_NEWNEXTHOP, &[(NHA_ID, &object), (NHA_GROUP, &members)]);
        let Some(Message::NewNexthop(info)) = group else {
            panic!("not an object");
        };
        assert_eq!(info.kind, NexthopKind::Group(vec![(7, 3), (8, 1)]));

        let gone = read(RTM_DELNEXTHOP, &[(NHA_ID, &object)]);
        assert_eq!(gone, Some(Message::DelNexthop(9)));
        // Without an id, and with half an address, it cannot be read.
        assert_eq!(read(RTM_DELNEXTHOP, &[]), None);
        let half: [(u16, &[u8]); 2] = [(NHA_ID, &object), (NHA_GATEWAY, &[10, 0])];
        assert_eq!(read(RTM_NEWNEXTHOP, &half), None);
    }
}
