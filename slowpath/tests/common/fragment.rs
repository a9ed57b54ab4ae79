//! Packets cut into fragments, as a host does it.

/// Cuts a frame's IP payload into parts of `size` bytes, each a fragment of packet `id`.
pub fn fragments(frame: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    assert_eq!(size % 8, 0);
    let v6 = frame[12] == 0x86;
    let (ethernet, ip) = frame.split_at(14);
    let (header, payload) = ip.split_at(if v6 { 40 } else { 20 });
    let parts: Vec<&[u8]> = payload.chunks(size).collect();
    let last = parts.len() - 1;
    parts
        .iter()
        .enumerate()
        .map(|(n, part)| {
            let offset = (n * size / 8) as u16;
            let more = n < last;
            let mut header = header.to_vec();
            if v6 {
                let field = offset << 3 | u16::from(more);
                let next = std::mem::replace(&mut header[6], 44);
                header[4..6].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
                header.extend([next, 0]);
                header.extend(field.to_be_bytes());
                header.extend(id.to_be_bytes());
            } else {
                header[2..4].copy_from_slice(&(part.len() as u16 + 20).to_be_bytes());
                header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                let field = offset | if more { 0x2000 } else { 0 };
                header[6..8].copy_from_slice(&field.to_be_bytes());
                header[10..12].fill(0);
                let checksum = shunt_slowpath::packet::checksum::of(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            [ethernet, &header, part].concat()
        })
        .collect()
}
