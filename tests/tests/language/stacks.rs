//! Stacks of headers with a varbit, and of header unions.

use crate::device::{Device, on_both};

/// Starts neither a union's member nor an option.
const REST: &[u8] = b"and the rest";

/// An `opt` header: four bits of length, as many bytes, four bits at the end.
fn option(len: u8, data: &[u8], last: u8) -> Vec<u8> {
    let mut nibbles = vec![len];
    nibbles.extend(data.iter().flat_map(|b| [b >> 4, b & 15]));
    nibbles.push(last);
    nibbles
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn frame(op: u8, arg: u8, headers: &[&[u8]]) -> Vec<u8> {
    [&[op, arg], headers.concat().as_slice(), REST].concat()
}

#[track_caller]
fn check(device: &mut Device, sent: &[u8], expected: &[u8]) {
    device.send(1, sent);
    assert_eq!(device.next(2), expected, "of {sent:02x?}");
}

#[test]
fn varbits() {
    on_both("stacks::varbits", "language", |device| {
        let a = option(3, &[1, 2, 3], 0);
        let b = option(5, &[4, 5, 6, 7, 8], 1);
        let none = option(0, &[], 9);
        let send = |op: u8, headers: &[&[u8]]| frame(op, 0, headers);
        // They leave as they came.
        let long = option(12, &[0xab; 12], 1);
        for headers in [
            &[a.as_slice(), &b][..],
            &[&none],
            &[&long],
            &[&a, &a, &none],
        ] {
            check(device, &send(0x40, headers), &send(0x40, headers));
        }
        let new = option(0, &[], 5);
        check(device, &send(0x41, &[&a, &b]), &send(0x41, &[&new, &a, &b]));
        check(device, &send(0x42, &[&a, &b]), &send(0x42, &[&b]));
        check(device, &send(0x43, &[&a, &b]), &send(0x43, &[&a, &b, &a]));
        // A header that becomes valid again is zero, and as long as it was.
        let reset = option(0, &[0; 5], 6);
        check(device, &send(0x44, &[&a, &b]), &send(0x44, &[&a, &reset]));
        // The element pushed out of a full stack comes back in front, as long as it was.
        let full = [a.as_slice(), &a, &b];
        let returned = option(0, &[0; 5], 5);
        check(
            device,
            &send(0x41, &full),
            &send(0x41, &[&returned, &a, &a]),
        );
    });
}

#[test]
fn varbits_that_do_not_fit() {
    on_both("stacks::varbits_that_do_not_fit", "language", |device| {
        let a = option(1, &[1], 0);
        // Longer than the varbit (13 bytes), a fourth element, and a packet that ends.
        let long = option(13, &[7; 13], 1);
        let mut short = [&[0x40, 0], [a.as_slice(), &a].concat().as_slice()].concat();
        short.extend([0xc0; 9]);
        for sent in [
            frame(0x40, 0, &[&a, &long]),
            frame(0x40, 0, &[&a, &a, &a, &a]),
            short,
        ] {
            device.send(1, &sent);
            assert_eq!(device.next(3), sent);
        }
    });
}

#[test]
fn unions() {
    on_both("stacks::unions", "language", |device| {
        let one: &[u8] = &[1, 0x77];
        let two: &[u8] = &[2, 0x88, 0x99];
        for headers in [&[one, two, one][..], &[two], &[]] {
            let sent = frame(0x80, 0, headers);
            check(device, &sent, &sent);
        }
        check(
            device,
            &frame(0x81, 0, &[one, two]),
            &frame(0x81, 0, &[one, one]),
        );
        // What becomes valid takes the other's place.
        let set: &[u8] = &[9, 0x12, 0x34];
        check(
            device,
            &frame(0x82, 0, &[one, two]),
            &frame(0x82, 0, &[set, two]),
        );
        check(
            device,
            &frame(0x83, 7, &[one, two]),
            &frame(0x83, 1, &[one, two]),
        );
        check(device, &frame(0x83, 7, &[one]), &frame(0x83, 0, &[one]));
        check(
            device,
            &frame(0x84, 7, &[one, two]),
            &frame(0x84, 7, &[two]),
        );
        check(
            device,
            &frame(0x84, 7, &[two, two]),
            &frame(0x84, 1, &[two, two]),
        );
        // A fourth union.
        let sent = frame(0x80, 0, &[one, two, one, two]);
        device.send(1, &sent);
        assert_eq!(device.next(3), sent);
    });
}
