// What the typed tables declare, checked against the P4Info that the compiler wrote.
// Part of the build script; the crate's tests include it too.

use std::fmt::Write as _;

use p4runtime::p4::config::v1::action_ref::Scope;
use p4runtime::p4::config::v1::match_field::{Match, MatchType};
use p4runtime::p4::config::v1::{self as config, P4Info};

/// A table as `table!` declares it.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    /// Its name (the P4Info's alias).
    pub(crate) name: &'static str,
    /// What an entry has besides key and action: `plain`, `idle_timeout`, `metered`, `members`.
    pub(crate) mode: &'static str,
    /// Name, match kind, bits.
    pub(crate) fields: &'static [(&'static str, &'static str, i32)],
    /// Its actions.
    pub(crate) actions: &'static [Action],
}

/// An action as `table!` declares it.
#[derive(Clone, Copy)]
pub(crate) struct Action {
    /// Its name (the P4Info's alias).
    pub(crate) name: &'static str,
    /// Name, bits.
    pub(crate) params: &'static [(&'static str, i32)],
}

/// Compares; writes the module `ids` when both agree, and every fault when not.
///
/// # Errors
/// One line a fault.
pub(crate) fn generate(info: &P4Info, declared: &[Table]) -> Result<String, Vec<String>> {
    let mut out = String::new();
    let mut faults = Vec::new();
    check_ids(info, &mut faults);
    for table in &info.tables {
        let name = alias(&table.preamble);
        if !declared.iter().any(|declared| declared.name == name) {
            faults.push(format!("p4info: table {name} has no Rust type"));
        }
    }
    for declared in declared {
        let found = info
            .tables
            .iter()
            .find(|table| alias(&table.preamble) == declared.name);
        match found {
            Some(table) => check_table(info, table, declared, &mut out, &mut faults),
            None => faults.push(format!(
                "p4info: no table {}, which a Rust type declares",
                declared.name
            )),
        }
    }
    if faults.is_empty() {
        Ok(out)
    } else {
        Err(faults)
    }
}

/// The first byte of an id says what it is of (P4Runtime 6.1: `P4Ids.Prefix`).
const TABLE_PREFIX: u32 = 0x02;
const ACTION_PREFIX: u32 = 0x01;

/// The types take their ids from the P4Info: each has to be there, once, and of its kind.
fn check_ids(info: &P4Info, faults: &mut Vec<String>) {
    let tables = info.tables.iter().map(|table| &table.preamble);
    unique_ids("table", TABLE_PREFIX, tables, faults);
    let actions = info.actions.iter().map(|action| &action.preamble);
    unique_ids("action", ACTION_PREFIX, actions, faults);
    for table in &info.tables {
        let owner = format!("table {}", alias(&table.preamble));
        let fields = table.match_fields.iter();
        unique_parts(
            &owner,
            "key",
            fields.map(|f| (f.name.as_str(), f.id)),
            faults,
        );
        for reference in &table.action_refs {
            if action(info, reference.id).is_none() {
                faults.push(format!(
                    "p4info: {owner} refers to an action with id {:#010x}, and there is none",
                    reference.id
                ));
            }
        }
    }
    for action in &info.actions {
        let owner = format!("action {}", alias(&action.preamble));
        let params = action.params.iter();
        unique_parts(
            &owner,
            "parameter",
            params.map(|p| (p.name.as_str(), p.id)),
            faults,
        );
    }
}

fn unique_ids<'a>(
    what: &str,
    prefix: u32,
    preambles: impl Iterator<Item = &'a Option<config::Preamble>>,
    faults: &mut Vec<String>,
) {
    let mut seen: Vec<(u32, &str)> = Vec::new();
    for preamble in preambles {
        let (id, name) = (id(preamble), alias(preamble));
        if id >> 24 != prefix {
            faults.push(format!(
                "p4info: {what} {name} has the id {id:#010x}, which is no {what}'s \
                 ({what} ids begin with {prefix:#04x})"
            ));
        }
        match seen.iter().find(|(other, _)| *other == id) {
            Some((_, other)) => faults.push(format!(
                "p4info: {what}s {other} and {name} have the same id {id:#010x}"
            )),
            None => seen.push((id, name)),
        }
    }
}

fn unique_parts<'a>(
    owner: &str,
    what: &str,
    parts: impl Iterator<Item = (&'a str, u32)>,
    faults: &mut Vec<String>,
) {
    let mut seen: Vec<(&str, u32)> = Vec::new();
    for (name, id) in parts {
        if id == 0 {
            faults.push(format!("p4info: {owner} {what} {name} has no id"));
        }
        match seen.iter().find(|(_, other)| *other == id) {
            Some((other, _)) => faults.push(format!(
                "p4info: {owner} {what}s {other} and {name} have the same id {id}"
            )),
            None => seen.push((name, id)),
        }
    }
}

