//! The switches: their states, their differences, and putting them right.

use std::sync::Arc;

use futures::Stream;
use futures::stream::{self, StreamExt as _};
use shunt_api::v1;
use shunt_p4::tables::{AnyEntry, Names, Shown};
use shunt_p4::{InterfaceId, VpcId};
use tonic::Status;

use super::convert::{self, count};
use crate::config::{Config, Switch};
use crate::switch::{Comparison, Difference, Found, NotNow, Repair, SwitchView, UnknownSwitch};

/// The configuration's names.
pub(super) struct Configured<'a>(pub(super) &'a Config);

impl Names for Configured<'_> {
    fn vpc(&self, id: VpcId) -> String {
        self.0.vpc_name(id)
    }

    fn interface(&self, id: InterfaceId) -> String {
        self.0.interface_name(id)
    }
}

pub(super) fn unknown(error: UnknownSwitch) -> Status {
    let name = convert::quoted(&error.name);
    let known = error.known.join(", ");
    Status::not_found(format!("there is no switch named {name} (known: {known})"))
}

pub(super) fn state(
    switch: &Switch,
    view: &SwitchView,
    tables: Vec<v1::TableOccupancy>,
) -> v1::SwitchStatus {
    v1::SwitchStatus {
        name: switch.name.clone(),
        address: switch.address.clone(),
        device_id: switch.device_id,
        state: view.state.as_str().to_owned(),
        role: view.state.role().to_owned(),
        pipeline_cookie: view
            .pipeline_cookie
            .map(|cookie| format!("{cookie:016x}"))
            .unwrap_or_default(),
        pipeline_cookie_wanted: format!("{:016x}", shunt_p4::pipeline_cookie()),
        entries: view.entries,
        pending: view.pending,
        refused: view.refused,
        sessions: view.sessions,
        last_error: view.last_error.clone().unwrap_or_default(),
        tables,
        others: view.others,
    }
}

/// The summary, then the differences; each is put into words when it is its turn.
pub(super) fn diff(
    config: Arc<Config>,
    switch: String,
    compared: Result<Comparison, NotNow>,
) -> impl Stream<Item = Result<v1::DiffSwitchResponse, Status>> + Send {
    use v1::diff_switch_response::Part;
    let (comparison, error) = match compared {
        Ok(comparison) => (comparison, String::new()),
        Err(error) => (Comparison::default(), error.to_string()),
    };
    let summary = v1::DiffSummary {
        switch: switch.clone(),
        wanted: comparison.wanted,
        held: comparison.held,
        differences: comparison.differences.len() as u64,
        others: comparison.others,
        error,
    };
    let differences = stream::iter(comparison.differences)
        .map(move |found| Part::Difference(difference(&config, &switch, &found)));
    stream::once(std::future::ready(Part::Summary(summary)))
        .chain(differences)
        .map(|part| Ok(v1::DiffSwitchResponse { part: Some(part) }))
}

fn difference(config: &Config, switch: &str, difference: &Difference) -> v1::Difference {
    let names = Configured(config);
    let wanted = difference.wanted.as_ref().map(|entry| entry.shown(&names));
    let (held, fault) = match &difference.found {
        Found::Nothing => (None, String::new()),
        Found::Entry(entry) => (Some(entry.shown(&names)), String::new()),
        Found::Foreign(_, error) => (None, error.to_string()),
    };
    let known = wanted.as_ref().or(held.as_ref());
    v1::Difference {
        switch: switch.to_owned(),
        table: match (&difference.found, known) {
            (_, Some(shown)) => shown.table.to_owned(),
            (Found::Foreign(raw, _), None) => table_name(raw.table_id),
            (_, None) => String::new(),
        },
        kind: difference.kind().as_str().to_owned(),
        key: known.map(key).unwrap_or_default(),
        wanted: wanted.as_ref().map(value),
        held: held.as_ref().map(value),
        fault,
    }
}

fn table_name(id: u32) -> String {
    let known = AnyEntry::TABLES.iter().find(|(_, known)| *known == id);
    known.map_or_else(|| format!("{id:#x}"), |(name, _)| (*name).to_owned())
}

fn field((name, value): &(&'static str, String)) -> v1::Field {
    v1::Field {
        name: (*name).to_owned(),
        value: value.clone(),
    }
}

fn key(shown: &Shown) -> Vec<v1::Field> {
    let priority = shown.priority.map(|priority| v1::Field {
        name: "priority".to_owned(),
        value: priority.to_string(),
    });
    shown.key.iter().map(field).chain(priority).collect()
}

fn value(shown: &Shown) -> v1::EntryValue {
    let actions = shown.actions.iter().map(|action| v1::EntryAction {
        name: action.name.to_owned(),
        params: action.params.iter().map(field).collect(),
        weight: action.weight.map_or(0, u32::from),
    });
    v1::EntryValue {
        actions: actions.collect(),
        properties: shown.properties.iter().map(field).collect(),
    }
}

pub(super) fn repaired(
    switch: String,
    repaired: Result<Repair, NotNow>,
) -> v1::ReconcileSwitchResponse {
    let (repair, error) = match repaired {
        Ok(repair) => (repair, String::new()),
        Err(error) => (Repair::default(), error.to_string()),
    };
    let found = repair.found.iter();
    v1::ReconcileSwitchResponse {
        switch,
        wanted: repair.wanted,
        found: found.map(|(kind, n)| count(kind.as_str(), *n)).collect(),
        left: repair.left,
        refused: repair.refused,
        refusals: repair.refusals,
        others: repair.others,
        error,
    }
}
