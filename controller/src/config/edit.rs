//! One edit of a document: a value set, a section added or taken away.

use serde_json::{Map, Value};

use super::change::{ChangeError, ORDER, split, tree, untree};
use super::document::Document;

/// Why an edit was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No path, or one that leads nowhere.
    #[error("{path}: there is no {part:?} (known: {})", known.join(", "))]
    Nowhere {
        /// As given.
        path: String,
        /// The part of it that is not there.
        part: String,
        /// What is there instead.
        known: Vec<String>,
    },
    /// It is referred to.
    #[error(
        "{path} is referred to by {}; change or remove those first, or have them removed too \
         (--cascade)", by.join(", ")
    )]
    Referred {
        /// What was to be removed.
        path: String,
        /// The values that name it.
        by: Vec<String>,
    },
    /// The value is not what belongs there.
    #[error("{path}: {reason}")]
    Value {
        /// As given.
        path: String,
        /// In the format's words.
        reason: String,
    },
}

/// Keys that name something, by section: (section, key, what it names).
const REFERENCES: [(&str, &str, &str); 11] = [
    ("interface", "vpc", "vpc"),
    ("interface", "switch", "switch"),
    ("interface", "underlay", "interface"),
    ("masquerade", "vpc", "vpc"),
    ("masquerade", "to", "vpc"),
    ("static_nat", "vpc", "vpc"),
    ("static_nat", "to", "vpc"),
    ("port_forward", "vpc", "vpc"),
    ("port_forward", "to_vpc", "vpc"),
    ("peering", "from", "vpc"),
    ("peering", "to", "vpc"),
];