fn check_table(
    info: &P4Info,
    table: &config::Table,
    declared: &Table,
    out: &mut String,
    faults: &mut Vec<String>,
) {
    let name = declared.name;
    let _ = writeln!(out, "/// Table `{name}`.\npub mod {name} {{");
    let _ = writeln!(
        out,
        "    /// The table.\n    pub const ID: u32 = {:#010x};",
        id(&table.preamble)
    );
    let _ = writeln!(out, "    /// Match fields.\n    pub mod key {{");
    for field in &table.match_fields {
        if !declared.fields.iter().any(|&(name, ..)| name == field.name) {
            faults.push(format!(
                "p4info: table {name} has a key {}, the Rust type has none",
                field.name
            ));
        }
    }
    for &(field_name, kind, bits) in declared.fields {
        let Some(field) = table
            .match_fields
            .iter()
            .find(|field| field.name == field_name)
        else {
            faults.push(format!(
                "p4info: table {name} has no key {field_name}, the Rust type has one"
            ));
            continue;
        };
        let found = kind_of(field);
        if field.bitwidth != bits || found != kind {
            faults.push(format!(
                "p4info: table {name} key {field_name} is {} bits {found}, the Rust type says {bits} bits {kind}",
                field.bitwidth
            ));
        }
        let _ = writeln!(
            out,
            "        /// `{field_name}`.\n        pub const {field_name}: u32 = {};",
            field.id
        );
    }
    let _ = writeln!(
        out,
        "    }}\n    /// Actions and their parameters.\n    pub mod action {{"
    );
    check_mode(info, table, declared, faults);
    for reference in &table.action_refs {
        // The default action needs no entry, and one that is only the default can have none.
        let only_default = reference.scope == Scope::DefaultOnly as i32
            || reference.id == table.const_default_action_id;
        let Some(action) = action(info, reference.id) else {
            continue;
        };
        let action_name = alias(&action.preamble);
        if !only_default
            && !declared
                .actions
                .iter()
                .any(|declared| declared.name == action_name)
        {
            faults.push(format!(
                "p4info: table {name} has an action {action_name}, the Rust type has none"
            ));
        }
    }
    for declared in declared.actions {
        let found = table
            .action_refs
            .iter()
            .filter(|reference| reference.scope != Scope::DefaultOnly as i32)
            .filter_map(|reference| action(info, reference.id))
            .find(|action| alias(&action.preamble) == declared.name);
        match found {
            Some(action) => check_action(name, action, declared, out, faults),
            None => faults.push(format!(
                "p4info: table {name} has no action {}, the Rust type has one",
                declared.name
            )),
        }
    }
    let _ = writeln!(out, "    }}\n}}");
}

fn check_mode(info: &P4Info, table: &config::Table, declared: &Table, faults: &mut Vec<String>) {
    let idle =
        table.idle_timeout_behavior == config::table::IdleTimeoutBehavior::NotifyControl as i32;
    let priority = table
        .match_fields
        .iter()
        .any(|field| matches!(kind_of(field), "ternary" | "range" | "optional"));
    let metered = info
        .direct_meters
        .iter()
        .any(|meter| meter.direct_table_id == id(&table.preamble));
    let members = table.implementation_id != 0;
    let found = match (idle, priority, metered, members) {
        (false, false, false, false) => "plain",
        (true, false, false, false) => "idle_timeout",
        (false, true, true, false) => "metered",
        (false, false, false, true) => "members",
        _ => "another kind of",
    };
    if found != declared.mode {
        faults.push(format!(
            "p4info: table {} has {found} entries, the Rust type says {} (idle timeout: {idle}, \
             priority: {priority}, direct meter: {metered}, action profile: {members})",
            declared.name, declared.mode
        ));
    }
}

fn check_action(
    table: &str,
    action: &config::Action,
    declared: &Action,
    out: &mut String,
    faults: &mut Vec<String>,
) {
    let name = declared.name;
    let _ = writeln!(
        out,
        "        /// Action `{name}`.\n        pub mod {name} {{"
    );
    let _ = writeln!(
        out,
        "            /// The action.\n            pub const ID: u32 = {:#010x};",
        id(&action.preamble)
    );
    for param in &action.params {
        if !declared.params.iter().any(|&(name, _)| name == param.name) {
            faults.push(format!(
                "p4info: table {table} action {name} has a parameter {}, the Rust type has none",
                param.name
            ));
        }
    }
    for &(param_name, bits) in declared.params {
        let Some(param) = action.params.iter().find(|param| param.name == param_name) else {
            faults.push(format!(
                "p4info: table {table} action {name} has no parameter {param_name}, the Rust type has one"
            ));
            continue;
        };
        if param.bitwidth != bits {
            faults.push(format!(
                "p4info: table {table} action {name} parameter {param_name} is {} bits, \
                 the Rust type says {bits} bits",
                param.bitwidth
            ));
        }
        let _ = writeln!(
            out,
            "            /// `{param_name}`.\n            pub const {param_name}: u32 = {};",
            param.id
        );
    }
    let _ = writeln!(out, "        }}");
}

fn action(info: &P4Info, wanted: u32) -> Option<&config::Action> {
    info.actions
        .iter()
        .find(|action| id(&action.preamble) == wanted)
}

fn alias(preamble: &Option<config::Preamble>) -> &str {
    preamble.as_ref().map_or("", |preamble| &preamble.alias)
}

fn id(preamble: &Option<config::Preamble>) -> u32 {
    preamble.as_ref().map_or(0, |preamble| preamble.id)
}

fn kind_of(field: &config::MatchField) -> &'static str {
    let Some(Match::MatchType(kind)) = &field.r#match else {
        return "of a foreign kind";
    };
    match MatchType::try_from(*kind) {
        Ok(MatchType::Exact) => "exact",
        Ok(MatchType::Lpm) => "lpm",
        Ok(MatchType::Ternary) => "ternary",
        Ok(MatchType::Range) => "range",
        Ok(MatchType::Optional) => "optional",
        _ => "unspecified",
    }
}
