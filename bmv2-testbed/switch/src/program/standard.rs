//! The standard metadata: what the switch tells the program, and what the program tells it.

use std::collections::HashSet;

use serde_json::Value;

use super::error::{LoadError, unsupported};
use super::layout::Layout;
use crate::bits::Field;
use crate::json;

const HEADER: &str = "standard_metadata";

/// The fields that a program refers to: what it cannot see need not be written for each packet.
pub(super) struct Used {
    fields: HashSet<(String, String)>,
    /// Headers that it takes as a whole.
    headers: HashSet<String>,
}

impl Used {
    /// Of the JSON: a field is referred to by its header's name and its own, a header by its name.
    pub(super) fn of(program: &Value) -> Self {
        let mut used = Self {
            fields: HashSet::new(),
            headers: HashSet::new(),
        };
        used.walk(program);
        used
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => match items.as_slice() {
                [Value::String(header), Value::String(field)] => {
                    self.fields.insert((header.clone(), field.clone()));
                }
                items => items.iter().for_each(|item| self.walk(item)),
            },
            // It takes the header, but nothing of it that is optional here.
            Value::Object(object)
                if object.get("op").and_then(Value::as_str) == Some("mark_to_drop") => {}
            Value::Object(object) => {
                if let Some(Value::String(header)) = object.get("value") {
                    self.headers.insert(header.clone());
                }
                // Each names a field that nobody needs to use.
                let others = object.iter().filter(|(key, _)| *key != "field_aliases");
                others.for_each(|(_, item)| self.walk(item));
            }
            _ => {}
        }
    }

    fn has(&self, header: &str, field: &str) -> bool {
        self.headers.contains(header)
            || self.fields.contains(&(header.to_owned(), field.to_owned()))
    }
}

/// Fields of `standard_metadata` that the switch itself reads and writes.
#[derive(Debug)]
pub(crate) struct Standard {
    pub(crate) ingress_port: Field,
    pub(crate) egress_spec: Field,
    pub(crate) egress_port: Field,
    pub(crate) instance_type: Field,
    pub(crate) packet_length: Field,
    pub(crate) parser_error: Option<Field>,
    pub(crate) checksum_error: Option<Field>,
    pub(crate) mcast_grp: Option<Field>,
    pub(crate) egress_rid: Option<Field>,
    pub(crate) ingress_timestamp: Option<Field>,
    pub(crate) egress_timestamp: Option<Field>,
    pub(crate) enq_timestamp: Option<Field>,
    pub(crate) enq_qdepth: Option<Field>,
    pub(crate) deq_timedelta: Option<Field>,
    pub(crate) deq_qdepth: Option<Field>,
    pub(crate) qid: Option<Field>,
    pub(crate) priority: Option<Field>,
}

impl Standard {
    pub(super) fn compile(
        doc: &json::Document,
        layout: &Layout,
        used: &Used,
    ) -> Result<Self, LoadError> {
        let required = |field: &str| {
            let field = layout.field(HEADER, field, "standard metadata")?;
            if field.width > 64 {
                return Err(unsupported("standard metadata over 64 bits", HEADER));
            }
            Ok(field)
        };
        let optional = |header: &str, field: &str| {
            let alias = format!("{header}.{field}");
            let alias = doc.field_aliases.iter().find(|a| a.0 == alias);
            let (header, field) = match alias {
                Some((_, (header, field))) => (header.as_str(), field.as_str()),
                None => (header, field),
            };
            let index = layout.header(header, "").ok()?;
            let found = layout.field_of(index, field);
            found.filter(|f| f.width <= 64 && used.has(header, field))
        };
        Ok(Self {
            ingress_port: required("ingress_port")?,
            egress_spec: required("egress_spec")?,
            egress_port: required("egress_port")?,
            instance_type: required("instance_type")?,
            packet_length: required("packet_length")?,
            parser_error: optional(HEADER, "parser_error"),
            checksum_error: optional(HEADER, "checksum_error"),
            mcast_grp: optional("intrinsic_metadata", "mcast_grp"),
            egress_rid: optional("intrinsic_metadata", "egress_rid"),
            ingress_timestamp: optional("intrinsic_metadata", "ingress_global_timestamp"),
            egress_timestamp: optional("intrinsic_metadata", "egress_global_timestamp"),
            enq_timestamp: optional("queueing_metadata", "enq_timestamp"),
            enq_qdepth: optional("queueing_metadata", "enq_qdepth"),
            deq_timedelta: optional("queueing_metadata", "deq_timedelta"),
            deq_qdepth: optional("queueing_metadata", "deq_qdepth"),
            qid: optional("queueing_metadata", "qid"),
            priority: optional("intrinsic_metadata", "priority"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_count_as_used_where_they_are_referred_to() {
        let used = Used::of(&json!({
            "field_aliases": [["queueing_metadata.qid", ["standard_metadata", "qid"]]],
            "actions": [{"primitives": [
                {"op": "mark_to_drop", "parameters": [{"value": "standard_metadata"}]},
                {"op": "assign", "parameters": [
                    {"type": "field", "value": ["standard_metadata", "priority"]},
                    {"type": "header", "value": "whole"},
                ]},
            ]}],
            "pipelines": [{"tables": [{"key": [{"target": ["meta", "key"]}]}]}],
        }));
        for (header, field, expected) in [
            ("standard_metadata", "qid", false),
            ("standard_metadata", "priority", true),
            ("standard_metadata", "mcast_grp", false),
            ("whole", "any", true),
            ("meta", "key", true),
        ] {
            assert_eq!(used.has(header, field), expected, "{header}.{field}");
        }
    }
}
