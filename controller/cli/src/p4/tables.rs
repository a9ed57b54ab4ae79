//! `shunt p4 tables`.

use p4runtime::p4info::{ActionScope, P4InfoIndex, Table};
use p4runtime::value::{describe_field, describe_value};
use serde::Serialize;

use super::P4Error;
use super::connect::Connection;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Examples:
  shunt p4 tables
  shunt p4 tables flow4";

/// The pipeline's tables, or all that one of them takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// One table: its fields, actions and parameters, and what they take.
    table: Option<String>,
}

#[derive(Serialize)]
struct View {
    name: String,
    full_name: String,
    size: u64,
    is_const: bool,
    priorities: bool,
    idle_timeout: bool,
    action_profile: Option<String>,
    direct_counter: Option<String>,
    direct_meter: Option<String>,
    fields: Vec<Field>,
    actions: Vec<Action>,
}

#[derive(Serialize)]
struct Field {
    name: String,
    kind: String,
    bits: u32,
    format: String,
    takes: String,
    refers_to: Vec<String>,
}

#[derive(Serialize)]
struct Action {
    name: String,
    entries: bool,
    default: bool,
    params: Vec<Param>,
}

#[derive(Serialize)]
struct Param {
    name: String,
    bits: u32,
    format: String,
    takes: String,
    refers_to: Vec<String>,
}

fn references(all: &[p4runtime::p4info::Reference]) -> Vec<String> {
    use p4runtime::p4info::ReferredTo;
    let one = |reference: &p4runtime::p4info::Reference| match &reference.to {
        ReferredTo::Table(table) => format!("{table}.{}", reference.field),
        ReferredTo::MulticastGroups => "multicast group".to_owned(),
        ReferredTo::CloneSessions => "clone session".to_owned(),
    };
    all.iter().map(one).collect()
}

fn view(table: &Table, index: &P4InfoIndex) -> View {
    let actions = table.actions.iter().filter_map(|of| {
        let action = index.action_by_id(of.id).ok()?;
        Some(Action {
            name: action.alias.clone(),
            entries: of.scope != ActionScope::DefaultOnly,
            default: matches!(
                of.scope,
                ActionScope::TableAndDefault | ActionScope::DefaultOnly
            ),
            params: action
                .params
                .iter()
                .map(|param| Param {
                    name: param.name.clone(),
                    bits: param.bitwidth,
                    format: param.format.to_string(),
                    takes: describe_value(param.bitwidth, param.format),
                    refers_to: references(&param.refers_to),
                })
                .collect(),
        })
    });
    let profile = table
        .implementation
        .and_then(|id| index.action_profile_by_id(id).ok());
    View {
        name: table.alias.clone(),
        full_name: table.name.clone(),
        size: table.size,
        is_const: table.is_const,
        priorities: table.needs_priority(),
        idle_timeout: table.idle_timeout,
        action_profile: profile.map(|profile| profile.alias.clone()),
        direct_counter: index.direct_counter_of(table).map(|one| one.alias.clone()),
        direct_meter: index.direct_meter_of(table).map(|one| one.alias.clone()),
        fields: table
            .match_fields
            .iter()
            .map(|field| Field {
                name: field.name.clone(),
                kind: field.kind.to_string(),
                bits: field.bitwidth,
                format: field.format.to_string(),
                takes: describe_field(field),
                refers_to: references(&field.refers_to),
            })
            .collect(),
        actions: actions.collect(),
    }
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let client = to.client().await?;
    let index = to.index(&client).await?;
    if let Some(name) = which.table {
        let view = view(index.table(&name)?, &index);
        return Ok(out.object(&view, || text(&view, out))?);
    }
    let views: Vec<View> = index
        .tables()
        .iter()
        .map(|table| view(table, &index))
        .collect();
    let header = ["table", "key", "actions", "size"];
    Ok(out.list(&views, &header, |view| {
        let fields = view.fields.iter();
        let actions = view.actions.iter().filter(|action| action.entries);
        vec![
            view.name.clone(),
            fields
                .map(|field| field.name.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            actions
                .map(|action| action.name.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            view.size.to_string(),
        ]
    })?)
}

fn text(view: &View, out: &Output) -> String {
    let mut facts = vec![format!("size {}", view.size)];
    if view.is_const {
        facts.push("const: fixed by the program".to_owned());
    }
    if view.priorities {
        facts.push("entries need --priority".to_owned());
    }
    if view.idle_timeout {
        facts.push("--idle-timeout".to_owned());
    }
    let of = |what: &str, name: &Option<String>| name.as_ref().map(|name| format!("{what} {name}"));
    facts.extend(of("action profile", &view.action_profile));
    facts.extend(of("counter", &view.direct_counter));
    facts.extend(of("meter", &view.direct_meter));
    let refers = |all: &[String]| match all.is_empty() {
        true => String::new(),
        false => format!("; refers to {}", all.join(", ")),
    };
    let mut text = format!(
        "{} ({}): {}\n\n",
        view.name,
        view.full_name,
        facts.join(", ")
    );
    text += &out.table(
        &["field", "kind", "bits", "takes"],
        view.fields.iter().map(|field| {
            vec![
                field.name.clone(),
                field.kind.clone(),
                field.bits.to_string(),
                format!("{}{}", field.takes, refers(&field.refers_to)),
            ]
        }),
    );
    text.push('\n');
    let rows = view.actions.iter().flat_map(|action| {
        let place = match (action.entries, action.default) {
            (true, true) => "",
            (true, false) => "entries only",
            _ => "default only",
        };
        let first = [(action.name.clone(), place)];
        let names = first
            .into_iter()
            .chain(std::iter::repeat((String::new(), "")));
        let none = [None];
        let params = action.params.iter().map(Some);
        let params: Vec<Option<&Param>> = match action.params.is_empty() {
            true => none.to_vec(),
            false => params.collect(),
        };
        params
            .into_iter()
            .zip(names)
            .map(|(param, (name, place))| match param {
                Some(param) => vec![
                    name,
                    param.name.clone(),
                    param.bits.to_string(),
                    format!("{}{}", param.takes, refers(&param.refers_to)),
                    place.to_owned(),
                ],
                None => vec![
                    name,
                    String::new(),
                    String::new(),
                    String::new(),
                    place.to_owned(),
                ],
            })
            .collect::<Vec<_>>()
    });
    text += &out.table(&["action", "parameter", "bits", "takes", "where"], rows);
    text
}
