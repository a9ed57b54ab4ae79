//! Inputs by hand, from which fuzzing starts.

use super::common::*;

/// Target, name, bytes.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add =
        |target, name: &str, bytes: Vec<u8>| all.push((target, format!("seed-{name}"), bytes));
    let (client, server) = ("10.0.0.2:1234", "192.0.2.80:80");
    let (client6, server6) = ("[2001:db8:1::2]:1234", "[2001:db8:ffff::1]:80");
    for (name, frame) in [
        ("tcp4", tcp(client, server, "S")),
        ("tcp6", tcp(client6, server6, "SA")),
        ("udp4", udp(client, server)),
        ("udp6", udp(client6, server6)),
        ("echo4", echo("10.0.0.2", "192.0.2.80", 7, true)),
        ("echo6", echo("2001:db8:1::2", "2001:db8:ffff::1", 7, false)),
        (
            "error4",
            icmp_error("10.0.0.2", "192.0.2.80", 3, 4, &udp(server, client)[14..]),
        ),
        (
            "error6",
            icmp_error(
                "2001:db8:1::2",
                "2001:db8:ffff::1",
                2,
                0,
                &tcp(server6, client6, "A")[14..],
            ),
        ),
    ] {
        for (n, part) in fragment::fragments(&frame, 5, 8)
            .into_iter()
            .take(2)
            .enumerate()
        {
            add("parser", &format!("{name}-part{n}"), part);
        }
        add("parser", name, frame);
    }
    for how in 0..16u8 {
        add(
            "icmp",
            &format!("how{how}"),
            [
                &[how, 3, 1, 2, 20, 5, 1, 9, 60][..],
                &udp(client, server)[14..],
            ]
            .concat(),
        );
    }
    for (n, steps) in [
        // In order, in reverse, twice, damaged, two packets at once, late, other VPC, IPv6.
        vec![0x00, 0x08, 0x10],
        vec![0x10, 0x08, 0x00],
        vec![0x00, 0x00, 0x08, 0x08, 0x10, 0x10],
        vec![0x40, 3, 9, 80, 0x48, 3, 9, 80],
        vec![0x00, 0x02, 0x08, 0x0a, 0x10, 0x12],
        vec![0x08, 0xff, 0x00, 0x10],
        vec![0x20, 0x28, 0x30, 0x00],
        vec![0x01, 0x09, 0x11, 0x11, 0x01],
        [vec![0x08; 50], vec![0x00]].concat(),
        vec![0x18, 0x00, 0xff, 0xff, 0x08],
        vec![0x41, 2, 44, 255, 0x01, 0x09],
    ]
    .into_iter()
    .enumerate()
    {
        add("fragments", &format!("{n}"), steps);
    }
    let syn = [0u8, 2, 0, 0, 0, 9];
    let reply = [8u8, 0, 1];
    let udp_step = [0u8, 0, 0, 0, 0, 9];
    for (n, steps) in [
        vec![
            &syn[..],
            &reply,
            &[0, 0x22, 0, 0, 0, 9],
            &[12, 0, 1],
            &[12, 0, 3],
        ],
        vec![&udp_step[..], &reply, &[12, 0, 1], &[12, 0, 0], &[11, 255]],
        vec![&udp_step[..], &[10, 0, 0], &[10, 0, 1, 0, 40, 1]],
        vec![&syn[..], &[14, 9], &reply],
        vec![&[13, 0][..], &udp_step, &udp_step, &[13, 1], &[27, 9]],
        vec![&[0x30, 0, 0, 3, 2, 9][..], &[0x32, 2, 1, 3, 1, 9]],
        vec![
            &[1, 8, 0, 0, 0, 9, 1][..],
            &[1, 8, 0, 0, 0, 9, 0],
            &[1, 8, 0, 0, 0, 9, 2],
        ],
        vec![&[6, 60][..], &[0xff; 60]],
        vec![&[15, 20][..], &[1; 20]],
        vec![&[2, 0, 0xc0, 0, 0, 9][..], &[2, 0, 0x30, 0, 0, 9]],
        vec![&[4, 1, 0, 4, 0, 9][..], &[4, 1, 0, 4, 1, 9], &[8, 0, 0]],
    ]
    .into_iter()
    .enumerate()
    {
        for how in 0..4u8 {
            let bytes = [&[how][..], &steps.concat()].concat();
            add("walk", &format!("{n}-{how}"), bytes);
        }
    }
    all
}
