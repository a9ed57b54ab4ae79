//! Where the program's parts stand in the P4 source, for messages and logs. Packets don't need it.

use std::collections::HashMap;

use serde_json::Value;

use super::reference::{pair_of, str_of};
use crate::json;

/// Where a construct stands in the P4 source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// Empty if the document doesn't say.
    pub(crate) file: String,
    pub(crate) line: u64,
    /// The construct's text.
    pub(crate) text: String,
}

/// A statement of an action, a parser state or the deparser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) source: Source,
    /// The primitive's name.
    pub(crate) op: String,
    /// Header and name of the field that it writes.
    pub(crate) target: Option<(String, String)>,
}

/// Sources by index (actions, parser states: as in the program) or by name.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) actions: Vec<Vec<Statement>>,
    pub(crate) states: Vec<Vec<Statement>>,
    pub(crate) deparser: Vec<Statement>,
    pub(crate) conditions: HashMap<String, Source>,
    pub(crate) tables: HashMap<String, Source>,
    /// `header.field` of each checksum, by the checksum's name.
    pub(crate) checksums: HashMap<String, String>,
}

impl Source {
    fn of(info: Option<&json::SourceInfo>) -> Self {
        info.map_or_else(Self::default, |info| Self {
            file: info.filename.clone(),
            line: info.line,
            // One line, whatever the source's layout.
            text: info
                .fragment
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        })
    }

    /// `file:line`, or nothing.
    pub(crate) fn place(&self) -> Option<String> {
        (!self.file.is_empty()).then(|| format!("{}:{}", self.file, self.line))
    }
}

/// The field that a primitive writes: its first argument, but for meters the last.
fn target(op: &str, params: &[Value]) -> Option<(String, String)> {
    let param = params.get(if op == "execute_meter" { 2 } else { 0 })?;
    let (header, field) = pair_of(param.get("value")?)?;
    Some((header.to_owned(), field.to_owned()))
}

fn primitive(primitive: &json::Primitive) -> Statement {
    Statement {
        source: Source::of(primitive.source_info.as_ref()),
        op: primitive.op.clone(),
        target: target(&primitive.op, &primitive.parameters),
    }
}

/// A call that is still a plain value, perhaps wrapped in an operation named `primitive`.
fn call(op: &str, params: &[Value]) -> Statement {
    let inner = params.first().filter(|_| op == "primitive");
    match inner.and_then(|call| Some((call, str_of(call, "op")?))) {
        Some((call, op)) => {
            let params = call.get("parameters").and_then(Value::as_array);
            let info = call.get("source_info").cloned().unwrap_or_default();
            let info = serde_json::from_value::<json::SourceInfo>(info).ok();
            Statement {
                source: Source::of(info.as_ref()),
                op: op.to_owned(),
                target: target(op, params.map_or(&[], Vec::as_slice)),
            }
        }
        None => Statement {
            source: Source::default(),
            op: op.to_owned(),
            target: target(op, params),
        },
    }
}

impl Sources {
    /// Collects the document's sources.
    pub(crate) fn collect(doc: &json::Document) -> Self {
        let conditions = doc.pipelines.iter().flat_map(|p| &p.conditionals);
        let tables = doc.pipelines.iter().flat_map(|p| &p.tables);
        let states = doc.parsers.iter().flat_map(|p| &p.parse_states);
        let deparser = doc.deparsers.iter().flat_map(|d| &d.primitives);
        Self {
            actions: doc
                .actions
                .iter()
                .map(|action| action.primitives.iter().map(primitive).collect())
                .collect(),
            states: states
                .map(|state| {
                    let ops = state.parser_ops.iter();
                    ops.map(|op| call(&op.op, &op.parameters)).collect()
                })
                .collect(),
            deparser: deparser
                .map(|value| {
                    let params = value.get("parameters").and_then(Value::as_array);
                    let op = str_of(value, "op").unwrap_or_default();
                    call(op, params.map_or(&[], Vec::as_slice))
                })
                .collect(),
            conditions: conditions
                .map(|c| (c.name.clone(), Source::of(c.source_info.as_ref())))
                .collect(),
            checksums: doc
                .checksums
                .iter()
                .map(|c| (c.name.clone(), format!("{}.{}", c.target.0, c.target.1)))
                .collect(),
            tables: tables
                .map(|t| (t.name.clone(), Source::of(t.source_info.as_ref())))
                .collect(),
        }
    }
}
