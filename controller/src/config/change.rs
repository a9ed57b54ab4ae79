//! How one document differs from another, piece by piece.
//!
//! A document is a tree here. A list of sections that have names (`[[vpc]]`) is a branch by name,
//! so that a change says `vpc.red.weight` and not `vpc[3].weight`; where only their order
//! changes, that is a change of its own, for the first of several masquerades counts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::Document;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where: `vpc.red.weight`, `peering.red:blue`, `vpc."a.b"`; `masquerade.#order` is the names'
    /// order.
    pub path: String,
    /// What was there; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Value>,
    /// What is there now; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Value>,
}

/// The last part of a path to the names' order.
pub(super) const ORDER: &str = "#order";

/// Why changes do not apply to a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The document has something else there than the change says.
    #[error("{0} is not what the change was made to")]
    Other(String),
    /// It is no document any more.
    #[error("the result is no configuration: {0}")]
    Shape(String),
}

impl Change {
    /// Whether it is an order that follows from what came, at the end, and what went: nothing
    /// that anybody has to be told.
    pub fn follows(&self) -> bool {
        let names = |value: &Option<Value>| -> Vec<Value> {
            value
                .as_ref()
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let (before, after) = (names(&self.before), names(&self.after));
        let stay = before.iter().filter(|name| after.contains(name));
        let come = after.iter().filter(|name| !before.contains(name));
        self.path.ends_with(ORDER) && stay.chain(come).eq(&after)
    }

    /// What takes it back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            path: self.path.clone(),
            before: self.after.clone(),
            after: self.before.clone(),
        }
    }
}

/// Everything in which `after` differs from `before`, in the order of the paths.
pub fn diff(before: &Document, after: &Document) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", &tree(before), &tree(after), &mut changes);
    changes
}

/// Makes the changes in a document.
///
/// # Errors
/// [`ChangeError`].
pub fn apply(document: &Document, changes: &[Change]) -> Result<Document, ChangeError> {
    let mut root = tree(document);
    for change in changes {
        let other = || ChangeError::Other(change.path.clone());
        let parts = split(&root, &change.path);
        let (last, branches) = parts.split_last().ok_or_else(other)?;
        let mut at = &mut root;
        for part in branches {
            let branch = at.as_object_mut().ok_or_else(other)?;
            at = branch
                .entry(part.clone())
                .or_insert_with(|| Value::Object(Map::new()));
        }
        let branch = at.as_object_mut().ok_or_else(other)?;
        if branch.get(last) != change.before.as_ref() {
            return Err(other());
        }
        match &change.after {
            Some(value) => branch.insert(last.clone(), value.clone()),
            None => branch.remove(last),
        };
    }
    untree(root)
}

/// The document as a tree, lists of named sections by their names.
pub(super) fn tree(document: &Document) -> Value {
    let mut root = serde_json::to_value(document).unwrap_or_default();
    for (section, value) in root.as_object_mut().into_iter().flatten() {
        let Value::Array(items) = value else { continue };
        let mut by_name = Map::new();
        let mut order = Vec::new();
        for item in items.drain(..) {
            let mut name = name_of(section, &item);
            // Two of one name are a fault that validation tells of; none may get lost before.
            while by_name.contains_key(&name) {
                name.push('\'');
            }
            order.push(Value::String(name.clone()));
            by_name.insert(name, item);
        }
        by_name.insert(ORDER.to_owned(), Value::Array(order));
        *value = Value::Object(by_name);
    }
    root
}

/// The reverse of [`tree`]. A section that its order does not name is the last.
pub(super) fn untree(mut root: Value) -> Result<Document, ChangeError> {
    let sections = root.as_object_mut().into_iter().flatten();
    for value in sections.map(|(_, value)| value) {
        let Value::Object(by_name) = value else {
            continue;
        };
        let Some(Value::Array(order)) = by_name.remove(ORDER) else {
            continue;
        };
        let named = order.iter().filter_map(Value::as_str);
        let mut items: Vec<Value> = named.filter_map(|name| by_name.remove(name)).collect();
        items.extend(std::mem::take(by_name).into_iter().map(|(_, item)| item));
        *value = Value::Array(items);
    }
    serde_json::from_value(root).map_err(|error| ChangeError::Shape(error.to_string()))
}

/// What a section is called among its like.
fn name_of(section: &str, item: &Value) -> String {
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
    match section {
        "peering" => format!("{}:{}", text("from"), text("to")),
        _ => text("name").to_owned(),
    }
}

/// The parts of a path. A name may have dots in it: it is quoted then, or one of those that there
/// are.
pub(super) fn split(root: &Value, path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut at = Some(root);
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((part, after)) = rest.strip_prefix('"').and_then(|all| all.split_once('"')) {
            rest = after.strip_prefix('.').unwrap_or(after);
            at = at.and_then(|at| at.get(part));
            parts.push(part.to_owned());
            continue;
        }
        let known = at.and_then(Value::as_object).into_iter().flatten();
        let names = known.map(|(name, _)| name.as_str());
        let fits = |name: &&str| {
            let after = rest.strip_prefix(*name);
            after.is_some_and(|after| after.is_empty() || after.starts_with('.'))
        };
        let part = names
            .filter(fits)
            .max_by_key(|name| name.len())
            .unwrap_or_else(|| rest.split('.').next().unwrap_or(rest))
            .to_owned();
        rest = rest.get(part.len() + 1..).unwrap_or_default();
        at = at.and_then(|at| at.get(&part));
        parts.push(part);
    }
    parts
}

