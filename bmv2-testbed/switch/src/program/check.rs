//! Refuses documents that contradict themselves or say what nothing here reads: what would else
//! be overlooked, and run differently from what the program says.
//!
//! Members that mean nothing to a running switch are skipped on purpose: `enums`, `program`,
//! `force_arith` (values are always computed), `pi_omit`, `binding` (the table names its counter
//! and meter), `column`, ids of objects that are found by name.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;

use super::error::{LoadError, malformed, unsupported};
use crate::json::{self, placed};

/// The pipelines of v1model, as simple_switch looks for them.
const PIPELINES: [&str; 2] = ["ingress", "egress"];

/// The most elements of all counter, meter and register arrays together: some 1.5 GB of meters.
const MAX_ELEMENTS: u64 = 1 << 24;

/// Each of these once.
fn unique<T: Eq + Hash + Display>(
    what: &'static str,
    names: impl Iterator<Item = T>,
) -> Result<(), LoadError> {
    let mut seen = HashSet::new();
    for name in names {
        let text = name.to_string();
        if !seen.insert(name) {
            return Err(LoadError::Duplicate { what, name: text });
        }
    }
    Ok(())
}

/// Checks the document as a whole.
pub(super) fn check(doc: &json::Document) -> Result<(), LoadError> {
    unique("header type", doc.header_types.iter().map(|h| &h.name))?;
    unique("header id", doc.headers.iter().map(|h| h.id))?;
    unique("header union", doc.header_unions.iter().map(|h| &h.name))?;
    let stacks = doc.header_stacks.iter().map(|h| &h.name);
    let union_stacks = doc.header_union_stacks.iter().map(|h| &h.name);
    unique("header stack", stacks.chain(union_stacks))?;
    unique("value set", doc.parse_vsets.iter().map(|v| &v.name))?;
    unique("action id", doc.actions.iter().map(|a| a.id))?;
    unique("calculation", doc.calculations.iter().map(|c| &c.name))?;
    unique("counter array", doc.counter_arrays.iter().map(|c| &c.name))?;
    unique("meter array", doc.meter_arrays.iter().map(|m| &m.name))?;
    unique(
        "register array",
        doc.register_arrays.iter().map(|r| &r.name),
    )?;
    unique("field list id", doc.field_lists.iter().map(|l| l.id))?;
    unique("digest id", doc.learn_lists.iter().map(|l| l.id))?;
    unique("error", doc.errors.iter().map(|e| &e.0))?;
    let profiles = doc.pipelines.iter().flat_map(|p| &p.action_profiles);
    unique("action profile", profiles.map(|p| &p.name))?;
    for kind in &doc.header_types {
        if kind.length_exp.as_ref().is_some_and(|l| !l.is_null()) {
            let place = format!("header type {}", kind.name);
            return Err(unsupported("P4_14's `length_exp` of a varbit", place));
        }
    }
    for meter in &doc.meter_arrays {
        if !matches!(meter.unit.as_str(), "bytes" | "packets") {
            let place = placed(
                format!("meter array {}", meter.name),
                meter.source_info.as_ref(),
            );
            return Err(unsupported(format!("meter of `{}`", meter.unit), place));
        }
    }
    for checksum in &doc.checksums {
        if let Some(kind) = checksum.kind.as_deref().filter(|k| *k != "generic") {
            let name = format!("checksum {}", checksum.name);
            let place = placed(name, checksum.source_info.as_ref());
            return Err(unsupported(format!("checksum type `{kind}`"), place));
        }
    }
    for (parser, state) in doc
        .parsers
        .iter()
        .flat_map(|p| p.parse_states.iter().map(move |s| (p, s)))
    {
        for transition in &state.transitions {
            let kind = transition.kind.as_deref();
            if let Some(kind) = kind.filter(|k| !matches!(*k, "default" | "hexstr" | "parse_vset"))
            {
                let place = format!("parser state {} of {}", state.name, parser.name);
                return Err(unsupported(format!("transition type `{kind}`"), place));
            }
        }
    }
    elements(doc)?;
    pipelines(doc)
}

/// Arrays take their memory when the program is loaded.
fn elements(doc: &json::Document) -> Result<(), LoadError> {
    let counters = doc.counter_arrays.iter();
    let counters = counters.map(|c| (&c.name, c.size, c.is_direct, &c.source_info));
    let meters = doc.meter_arrays.iter();
    let meters = meters.map(|m| (&m.name, m.size, m.is_direct, &m.source_info));
    let registers = doc.register_arrays.iter();
    let registers = registers.map(|r| (&r.name, r.size, false, &r.source_info));
    let mut all: u64 = 0;
    for (name, size, direct, source) in counters.chain(meters).chain(registers) {
        all = all.saturating_add(size.filter(|_| !direct).unwrap_or(0));
        if all > MAX_ELEMENTS {
            let place = placed(name, source.as_ref());
            return Err(unsupported("more than 2^24 array elements in all", place));
        }
    }
    Ok(())
}

fn pipelines(doc: &json::Document) -> Result<(), LoadError> {
    for pipeline in &doc.pipelines {
        if !PIPELINES.contains(&pipeline.name.as_str()) {
            let name = format!("pipeline {}", pipeline.name);
            return Err(unsupported(
                "pipeline other than v1model's `ingress` and `egress`",
                placed(name, pipeline.source_info.as_ref()),
            ));
        }
        for table in &pipeline.tables {
            self::table(table)?;
        }
    }
    unique("pipeline", doc.pipelines.iter().map(|p| &p.name))?;
    for name in PIPELINES {
        if doc.pipelines.iter().all(|p| p.name != name) {
            return Err(malformed("pipelines", format!("there is no `{name}`")));
        }
    }
    Ok(())
}

fn table(table: &json::Table) -> Result<(), LoadError> {
    let place = placed(format!("table {}", table.name), table.source_info.as_ref());
    if table.kind == "simple" && table.action_profile.is_some() {
        return Err(malformed(place, "a simple table has an action profile"));
    }
    if !table.actions.is_empty() && table.actions.len() != table.action_ids.len() {
        let why = format!(
            "it has {} actions by name and {} by id",
            table.actions.len(),
            table.action_ids.len()
        );
        return Err(malformed(place, why));
    }
    for action in table.next_tables.keys() {
        let special = matches!(action.as_str(), "__HIT__" | "__MISS__");
        if !special && !table.actions.is_empty() && !table.actions.contains(action) {
            let why = format!("a next table is given for `{action}`, which is none of its actions");
            return Err(malformed(place, why));
        }
    }
    Ok(())
}
