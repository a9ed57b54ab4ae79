//! The document's objects, one struct each, in the order of the format's description.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The whole document.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    #[serde(rename = "__meta__", default)]
    pub(crate) meta: Option<Meta>,
    #[serde(default)]
    pub(crate) header_types: Vec<HeaderType>,
    #[serde(default)]
    pub(crate) headers: Vec<Header>,
    #[serde(default)]
    pub(crate) header_stacks: Vec<HeaderStack>,
    #[serde(default)]
    pub(crate) header_unions: Vec<HeaderUnion>,
    #[serde(default)]
    pub(crate) header_union_types: Vec<HeaderUnionType>,
    #[serde(default)]
    pub(crate) header_union_stacks: Vec<HeaderUnionStack>,
    #[serde(default)]
    pub(crate) field_lists: Vec<FieldList>,
    #[serde(default)]
    pub(crate) errors: Vec<(String, u32)>,
    #[serde(default)]
    pub(crate) parsers: Vec<Parser>,
    #[serde(default)]
    pub(crate) parse_vsets: Vec<ValueSet>,
    #[serde(default)]
    pub(crate) deparsers: Vec<Deparser>,
    #[serde(default)]
    pub(crate) meter_arrays: Vec<MeterArray>,
    #[serde(default)]
    pub(crate) counter_arrays: Vec<CounterArray>,
    #[serde(default)]
    pub(crate) register_arrays: Vec<RegisterArray>,
    #[serde(default)]
    pub(crate) calculations: Vec<Calculation>,
    #[serde(default)]
    pub(crate) learn_lists: Vec<FieldList>,
    #[serde(default)]
    pub(crate) actions: Vec<Action>,
    #[serde(default)]
    pub(crate) pipelines: Vec<Pipeline>,
    #[serde(default)]
    pub(crate) checksums: Vec<Checksum>,
    #[serde(default)]
    pub(crate) extern_instances: Vec<Named>,
    #[serde(default)]
    pub(crate) field_aliases: Vec<(String, (String, String))>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Meta {
    #[serde(default)]
    pub(crate) version: Vec<u64>,
}