fn compare(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        if before != after {
            changes.push(Change {
                path: path.to_owned(),
                before: Some(before.clone()),
                after: Some(after.clone()),
            });
        }
        return;
    };
    let within = |key: &str| match (path, key.contains('.')) {
        ("", _) => key.to_owned(),
        (path, false) => format!("{path}.{key}"),
        (path, true) => format!("{path}.\"{key}\""),
    };
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    // The order last: it names what is there by then.
    keys.sort_by_key(|key| *key == ORDER);
    for key in keys {
        match (before.get(key), after.get(key)) {
            (Some(old), Some(new)) => compare(&within(key), old, new, changes),
            (old, new) => changes.push(Change {
                path: within(key),
                before: old.cloned(),
                after: new.cloned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    fn edited(edit: impl FnOnce(&mut Document)) -> (Document, Document) {
        let before = good();
        let mut after = before.clone();
        edit(&mut after);
        (before, after)
    }

    fn paths(changes: &[Change]) -> Vec<&str> {
        let told = changes.iter().filter(|change| !change.follows());
        told.map(|change| change.path.as_str()).collect()
    }

    #[track_caller]
    fn round_trip(before: &Document, after: &Document) -> Vec<Change> {
        let changes = diff(before, after);
        assert_eq!(&apply(before, &changes).unwrap(), after);
        let inverse: Vec<Change> = changes.iter().rev().map(Change::inverse).collect();
        assert_eq!(&apply(after, &inverse).unwrap(), before);
        changes
    }

    #[test]
    fn a_document_is_its_tree() {
        assert_eq!(untree(tree(&good())).unwrap(), good());
    }

    #[test]
    fn the_same_document_has_no_difference() {
        assert_eq!(diff(&good(), &good()), []);
    }

    #[test]
    fn a_value_is_named_by_its_section() {
        let (before, after) = edited(|document| {
            document.vpc[0].weight = 7;
            document.timeouts.udp = "3m".into();
        });
        let changes = round_trip(&before, &after);
        let name = &before.vpc[0].name;
        let weight = format!("vpc.{name}.weight");
        assert_eq!(paths(&changes), ["timeouts.udp", weight.as_str()]);
    }

    #[test]
    fn sections_come_and_go_as_a_whole() {
        let (before, after) = edited(|document| {
            let mut new = document.vpc[0].clone();
            new.name = "a.b".into();
            document.vpc.insert(0, new);
            document.peering.clear();
        });
        let changes = round_trip(&before, &after);
        assert!(
            changes
                .iter()
                .any(|change| change.path == "vpc.\"a.b\"" && change.before.is_none())
        );
        // Not at the end, so it is told.
        assert!(paths(&changes).contains(&"vpc.#order"));
    }

    #[test]
    fn the_order_of_rules_is_a_difference() {
        let (before, after) = edited(|document| {
            let mut second = document.masquerade[0].clone();
            second.name = "second".into();
            document.masquerade.push(second);
        });
        let added = round_trip(&before, &after);
        assert_eq!(paths(&added), ["masquerade.second"]);
        let mut turned = after.clone();
        turned.masquerade.reverse();
        assert_eq!(paths(&round_trip(&after, &turned)), ["masquerade.#order"]);
    }

    /// Two of one name are a fault; a difference must not lose one of them.
    #[test]
    fn sections_of_one_name_are_all_there() {
        let (before, after) = edited(|document| document.vpc.push(document.vpc[0].clone()));
        round_trip(&before, &after);
    }

    #[test]
    fn a_change_to_something_else_is_refused() {
        let (before, after) = edited(|document| document.vpc[0].weight = 7);
        let changes = diff(&before, &after);
        let error = apply(&after, &changes).unwrap_err();
        assert!(matches!(error, ChangeError::Other(path) if path.ends_with("weight")));
    }

    proptest::proptest! {
        #[test]
        fn any_two_documents_differ_by_their_changes(
            one in document_strategy(), other in document_strategy()
        ) {
            round_trip(&one, &other);
        }
    }

    /// Parts of the good document, in some order, with other values.
    fn document_strategy() -> impl proptest::strategy::Strategy<Value = Document> {
        use proptest::prelude::*;
        let parts = (
            any::<u64>(),
            any::<u8>(),
            prop::collection::vec(0usize..6, 0..6),
        );
        parts.prop_map(|(bits, value, order)| {
            let mut document = good();
            let mut keep = bits;
            let mut kept = || {
                keep = keep.rotate_left(1);
                keep & 1 == 1
            };
            document.vpc.retain(|_| kept());
            document.interface.retain(|_| kept());
            document.masquerade.retain(|_| kept());
            document.peering.retain(|_| kept());
            document.port_forward.retain(|_| kept());
            for at in order {
                if at < document.interface.len() {
                    document.interface.swap(0, at);
                    document.interface[at].mtu = Some(i64::from(value));
                }
            }
            document
                .limits
                .punt_pps
                .insert("arp".into(), i64::from(value));
            document.slow_path = document.slow_path.filter(|_| kept());
            document
        })
    }
}
