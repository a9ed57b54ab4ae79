//! Which counters, meters or registers are meant: cells of an array, or those of a table's entries.

use p4runtime::named::Named;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::{P4InfoError, P4InfoIndex, Table};

use super::P4Error;

/// An array's id and size.
type Array = (u32, u64);

/// A kind of resource: arrays of cells, and where there are such, one for each entry of a table.
pub(super) struct Resource {
    word: &'static str,
    /// The array with this name.
    array: fn(&P4InfoIndex, &str) -> Result<Array, P4InfoError>,
    arrays: fn(&P4InfoIndex) -> Vec<u32>,
    /// The table of the direct resource with this name.
    direct: fn(&P4InfoIndex, &str) -> Option<u32>,
    directs: fn(&P4InfoIndex) -> Vec<u32>,
    is_of: fn(&P4InfoIndex, &Table) -> bool,
    cell: fn(u32, Option<pb::Index>) -> Kind,
    of_entry: fn(pb::TableEntry) -> Kind,
}

pub(super) const COUNTERS: Resource = Resource {
    word: "counter",
    array: |index, name| index.counter(name).map(|one| (one.id, one.size)),
    arrays: |index| index.counters().iter().map(|one| one.id).collect(),
    direct: |index, name| index.direct_counter(name).ok().map(|one| one.table_id),
    directs: |index| {
        index
            .direct_counters()
            .iter()
            .map(|one| one.table_id)
            .collect()
    },
    is_of: |index, table| index.direct_counter_of(table).is_some(),
    cell: |counter_id, index| {
        Kind::CounterEntry(pb::CounterEntry {
            counter_id,
            index,
            data: None,
        })
    },
    of_entry: |entry| {
        Kind::DirectCounterEntry(pb::DirectCounterEntry {
            table_entry: Some(entry),
            data: None,
        })
    },
};

pub(super) const METERS: Resource = Resource {
    word: "meter",
    array: |index, name| index.meter(name).map(|one| (one.id, one.size)),
    arrays: |index| index.meters().iter().map(|one| one.id).collect(),
    direct: |index, name| index.direct_meter(name).ok().map(|one| one.table_id),
    directs: |index| {
        index
            .direct_meters()
            .iter()
            .map(|one| one.table_id)
            .collect()
    },
    is_of: |index, table| index.direct_meter_of(table).is_some(),
    cell: |meter_id, index| {
        Kind::MeterEntry(pb::MeterEntry {
            meter_id,
            index,
            ..Default::default()
        })
    },
    of_entry: |entry| {
        Kind::DirectMeterEntry(pb::DirectMeterEntry {
            table_entry: Some(entry),
            ..Default::default()
        })
    },
};

pub(super) const REGISTERS: Resource = Resource {
    word: "register",
    array: |index, name| index.register(name).map(|one| (one.id, one.size)),
    arrays: |index| index.registers().iter().map(|one| one.id).collect(),
    direct: |_, _| None,
    directs: |_| Vec::new(),
    is_of: |_, _| false,
    cell: |register_id, index| {
        Kind::RegisterEntry(pb::RegisterEntry {
            register_id,
            index,
            data: None,
        })
    },
    // There are none of entries.
    of_entry: Kind::TableEntry,
};

impl Resource {
    /// Every array, each whole.
    pub(super) fn every_array(&self, index: &P4InfoIndex) -> Vec<Kind> {
        let arrays = (self.arrays)(index).into_iter();
        arrays.map(|id| (self.cell)(id, None)).collect()
    }

    /// Those of every entry of a table.
    pub(super) fn of_table(&self, table_id: u32) -> Kind {
        (self.of_entry)(pb::TableEntry {
            table_id,
            ..Default::default()
        })
    }

    /// Whether the table's entries have them.
    pub(super) fn is_of(&self, index: &P4InfoIndex, table: &Table) -> bool {
        (self.is_of)(index, table)
    }

    /// What to read: an array or a table by name, one cell of an array, or everything.
    pub(super) fn selection(
        &self,
        index: &P4InfoIndex,
        name: Option<&str>,
        cell: Option<i64>,
    ) -> Result<Vec<Kind>, P4Error> {
        let Some(name) = name else {
            let directs = (self.directs)(index).into_iter();
            let mut all = self.every_array(index);
            all.extend(directs.map(|table| self.of_table(table)));
            return Ok(all);
        };
        let table = index.table(name).ok();
        let direct = table.filter(|table| self.is_of(index, table));
        let direct = direct.map(|table| table.id);
        if let Some(table) = direct.or_else(|| (self.direct)(index, name)) {
            return match cell {
                None => Ok(vec![self.of_table(table)]),
                Some(_) => Err(P4Error::Usage(format!(
                    "the {}s of {name:?} are its entries': they have no index",
                    self.word
                ))),
            };
        }
        match ((self.array)(index, name), table) {
            (Ok((id, size)), _) => {
                self.check(name, cell, size)?;
                let cell = cell.map(|index| pb::Index { index });
                Ok(vec![(self.cell)(id, cell)])
            }
            (Err(_), Some(_)) => Err(P4Error::Usage(format!(
                "table {name:?} has no direct {}",
                self.word
            ))),
            (Err(unknown), None) => Err(unknown.into()),
        }
    }

    /// Refuses an index that the array does not have.
    fn check(&self, name: &str, index: Option<i64>, size: u64) -> Result<(), P4Error> {
        match index {
            // A size of 0 says nothing.
            Some(index) if index < 0 || (size > 0 && index.unsigned_abs() >= size) => {
                Err(P4Error::Usage(format!(
                    "{} {name:?}: the index {index} is out of range: it is 0 to {}",
                    self.word,
                    size.saturating_sub(1)
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Whose it is, and which: an index or the entry's key.
pub(super) fn place(named: &Named) -> (String, String) {
    let cell = |index: Option<i64>| index.map_or_else(String::new, |index| index.to_string());
    match named {
        Named::Counter(counter) => (counter.counter.clone(), cell(counter.index)),
        Named::Meter(meter) => (meter.meter.clone(), cell(meter.index)),
        Named::Register(register) => (register.register.clone(), cell(register.index)),
        Named::DirectCounter(entry) | Named::DirectMeter(entry) => {
            let key = entry.key();
            let key = key.strip_prefix(&entry.table).unwrap_or(&key).trim();
            (entry.table.clone(), key.to_owned())
        }
        other => (String::new(), other.to_string()),
    }
}
