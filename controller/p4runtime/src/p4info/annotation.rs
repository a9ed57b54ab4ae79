//! Annotations that the client acts on: `@format(…)` and `@refers_to(table, field)`.

use super::{Reference, ReferredTo};
use crate::p4::config::v1 as pb;

/// The arguments of every annotation of this name, in both of their forms.
pub(super) fn arguments(
    name: &str,
    annotations: &[String],
    structured: &[pb::StructuredAnnotation],
) -> Vec<Vec<String>> {
    let plain = annotations.iter().filter_map(|text| {
        let body = text.trim().strip_prefix('@')?.strip_prefix(name)?.trim();
        let body = body.strip_prefix('(')?.strip_suffix(')')?;
        Some(body.split(',').map(word).collect())
    });
    let structured = structured.iter().filter(|one| one.name == name).map(|one| {
        use pb::structured_annotation::Body;
        match &one.body {
            Some(Body::ExpressionList(list)) => list.expressions.iter().map(expression).collect(),
            Some(Body::KvPairList(list)) => {
                let values = list.kv_pairs.iter().filter_map(|pair| pair.value.as_ref());
                values.map(expression).collect()
            }
            None => Vec::new(),
        }
    });
    plain.chain(structured).collect()
}

/// What a field or parameter refers to: `@refers_to(table, field)`, and
/// `@refers_to(builtin::multicast_group_table, multicast_group_id)`.
pub(super) fn references(
    annotations: &[String],
    structured: &[pb::StructuredAnnotation],
) -> Vec<Reference> {
    let found = arguments("refers_to", annotations, structured).into_iter();
    let reference = |arguments: Vec<String>| match arguments.as_slice() {
        [table, field] => Some(Reference {
            to: match table.replace(' ', "").as_str() {
                "builtin::multicast_group_table" => ReferredTo::MulticastGroups,
                "builtin::clone_session_table" => ReferredTo::CloneSessions,
                table => ReferredTo::Table(table.to_owned()),
            },
            field: field.clone(),
        }),
        _ => None,
    };
    found.filter_map(reference).collect()
}

/// Without blanks and quotes.
fn word(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

fn expression(expression: &pb::Expression) -> String {
    use pb::expression::Value;
    match &expression.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::Int64Value(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        None => String::new(),
    }
}
