//! Captures of Ethernet frames, through libpcap: what it reads, tcpdump and Wireshark read.

use std::path::Path;

use pcap::{Capture, Linktype, Packet, PacketHeader};

/// A frame, and where and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub at_us: u64,
    pub interface: u16,
    pub bytes: Vec<u8>,
}

/// Writes the frames of an interface; no file if there are none.
pub fn write(path: &Path, frames: &[Arrived], interface: u16) {
    let mut frames = frames.iter().filter(|frame| frame.interface == interface);
    let Some(first) = frames.next() else { return };
    let capture = Capture::dead(Linktype::ETHERNET).unwrap();
    let mut save = capture.savefile(path).unwrap();
    for frame in std::iter::once(first).chain(frames) {
        let len = u32::try_from(frame.bytes.len()).unwrap();
        let ts = nix::libc::timeval {
            tv_sec: (frame.at_us / 1_000_000) as i64,
            tv_usec: (frame.at_us % 1_000_000) as i64,
        };
        let header = PacketHeader {
            ts,
            caplen: len,
            len,
        };
        save.write(&Packet::new(&header, &frame.bytes));
    }
    save.flush().unwrap();
}

/// The frames of an interface; none without the file.
pub fn read(path: &Path, interface: u16) -> Vec<Arrived> {
    if !path.exists() {
        return Vec::new();
    }
    let mut capture = Capture::from_file(path).unwrap();
    assert_eq!(capture.get_datalink(), Linktype::ETHERNET);
    let mut frames = Vec::new();
    while let Ok(packet) = capture.next_packet() {
        let ts = packet.header.ts;
        frames.push(Arrived {
            at_us: ts.tv_sec as u64 * 1_000_000 + ts.tv_usec as u64,
            interface,
            bytes: packet.data.to_vec(),
        });
    }
    frames
}
