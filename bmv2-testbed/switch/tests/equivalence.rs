//! The code that packets run and the written form that traces follow do the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unused_crate_dependencies,
    missing_docs
)]

mod common;

use std::sync::Arc;

use common::{Udp, options, program};
use proptest::prelude::*;
use shunt_switch::{ChannelPort, Options, Stats, Switch};

const PORTS: &[u32] = &[0, 1, 2, 3, 4, 101, 103];

struct Side {
    switch: Switch,
    ports: Vec<ChannelPort>,
}

/// Frames that left, with their ports; then the counts.
type Outcome = (Vec<(u32, Vec<u8>)>, Stats);

impl Side {
    fn new(name: &str, traced: bool) -> Self {
        let options = Options {
            trace: traced.then(|| Arc::new(|_| {}) as shunt_switch::TraceSink),
            ..options().0
        };
        let switch = Switch::new(options);
        let (json, info) = program(name);
        switch.load(&json, info).unwrap();
        let ports = PORTS.iter().map(|p| switch.attach_channel(*p, 64));
        Self {
            ports: ports.collect(),
            switch,
        }
    }

    fn run(&self, frames: &[Vec<u8>]) -> Outcome {
        self.ports[1].inject_burst(frames.iter().map(Vec::as_slice));
        let taken = PORTS.iter().zip(&self.ports).flat_map(|(number, port)| {
            let frames = std::iter::from_fn(|| port.try_receive());
            frames.map(|frame| (*number, frame)).collect::<Vec<_>>()
        });
        (taken.collect(), self.switch.stats())
    }
}

/// Both sides keep their registers and counters from case to case.
fn compare(name: &str, frame: impl Strategy<Value = Vec<u8>>) {
    let (code, written) = (Side::new(name, false), Side::new(name, true));
    proptest!(|(frames in prop::collection::vec(frame, 1..20))| {
        prop_assert_eq!(code.run(&frames), written.run(&frames));
    });
}

/// A frame of `constructs.p4`: any operation, any values, cut anywhere.
fn construct() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![0..34_u8, Just(90), Just(91), Just(92), any::<u8>()];
    let items = prop::collection::vec(any::<u8>(), 0..6);
    let rest = prop::collection::vec(any::<u8>(), 0..120);
    let start = (op, items, prop::option::of(any::<u8>()), rest);
    start.prop_map(|(op, items, count, rest)| {
        let mut frame = vec![op, count.unwrap_or(items.len() as u8)];
        frame.extend(items);
        frame.extend(rest);
        frame
    })
}

/// An IPv4 packet with a few bytes changed, cut anywhere.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let frame = (any::<[u8; 4]>(), 0..3_u8, 0..30_usize).prop_map(|(dst, words, payload)| {
        let packet = Udp {
            dst,
            options: vec![1; usize::from(words) * 4],
            payload: vec![0x5a; payload],
            ..Udp::default()
        };
        packet.frame()
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (frame, changes, cut).prop_map(|(mut frame, changes, cut)| {
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        frame
    })
}

#[test]
fn constructs_do_the_same() {
    compare("constructs", construct());
}

#[test]
fn packets_go_the_same_way() {
    compare("forward", packet());
}