/// An object of which only the name is of interest (because it is refused, by its name).
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeaderType {
    pub(crate) name: String,
    /// `[name, width]` or `[name, width, signed]`; the width of a varbit is `"*"`.
    #[serde(default)]
    pub(crate) fields: Vec<Vec<Value>>,
    /// P4_14's way to give a varbit's length.
    #[serde(default)]
    pub(crate) length_exp: Option<Value>,
    /// In bytes, with the varbit at its longest.
    #[serde(default)]
    pub(crate) max_length: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) id: u32,
    pub(crate) header_type: String,
    #[serde(default)]
    pub(crate) metadata: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeaderStack {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) header_ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeaderUnionType {
    pub(crate) name: String,
    /// Name and header type of each member.
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeaderUnionStack {
    pub(crate) name: String,
    pub(crate) union_type: String,
    #[serde(default)]
    pub(crate) header_union_ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeaderUnion {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) id: u32,
    #[serde(default)]
    pub(crate) header_ids: Vec<u32>,
}

/// A `field_lists` or `learn_lists` item.
#[derive(Debug, Deserialize)]
pub(crate) struct FieldList {
    pub(crate) id: u32,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) elements: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Parser {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) init_state: Option<String>,
    #[serde(default)]
    pub(crate) parse_states: Vec<ParseState>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ParseState {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) parser_ops: Vec<ParserOp>,
    #[serde(default)]
    pub(crate) transition_key: Vec<Value>,
    #[serde(default)]
    pub(crate) transitions: Vec<Transition>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ParserOp {
    pub(crate) op: String,
    #[serde(default)]
    pub(crate) parameters: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Transition {
    #[serde(rename = "type", default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) value: Option<String>,
    #[serde(default)]
    pub(crate) mask: Option<String>,
    #[serde(default)]
    pub(crate) next_state: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ValueSet {
    pub(crate) name: String,
    /// Bits of the select key that members are compared with, without padding.
    pub(crate) compressed_bitwidth: u32,
    #[serde(default)]
    pub(crate) max_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Deparser {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) order: Vec<String>,
    #[serde(default)]
    pub(crate) primitives: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MeterArray {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) is_direct: bool,
    #[serde(default)]
    pub(crate) size: Option<u64>,
    #[serde(default)]
    pub(crate) rate_count: Option<u64>,
    #[serde(rename = "type", default)]
    pub(crate) unit: String,
    #[serde(default)]
    pub(crate) result_target: Option<(String, String)>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CounterArray {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) is_direct: bool,
    #[serde(default)]
    pub(crate) size: Option<u64>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RegisterArray {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) size: Option<u64>,
    #[serde(default)]
    pub(crate) bitwidth: Option<u32>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Calculation {
    pub(crate) name: String,
    pub(crate) algo: Value,
    #[serde(default)]
    pub(crate) input: Vec<Value>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) id: u32,
    #[serde(default)]
    pub(crate) runtime_data: Vec<RuntimeDatum>,
    #[serde(default)]
    pub(crate) primitives: Vec<Primitive>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RuntimeDatum {
    pub(crate) name: String,
    pub(crate) bitwidth: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Primitive {
    pub(crate) op: String,
    #[serde(default)]
    pub(crate) parameters: Vec<Value>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

/// Where in the P4 source a construct stands.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceInfo {
    #[serde(default)]
    pub(crate) filename: String,
    #[serde(default)]
    pub(crate) line: u64,
    #[serde(rename = "source_fragment", default)]
    pub(crate) fragment: String,
}

/// `what`, with its place in the source behind it if that is known: `table In.acl (a.p4:12)`.
pub(crate) fn placed(what: impl Into<String>, source: Option<&SourceInfo>) -> String {
    let what = what.into();
    match source {
        Some(source) if !source.filename.is_empty() => {
            format!("{what} ({}:{})", source.filename, source.line)
        }
        _ => what,
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pipeline {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) init_table: Option<String>,
    #[serde(default)]
    pub(crate) tables: Vec<Table>,
    #[serde(default)]
    pub(crate) action_profiles: Vec<ActionProfile>,
    #[serde(default)]
    pub(crate) conditionals: Vec<Conditional>,
    #[serde(default)]
    pub(crate) action_calls: Vec<ActionCall>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) key: Vec<TableKey>,
    #[serde(default)]
    pub(crate) match_type: String,
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) action_profile: Option<String>,
    #[serde(default)]
    pub(crate) max_size: Option<u64>,
    #[serde(default)]
    pub(crate) with_counters: bool,
    #[serde(default)]
    pub(crate) support_timeout: bool,
    #[serde(default)]
    pub(crate) direct_meters: Option<String>,
    #[serde(default)]
    pub(crate) action_ids: Vec<u32>,
    #[serde(default)]
    pub(crate) actions: Vec<String>,
    #[serde(default)]
    pub(crate) base_default_next: Option<String>,
    #[serde(default)]
    pub(crate) next_tables: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(crate) default_entry: Option<DefaultEntry>,
    #[serde(default)]
    pub(crate) entries: Vec<ConstEntry>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TableKey {
    pub(crate) match_type: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) target: Value,
    #[serde(default)]
    pub(crate) mask: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DefaultEntry {
    pub(crate) action_id: u32,
    #[serde(default)]
    pub(crate) action_const: bool,
    #[serde(default)]
    pub(crate) action_data: Vec<String>,
    #[serde(default)]
    pub(crate) action_entry_const: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConstEntry {
    #[serde(default)]
    pub(crate) match_key: Vec<ConstMatch>,
    pub(crate) action_entry: ConstAction,
    #[serde(default)]
    pub(crate) priority: Option<i64>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConstMatch {
    pub(crate) match_type: String,
    #[serde(default)]
    pub(crate) key: Option<Value>,
    #[serde(default)]
    pub(crate) mask: Option<String>,
    #[serde(default)]
    pub(crate) prefix_length: Option<u16>,
    #[serde(default)]
    pub(crate) start: Option<String>,
    #[serde(default)]
    pub(crate) end: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConstAction {
    pub(crate) action_id: u32,
    #[serde(default)]
    pub(crate) action_data: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ActionProfile {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) max_size: Option<u64>,
    #[serde(default)]
    pub(crate) selector: Option<Selector>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Selector {
    pub(crate) algo: Value,
    #[serde(default)]
    pub(crate) input: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Conditional {
    pub(crate) name: String,
    pub(crate) expression: Value,
    #[serde(default)]
    pub(crate) true_next: Option<String>,
    #[serde(default)]
    pub(crate) false_next: Option<String>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ActionCall {
    pub(crate) name: String,
    pub(crate) action_id: u32,
    #[serde(default)]
    pub(crate) next_node: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Checksum {
    pub(crate) name: String,
    pub(crate) target: (String, String),
    pub(crate) calculation: String,
    #[serde(default = "yes")]
    pub(crate) update: bool,
    #[serde(default = "yes")]
    pub(crate) verify: bool,
    #[serde(default)]
    pub(crate) if_cond: Option<Value>,
    #[serde(rename = "type", default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) source_info: Option<SourceInfo>,
}

fn yes() -> bool {
    true
}
