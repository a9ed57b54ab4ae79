//! The ports towards the switches, and which worker has which queue of them.

use shunt_dpdk::{Eal, Pool, Port, PortConfig, PortError};

use super::ManagerError;
use crate::worker::run::{HANDOVER_FRAMES, Wire};

/// A queue pair for each worker, or as many as the device has.
pub(super) fn open(eal: &Eal, name: &str, pool: &Pool, workers: u16) -> Result<Port, PortError> {
    let queues = |n| PortConfig {
        rx_queues: n,
        tx_queues: n,
        ..PortConfig::default()
    };
    match Port::open(eal, name, pool, &queues(workers)) {
        Err(PortError::Queues { rx, tx, .. }) if rx.min(tx) >= 1 => {
            Port::open(eal, name, pool, &queues(rx.min(tx)))
        }
        opened => opened,
    }
}

/// Each worker's ways to the switches.
pub(super) fn wires(ports: &[Port], workers: u16) -> Result<Vec<Vec<Wire>>, ManagerError> {
    let mut all: Vec<Vec<Wire>> = (0..workers).map(|_| Vec::new()).collect();
    for port in ports {
        for (wires, wire) in all.iter_mut().zip(wires_to(port, workers)?) {
            wires.push(wire);
        }
    }
    Ok(all)
}

/// Each worker's way to a switch: a queue pair, or through the first worker.
fn wires_to(port: &Port, workers: u16) -> Result<Vec<Wire>, ManagerError> {
    let mut wires = Vec::new();
    let mut through_first = Vec::new();
    for n in 0..workers {
        match (port.rx_queue(n), port.tx_queue(n)) {
            (Some(rx), Some(tx)) => wires.push(Wire::Port {
                rx,
                tx,
                others: Vec::new(),
            }),
            _ if n == 0 => return Err(ManagerError::Queue(n)),
            _ => {
                let (producer, consumer) = rtrb::RingBuffer::new(HANDOVER_FRAMES);
                wires.push(Wire::Through(producer));
                through_first.push(consumer);
            }
        }
    }
    if let Some(Wire::Port { others, .. }) = wires.first_mut() {
        *others = through_first;
    }
    Ok(wires)
}
