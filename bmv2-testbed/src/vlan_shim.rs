//! A VLAN sub-interface for kernels that have none: a tap that carries the untagged frames of
//! one VLAN of a device.
//!
//! libpcap hands received frames over with their tag (the kernel strips it from the packet and
//! reports it beside); frames from the tap get one before they leave.

use std::sync::Arc;

use pcap::{Active, Capture, Direction};

use crate::error::{Error, Result};

/// Longest frame, with its tag.
const FRAME_LEN_MAX: usize = 9234;
/// IEEE 802.1Q tag protocol identifier.
const TPID: [u8; 2] = [0x81, 0x00];
/// Bytes of the two Ethernet addresses, which stand before the tag.
const ADDRESSES_LEN: usize = 12;

fn words(error: impl std::fmt::Display, what: &str) -> Error {
    Error::Other(format!("vlan shim: {what}: {error}"))
}

/// The untagged frame, if it is one of this VLAN.
fn untag(frame: &[u8], vid: u16, out: &mut Vec<u8>) -> bool {
    let (Some(addresses), Some(tag)) = (frame.get(..ADDRESSES_LEN), frame.get(12..16)) else {
        return false;
    };
    if tag[..2] != TPID || u16::from_be_bytes([tag[2], tag[3]]) & 0xfff != vid {
        return false;
    }
    out.clear();
    out.extend_from_slice(addresses);
    out.extend_from_slice(&frame[16..]);
    true
}

/// The tagged frame.
fn tag(frame: &[u8], vid: u16, out: &mut Vec<u8>) -> bool {
    let Some((addresses, rest)) = frame.split_at_checked(ADDRESSES_LEN) else {
        return false;
    };
    out.clear();
    out.extend_from_slice(addresses);
    out.extend_from_slice(&TPID);
    out.extend_from_slice(&vid.to_be_bytes());
    out.extend_from_slice(rest);
    true
}

fn open(device: &str) -> Result<Capture<Active>> {
    let capture = Capture::from_device(device)
        .and_then(|inactive| {
            inactive
                .promisc(true)
                .immediate_mode(true)
                .snaplen(i32::try_from(FRAME_LEN_MAX).unwrap_or(i32::MAX))
                .open()
        })
        .map_err(|error| words(error, device))?;
    Ok(capture)
}

/// Runs until a device goes: makes the tap, prints `ready`, moves frames.
pub fn run(device: &str, tap: &str, vid: u16) -> Result<()> {
    let tap = tun_rs::DeviceBuilder::new()
        .name(tap)
        .layer(tun_rs::Layer::L2)
        .build_sync()
        .map_err(|error| words(error, tap))?;
    let tap = Arc::new(tap);
    let mut receive = open(device)?;
    receive
        .direction(Direction::In)
        .map_err(|error| words(error, device))?;
    let mut send = open(device)?;
    println!("ready");

    let from_tap = Arc::clone(&tap);
    std::thread::spawn(move || -> Result<()> {
        let mut frame = vec![0; FRAME_LEN_MAX];
        let mut out = Vec::with_capacity(FRAME_LEN_MAX);
        loop {
            let length = from_tap
                .recv(&mut frame)
                .map_err(|error| words(error, "tap"))?;
            if tag(&frame[..length], vid, &mut out) {
                // A full queue drops, as any link does.
                let _ = send.sendpacket(out.as_slice());
            }
        }
    });
    let mut out = Vec::with_capacity(FRAME_LEN_MAX);
    loop {
        match receive.next_packet() {
            Ok(packet) => {
                if untag(packet.data, vid, &mut out) {
                    let _ = tap.send(&out);
                }
            }
            Err(pcap::Error::TimeoutExpired) => {}
            Err(error) => return Err(words(error, device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_off_as_it_went_on() {
        let frame: Vec<u8> = (0..60).collect();
        let (mut tagged, mut back) = (Vec::new(), Vec::new());
        assert!(tag(&frame, 20, &mut tagged));
        assert_eq!(tagged.len(), 64);
        assert_eq!(tagged[12..16], [0x81, 0, 0, 20]);
        assert!(untag(&tagged, 20, &mut back));
        assert_eq!(back, frame);
        assert!(!untag(&tagged, 21, &mut back));
        assert!(!untag(&frame, 20, &mut back));
        assert!(!untag(&tagged[..15], 20, &mut back));
    }
}
