//! What a loaded program holds at run time: entries, profiles, counters, meters, registers, groups.
//!
//! Packets and the control plane share it. Tables lock themselves, in parts: packets take a part's
//! lock for reading while they look one entry up; a write holds it for one entry. Counters are
//! atomic.

pub(crate) mod digest;
pub(crate) mod entry;
mod hasher;
mod index;
pub(crate) mod meter;
pub(crate) mod profile;
pub(crate) mod replication;
mod shards;
pub(crate) mod table;
pub(crate) mod value_set;
mod wide;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use digest::Digests;
use meter::Meter;
use num_bigint::BigUint;
use profile::ProfileState;
use replication::Replication;
use table::TableState;
use value_set::ValueSetState;

use crate::program::Program;

/// The run-time state of one loaded program.
#[derive(Debug)]
pub(crate) struct State {
    /// Of this state alone; not 0.
    pub(crate) id: u64,
    pub(crate) tables: Vec<TableState>,
    /// By table.
    pub(crate) defaults: Vec<Mutex<DefaultNote>>,
    pub(crate) profiles: Vec<RwLock<ProfileState>>,
    pub(crate) counters: Vec<Vec<Counter>>,
    pub(crate) meters: Vec<Vec<Mutex<Meter>>>,
    /// Cells of at most 128 bits; an array of longer ones is empty here.
    pub(crate) registers: Vec<Mutex<Vec<u128>>>,
    /// Cells of more than 128 bits.
    pub(crate) wide_registers: Vec<Mutex<Vec<BigUint>>>,
    pub(crate) replication: RwLock<Replication>,
    pub(crate) digests: Mutex<Digests>,
    pub(crate) value_sets: Vec<RwLock<ValueSetState>>,
}

/// A table from so many entries on is large: more than the nearest caches hold.
const LARGE_ENTRIES: usize = 1024;

impl State {
    /// The large exact tables, by number; only those numbered below 128.
    pub(crate) fn large(&self) -> u128 {
        let tables = self.tables.iter().take(128).enumerate();
        let large = tables.filter(|(_, table)| table.can_look_up_all(LARGE_ENTRIES));
        large.fold(0, |all, (index, _)| all | 1 << index)
    }

    /// The state that the program starts with: default and const entries, all else empty.
    pub(crate) fn new(program: &Program) -> Self {
        let arrays = |arrays: &[crate::program::Array]| {
            let sizes = arrays.iter().map(|a| a.size);
            sizes.collect::<Vec<_>>()
        };
        static STATES: AtomicU64 = AtomicU64::new(0);
        Self {
            id: STATES.fetch_add(1, Ordering::Relaxed) + 1,
            tables: program.tables.iter().map(TableState::new).collect(),
            defaults: program.tables.iter().map(|_| Mutex::default()).collect(),
            profiles: program
                .profiles
                .iter()
                .map(|_| RwLock::new(ProfileState::default()))
                .collect(),
            counters: arrays(&program.counters)
                .into_iter()
                .map(|size| (0..size).map(|_| Counter::default()).collect())
                .collect(),
            meters: arrays(&program.meters)
                .into_iter()
                .map(|size| (0..size).map(|_| Mutex::default()).collect())
                .collect(),
            registers: program
                .registers
                .iter()
                .map(|r| Mutex::new(vec![0; if r.is_wide() { 0 } else { r.size }]))
                .collect(),
            wide_registers: program
                .registers
                .iter()
                .map(|r| Mutex::new(vec![BigUint::ZERO; if r.is_wide() { r.size } else { 0 }]))
                .collect(),
            replication: RwLock::default(),
            digests: Mutex::default(),
            value_sets: program
                .value_sets
                .iter()
                .map(|_| RwLock::default())
                .collect(),
        }
    }
}

/// What a client noted with a default entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct DefaultNote {
    pub(crate) controller_metadata: u64,
    pub(crate) metadata: Vec<u8>,
}

/// Packets and bytes.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Counts packets.
    #[inline]
    pub(crate) fn count(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Packets and bytes counted.
    pub(crate) fn get(&self) -> (u64, u64) {
        (
            self.packets.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }

    /// Overwrites the counts.
    pub(crate) fn set(&self, packets: u64, bytes: u64) {
        self.packets.store(packets, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Locks for reading. The data stays usable if a holder panicked: no write leaves it half done.
#[inline]
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing; see [`read`].
#[inline]
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Locks; see [`read`].
#[inline]
pub(crate) fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
