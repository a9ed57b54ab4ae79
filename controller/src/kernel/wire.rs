//! Framing, by `netlink-packet-core`: messages of a datagram, attributes of a message. What is
//! inside is `netlink-packet-route`'s, but for next-hop objects.

use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;

/// Reads at `at`; `None` past the end.
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// Reads at `at`; `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads at `at`; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// One message inside a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram, in order. A length that does not fit ends it with `Err(())`.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, ()>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let frame = split_frame(&mut bytes);
        if frame.is_none() {
            bytes = &[];
        }
        Some(frame.ok_or(()))
    })
}

fn split_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    let whole = *bytes;
    let header = NetlinkBuffer::new_checked(whole).ok()?;
    let len = usize::try_from(header.length()).ok()?;
    let frame = Frame {
        kind: header.message_type(),
        flags: header.flags(),
        sequence: header.sequence_number(),
        payload: whole.get(HEADER_LEN..len)?,
    };
    *bytes = whole.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Some(frame)
}

/// The attributes behind a fixed part: type without its flags, and value. Stops at bytes that
/// are none.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..len)?))
    })
}

/// The bytes of a request.
pub(crate) fn request(message: impl NetlinkSerializable, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(message),
    );
    message.header.flags = flags | NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NLM_F_ACK;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::route::{RouteAttribute, RouteMessage};
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back() {
        let mut route = RouteMessage::default();
        route.attributes.push(RouteAttribute::Table(101));
        route.attributes.push(RouteAttribute::Priority(7));
        let mut bytes = request(RouteNetlinkMessage::NewRoute(route), NLM_F_ACK, 7);
        bytes.extend(bytes.clone());
        let read: Vec<_> = frames(&bytes).collect();
        assert_eq!(read.len(), 2);
        for frame in read {
            let frame = frame.unwrap();
            assert_eq!(
                (frame.kind, frame.flags, frame.sequence),
                (24, NLM_F_ACK | NLM_F_REQUEST, 7)
            );
            let attributes: Vec<_> = attributes(&frame.payload[12..]).collect();
            assert_eq!(attributes[0], (15, &101u32.to_ne_bytes()[..]));
            assert_eq!(attributes[1], (6, &7u32.to_ne_bytes()[..]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(frames(&bytes).count() <= 17);
            prop_assert!(attributes(&bytes).count() <= 64);
        }

        #[test]
        fn a_length_of_zero_ends(tail in proptest::collection::vec(any::<u8>(), 12..64)) {
            let mut bytes = vec![0, 0, 0, 0];
            bytes.extend(tail);
            prop_assert_eq!(frames(&bytes).filter(Result::is_ok).count(), 0);
            prop_assert_eq!(attributes(&bytes).count(), 0);
        }
    }
}