/// A value as it is typed: TOML (`30`, `true`, `["a", "b"]`, `{ id = 3 }`), or else text.
pub fn value(text: &str) -> Value {
    let document: Result<Map<String, Value>, _> = toml::from_str(&format!("value = {text}"));
    document
        .ok()
        .and_then(|mut document| document.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Sets a value, or adds a section that is named by its path: `vpc.red.weight` 5,
/// `vpc.green` { id = 3, table = 103 }.
///
/// # Errors
/// [`EditError`]. What the value is good for is for validation to say.
pub fn set(document: &Document, path: &str, mut value: Value) -> Result<Document, EditError> {
    let mut root = tree(document);
    let parts = split(&root, path);
    let (last, at) = branch(&mut root, path, &parts)?;
    let named = at.contains_key(ORDER);
    if let (true, Value::Object(section)) = (named, &mut value) {
        name(section, &parts, last);
    }
    let new = at.insert(last.to_owned(), value).is_none();
    if new
        && named
        && let Some(Value::Array(order)) = at.get_mut(ORDER)
    {
        order.push(Value::String(last.to_owned()));
    }
    checked(path, root)
}

/// A section knows its own name.
fn name(section: &mut Map<String, Value>, parts: &[String], name: &str) {
    let mut put = |key: &str, value: &str| {
        let value = Value::String(value.to_owned());
        section.entry(key).or_insert(value);
    };
    match (parts.first().map(String::as_str), name.split_once(':')) {
        (Some("peering"), Some((from, to))) => {
            put("from", from);
            put("to", to);
        }
        _ => put("name", name),
    }
}

/// Takes a value away (its default is in force then), or a section; with `cascade` also all that
/// refers to that, and so on.
///
/// # Errors
/// [`EditError`].
pub fn remove(document: &Document, path: &str, cascade: bool) -> Result<Document, EditError> {
    let mut root = tree(document);
    take(&mut root, path)?;
    loop {
        let mut dangling = dangling(&tree(document), &root);
        let Some(first) = dangling.first() else {
            return checked(path, root);
        };
        if !cascade {
            let by = dangling.drain(..).map(|(_, value)| value).collect();
            let path = path.to_owned();
            return Err(EditError::Referred { path, by });
        }
        let section = first.0.clone();
        take(&mut root, &section)?;
    }
}

fn take(root: &mut Value, path: &str) -> Result<(), EditError> {
    let parts = split(root, path);
    let (last, at) = branch(root, path, &parts)?;
    if at.remove(last).is_none() || last == ORDER {
        return Err(nowhere(path, last, at));
    }
    if let Some(Value::Array(order)) = at.get_mut(ORDER) {
        order.retain(|name| name != last);
    }
    Ok(())
}

/// Values that named something before, and name nothing now: (section, value).
fn dangling(before: &Value, now: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (section, key, of) in REFERENCES {
        let items = now.get(section).and_then(Value::as_object);
        for (name, item) in items.into_iter().flatten() {
            let Some(to) = item.get(key).and_then(Value::as_str) else {
                continue;
            };
            let there = |root: &Value| root.get(of).is_some_and(|all| all.get(to).is_some());
            if there(before) && !there(now) {
                let section = format!("{section}.{name}");
                let value = format!("{section}.{key}");
                found.push((section, value));
            }
        }
    }
    found.sort_unstable();
    found
}

/// The branch that a path's last part is in. Only the last may be new.
fn branch<'a, 'b>(
    root: &'a mut Value,
    path: &str,
    parts: &'b [String],
) -> Result<(&'b str, &'a mut Map<String, Value>), EditError> {
    let empty = || EditError::Value {
        path: path.to_owned(),
        reason: "a path such as vpc.red.weight is needed".to_owned(),
    };
    let (last, branches) = parts.split_last().ok_or_else(empty)?;
    let mut at = root.as_object_mut().ok_or_else(empty)?;
    for part in branches {
        if !at.get(part).is_some_and(Value::is_object) {
            return Err(nowhere(path, part, at));
        }
        let Some(Value::Object(next)) = at.get_mut(part) else {
            return Err(empty());
        };
        at = next;
    }
    Ok((last, at))
}

fn nowhere(path: &str, part: &str, at: &Map<String, Value>) -> EditError {
    let known = at.keys().filter(|key| *key != ORDER);
    EditError::Nowhere {
        path: path.to_owned(),
        part: part.to_owned(),
        known: known.cloned().collect(),
    }
}

fn checked(path: &str, root: Value) -> Result<Document, EditError> {
    untree(root).map_err(|error| EditError::Value {
        path: path.to_owned(),
        reason: match error {
            ChangeError::Shape(reason) => reason,
            other => other.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;
    use crate::config::validate;

    #[test]
    fn values_are_toml_or_text() {
        assert_eq!(value("30"), 30);
        assert_eq!(value("30s"), "30s");
        assert_eq!(value("true"), true);
        assert_eq!(value("\"true\""), "true");
        assert_eq!(value("[\"a\", \"b\"]"), serde_json::json!(["a", "b"]));
        assert_eq!(value("{ id = 3 }"), serde_json::json!({ "id": 3 }));
        assert_eq!(value("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(value("a\nb = 1"), "a\nb = 1");
    }

    #[test]
    fn a_value_is_set_and_taken_back() {
        let set = set(&good(), "vpc.red.weight", value("9")).unwrap();
        assert_eq!(set.vpc[0].weight, 9);
        let taken = remove(&set, "vpc.red.weight", false).unwrap();
        assert_eq!(taken, good());
        let deep = super::set(&good(), "limits.punt_pps.arp", value("77")).unwrap();
        assert_eq!(deep.limits.punt_pps["arp"], 77);
    }

    #[test]
    fn a_section_is_added_by_its_name() {
        let new = value("{ id = 77, table = 777 }");
        let document = set(&good(), "vpc.violet", new).unwrap();
        let last = document.vpc.last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.id, last.table),
            ("violet", 77, 777)
        );
        assert!(validate(&document).is_ok());
        let peered = set(&document, "peering.violet:red", value("{}")).unwrap();
        let last = peered.peering.last().unwrap();
        assert_eq!((last.from.as_str(), last.to.as_str()), ("violet", "red"));
        assert!(validate(&peered).is_ok());
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = set(&good(), "vpc.redd.weight", value("1")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("\"redd\" (known:") && text.contains("red"),
            "{text}"
        );
        let error = remove(&good(), "vpc.redd", false).unwrap_err();
        assert!(error.to_string().contains("no \"redd\""), "{error}");
        let error = remove(&good(), "", false).unwrap_err();
        assert!(error.to_string().contains("a path such as"), "{error}");
    }

    #[test]
    fn a_value_of_another_kind_is_refused() {
        let error = set(&good(), "vpc.red.weight", value("heavy")).unwrap_err();
        assert!(error.to_string().contains("invalid type"), "{error}");
        let error = set(&good(), "vpc.red.wait", value("1")).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `wait`"),
            "{error}"
        );
        let error = set(&good(), "vpc.new", value("{}")).unwrap_err();
        assert!(error.to_string().contains("missing field"), "{error}");
    }

    #[test]
    fn what_is_referred_to_stays_or_takes_along_what_refers_to_it() {
        let error = remove(&good(), "vpc.red", false).unwrap_err();
        let EditError::Referred { by, .. } = &error else {
            panic!("{error}")
        };
        assert!(by.contains(&"interface.red.vpc".to_owned()), "{by:?}");
        let without = remove(&good(), "vpc.red", true).unwrap();
        let left = serde_json::to_string(&without).unwrap();
        assert!(!left.contains("\"red\""), "{left}");
        assert!(validate(&without).is_ok(), "{:?}", validate(&without));
    }

    /// A tunnel goes with its underlay.
    #[test]
    fn a_cascade_goes_on() {
        let error = remove(&good(), "vpc.wan", false).unwrap_err();
        assert!(
            error.to_string().contains("interface.fabric.vpc"),
            "{error}"
        );
        let without = remove(&good(), "vpc.wan", true).unwrap();
        assert!(
            without
                .interface
                .iter()
                .all(|interface| interface.underlay.is_none())
        );
    }
}
