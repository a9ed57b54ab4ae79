//! What `shunt config` prints.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use shunt_api::v1::{
    ChangeConfigResponse, ConfigChange, ConfigRevision, GetConfigResponse, ValidateConfigResponse,
};

use crate::error::Error;
use crate::output::Output;

/// The document with its revision.
#[derive(Serialize)]
struct Shown<'a> {
    revision: u64,
    newest: u64,
    author: &'a str,
    time_ms: u64,
    comment: &'a str,
    store: &'a str,
    waiting: &'a [String],
    document: Value,
}

pub(super) fn shown(
    out: &Output,
    found: &GetConfigResponse,
    path: Option<&str>,
) -> Result<(), Error> {
    let document: Value = serde_json::from_str(&found.json)?;
    if let Some(path) = path {
        let part = part(&document, path)
            .ok_or_else(|| Error::Usage(format!("there is nothing at {path}")))?;
        return out.object(&part, || match &part {
            Value::String(text) => format!("{text}\n"),
            Value::Object(section) => {
                toml::to_string(section).unwrap_or_else(|_| format!("{part}\n"))
            }
            other => format!("{other}\n"),
        });
    }
    let revision = found.revision.clone().unwrap_or_default();
    let shown = Shown {
        revision: revision.number,
        newest: found.newest,
        author: &revision.author,
        time_ms: revision.time_ms,
        comment: &revision.comment,
        store: &found.store,
        waiting: &found.waiting,
        document,
    };
    out.object(&shown, || {
        let mut text = format!("# {}\n", heading(&revision));
        if revision.number == found.newest && !found.waiting.is_empty() {
            text += &format!("# {}\n", waits(&found.waiting));
        }
        text + &found.toml
    })
}

/// A part of the document: a list's sections go by their names.
fn part(document: &Value, path: &str) -> Option<Value> {
    if path.is_empty() {
        return Some(document.clone());
    }
    let rest = |name: &str| {
        let rest = path.strip_prefix(name)?;
        match rest.strip_prefix('.') {
            Some(rest) => Some(rest),
            None => rest.is_empty().then_some(""),
        }
    };
    match document {
        Value::Object(section) => section
            .iter()
            .find_map(|(key, value)| part(value, rest(key)?)),
        Value::Array(items) => items.iter().find_map(|item| {
            let text = |key: &str| item.get(key).and_then(Value::as_str);
            let name = match (text("name"), text("from"), text("to")) {
                (Some(name), ..) => name.to_owned(),
                (None, Some(from), Some(to)) => format!("{from}:{to}"),
                _ => return None,
            };
            part(item, rest(&name)?)
        }),
        _ => None,
    }
}

fn heading(revision: &ConfigRevision) -> String {
    let comment = match revision.comment.as_str() {
        "" => String::new(),
        comment => format!(": {comment}"),
    };
    format!(
        "revision {}, {} by {}{comment}",
        revision.number,
        time(revision.time_ms),
        revision.author
    )
}

/// RFC 3339, UTC.
fn time(ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    let at = at.filter(|_| ms < 253_402_300_800_000); // the year 10000
    at.map_or_else(
        || format!("{ms} ms after 1970"),
        |at| humantime::format_rfc3339_seconds(at).to_string(),
    )
}

fn waits(sections: &[String]) -> String {
    format!(
        "{} takes effect when shuntd is started again",
        sections.join(", ")
    )
}

/// `vpc.red.weight: 100 → 5`, `+ vpc.green { … }`, `- vpc.blue { … }`
fn line(change: &ConfigChange) -> String {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("~ {}: {before} -> {after}", change.path),
        (None, Some(after)) => format!("+ {}: {after}", change.path),
        (Some(before), None) => format!("- {}: {before}", change.path),
        (None, None) => format!("  {}", change.path),
    }
}

pub(super) fn changes(out: &Output, changes: &[ConfigChange]) -> Result<(), Error> {
    out.lines(changes, line)
}

pub(super) fn faults(
    out: &Output,
    file: &str,
    answer: &ValidateConfigResponse,
) -> Result<(), Error> {
    if answer.faults.is_empty() && out.is_text() {
        return out.text(&format!("{file}: no faults\n"));
    }
    out.lines(&answer.faults, |fault| {
        format!("{file}: {}: {}", fault.path, fault.message)
    })
}

/// A change, and whether it has been done.
#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    made: &'a ChangeConfigResponse,
    #[serde(skip_serializing_if = "Option::is_none")]
    converged: Option<bool>,
}

pub(super) fn made(
    out: &Output,
    made: &ChangeConfigResponse,
    dry_run: bool,
    converged: Option<bool>,
) -> Result<(), Error> {
    out.object(&Made { made, converged }, || {
        let mut text: String = made
            .changes
            .iter()
            .map(|change| format!("{}\n", line(change)))
            .collect();
        text += &match (made.changes.is_empty(), dry_run) {
            (true, _) => format!(
                "nothing to change: revision {} is the same\n",
                made.revision
            ),
            (false, true) => format!("revision {} would become this\n", made.revision),
            (false, false) if made.store.is_empty() => format!(
                "revision {}; it ends with the daemon, which keeps no store (shuntd --store)\n",
                made.revision
            ),
            (false, false) => format!("revision {}\n", made.revision),
        };
        if !made.waiting.is_empty() {
            text += &format!("{}\n", waits(&made.waiting));
        }
        text
    })
}

pub(super) fn log(out: &Output, log: &[ConfigRevision], with_changes: bool) -> Result<(), Error> {
    if with_changes && out.is_text() {
        let text = log.iter().map(|revision| {
            let changes = revision.changes.iter();
            let lines = changes.map(|change| format!("  {}\n", line(change)));
            format!("{}\n{}", heading(revision), lines.collect::<String>())
        });
        return out.text(&text.collect::<String>());
    }
    let header = ["revision", "time", "author", "changes", "comment"];
    out.list(log, &header, |revision| {
        vec![
            revision.number.to_string(),
            time(revision.time_ms),
            revision.author.clone(),
            revision.changes.len().to_string(),
            revision.comment.clone(),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_go_by_name() {
        let document = serde_json::json!({
            "vpc": [{ "name": "a.b", "id": 1 }, { "name": "a", "b": 2 }],
            "peering": [{ "from": "x", "to": "y" }],
            "limits": { "hold_timeout": "3s" }
        });
        assert_eq!(part(&document, "vpc.a.b.id"), Some(1.into()));
        assert_eq!(part(&document, "vpc.a.b"), Some(document["vpc"][0].clone()));
        assert_eq!(part(&document, "limits.hold_timeout"), Some("3s".into()));
        assert_eq!(part(&document, "peering.x:y.to"), Some("y".into()));
        assert_eq!(part(&document, "vpc.c"), None);
        assert_eq!(part(&document, "limits.hold"), None);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(1_790_000_000_123), "2026-09-21T14:13:20Z");
        assert_eq!(time(u64::MAX), "18446744073709551615 ms after 1970");
    }

    #[test]
    fn a_change_is_one_line() {
        let change = |before: Option<&str>, after: Option<&str>| {
            line(&ConfigChange {
                path: "vpc.red.weight".into(),
                before: before.map(Into::into),
                after: after.map(Into::into),
            })
        };
        assert_eq!(change(Some("1"), Some("2")), "~ vpc.red.weight: 1 -> 2");
        assert_eq!(change(None, Some("2")), "+ vpc.red.weight: 2");
        assert_eq!(change(Some("1"), None), "- vpc.red.weight: 1");
    }
}
