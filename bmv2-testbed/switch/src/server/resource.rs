//! Writes counters, meters and registers, of their own or of a table entry.

use std::collections::HashMap;
use std::sync::Mutex;

use p4runtime::p4::v1 as pb;
use tonic::Code;

use super::entry::{self, counts, rates};
use super::fault::Fault;
use super::write::Writer;
use crate::info::{ArrayInfo, TableInfo};
use crate::state::entry::{Entry, Key};
use crate::state::meter::Rates;
use crate::state::{Counter, State, lock};

/// The index of a cell within an array of `size`, or all if there is none.
pub(crate) fn indices(
    array: &ArrayInfo,
    index: Option<pb::Index>,
) -> Result<std::ops::Range<usize>, Fault> {
    let Some(pb::Index { index }) = index else {
        return Ok(0..array.size);
    };
    let at = usize::try_from(index)
        .map_err(|_| Fault::invalid(format!("{}: index {index} is negative", array.name)))?;
    if at >= array.size {
        let fault = Fault::out_of_range(format!(
            "{}: there is no index {index}, the last is {}",
            array.name,
            array.size.saturating_sub(1)
        ));
        return Err(fault.pi(Code::Unknown));
    }
    Ok(at..at + 1)
}

/// An array by its id.
pub(crate) fn array<'i>(
    of: &'i HashMap<u32, ArrayInfo>,
    id: u32,
    what: &str,
) -> Result<&'i ArrayInfo, Fault> {
    of.get(&id).ok_or_else(|| {
        let fault = Fault::not_found(format!("there is no {what} of id {id:#x}"));
        fault.pi(Code::InvalidArgument)
    })
}

impl Writer<'_> {
    pub(crate) fn counter(&self, wire: &pb::CounterEntry) -> Result<(), Fault> {
        let array = array(&self.loaded.info.counters, wire.counter_id, "counter")?;
        let indices = indices(array, wire.index)?;
        let Some(data) = &wire.data else {
            return Ok(());
        };
        let (packets, bytes) = counts(data, &array.name)?;
        let index = array.index;
        let cells = self.loaded.state.counters.get(index);
        let Some(cells) = cells.and_then(|c| c.get(indices.clone())) else {
            return Ok(());
        };
        self.log.note(|| {
            let old: Vec<_> = cells.iter().map(Counter::get).collect();
            move |w: &Writer<'_>| {
                let cells = w.loaded.state.counters.get(index);
                let cells = cells.and_then(|c| c.get(indices)).unwrap_or_default();
                for (cell, (packets, bytes)) in cells.iter().zip(old) {
                    cell.set(packets, bytes);
                }
            }
        });
        for cell in cells {
            cell.set(packets, bytes);
        }
        Ok(())
    }

    pub(crate) fn meter(&self, wire: &pb::MeterEntry) -> Result<(), Fault> {
        let array = array(&self.loaded.info.meters, wire.meter_id, "meter")?;
        let config = wire.config.as_ref();
        let rates = config.map(|c| rates(c, &array.name)).transpose()?;
        if let Some(data) = &wire.counter_data {
            entry::check_colours(data, &array.name)?;
        }
        let indices = indices(array, wire.index)?;
        let index = array.index;
        let cells = self.loaded.state.meters.get(index);
        let Some(cells) = cells.and_then(|c| c.get(indices.clone())) else {
            return Ok(());
        };
        self.log.note(|| {
            let old: Vec<_> = cells.iter().map(|c| lock(c).clone()).collect();
            move |w: &Writer<'_>| {
                let cells = w.loaded.state.meters.get(index);
                let cells = cells.and_then(|c| c.get(indices)).unwrap_or_default();
                for (cell, old) in cells.iter().zip(old) {
                    *lock(cell) = old;
                }
            }
        });
        for cell in cells {
            let mut cell = lock(cell);
            cell.configure(rates, self.now_ns);
            if wire.counter_data.is_some() {
                cell.clear_counts();
            }
        }
        Ok(())
    }

    pub(crate) fn register(&self, wire: &pb::RegisterEntry) -> Result<(), Fault> {
        let array = array(&self.loaded.info.registers, wire.register_id, "register")?;
        if array.is_wide() {
            return self.wide_register(array, wire);
        }
        let value = super::value::data_bits(wire.data.as_ref(), array)?;
        self.fill(array, wire.index, value, |state| &state.registers)
    }

    /// Writes one cell of an array of registers, or all.
    pub(super) fn fill<T: Clone + 'static>(
        &self,
        array: &ArrayInfo,
        index: Option<pb::Index>,
        value: T,
        arrays: fn(&State) -> &[Mutex<Vec<T>>],
    ) -> Result<(), Fault> {
        let indices = indices(array, index)?;
        let index = array.index;
        let Some(cells) = arrays(&self.loaded.state).get(index) else {
            return Ok(());
        };
        let mut cells = lock(cells);
        let Some(cells) = cells.get_mut(indices.clone()) else {
            return Ok(());
        };
        self.log.note(|| {
            let old = cells.to_vec();
            move |w: &Writer<'_>| {
                if let Some(cells) = arrays(&w.loaded.state).get(index)
                    && let Some(cells) = lock(cells).get_mut(indices)
                {
                    cells.clone_from_slice(&old);
                }
            }
        });
        cells.fill(value);
        Ok(())
    }

    /// The entry that a direct resource belongs to.
    fn direct(
        &self,
        wire: Option<&pb::TableEntry>,
        what: &str,
    ) -> Result<(&TableInfo, Entry), Fault> {
        let wire = wire.ok_or_else(|| Fault::invalid(format!("{what} without a table entry")))?;
        let table = entry::table(&self.loaded.info, wire.table_id)?;
        if wire.is_default_action {
            return Err(entry::default_resource(table));
        }
        let pattern = entry::pattern(self.loaded, table, &wire.r#match, wire.priority)?;
        let state = self.loaded.state.tables.get(table.index);
        let found = state.and_then(|s| s.get(Key::from(&pattern)));
        let found = found.ok_or_else(|| {
            let fault = Fault::not_found(format!("table {}: there is no such entry", table.name));
            fault.pi(Code::InvalidArgument)
        })?;
        Ok((table, found))
    }

    pub(crate) fn direct_counter(&self, wire: &pb::DirectCounterEntry) -> Result<(), Fault> {
        let (table, entry) = self.direct(wire.table_entry.as_ref(), "direct counter")?;
        if !table.has_counter {
            return Err(entry::no_resource(table, "direct counter"));
        }
        match &wire.data {
            None => Ok(()),
            Some(data) => {
                self.set_counts(&entry, counts(data, &table.name)?);
                Ok(())
            }
        }
    }

    pub(crate) fn direct_meter(&self, wire: &pb::DirectMeterEntry) -> Result<(), Fault> {
        let (table, entry) = self.direct(wire.table_entry.as_ref(), "direct meter")?;
        if !table.has_meter {
            return Err(entry::no_resource(table, "direct meter"));
        }
        if let Some(data) = &wire.counter_data {
            entry::check_colours(data, &table.name)?;
        }
        let config = wire.config.as_ref();
        let rates = config.map(|c| rates(c, &table.name)).transpose()?;
        self.set_meter(&entry, rates, wire.counter_data.is_some());
        Ok(())
    }

    /// Configures an entry's meter, without rates to its default, and clears the counts of its
    /// colours if asked to.
    pub(crate) fn set_meter(&self, entry: &Entry, rates: Option<Rates>, clear: bool) {
        let Some(meter) = entry.meter() else {
            return;
        };
        let mut meter = lock(meter);
        let old = meter.clone();
        meter.configure(rates, self.now_ns);
        if clear {
            meter.clear_counts();
        }
        self.log.note(|| {
            let entry = entry.clone();
            move |_: &Writer<'_>| {
                if let Some(meter) = entry.meter() {
                    *lock(meter) = old;
                }
            }
        });
    }

    /// Overwrites an entry's counts.
    pub(crate) fn set_counts(&self, entry: &Entry, (packets, bytes): (u64, u64)) {
        let old = entry.counter().get();
        entry.counter().set(packets, bytes);
        self.log.note(|| {
            let entry = entry.clone();
            move |_: &Writer<'_>| entry.counter().set(old.0, old.1)
        });
    }
}
