//! `shunt p4 export`, and what a switch has, for `import` too.

use std::fmt::Write as _;
use std::path::PathBuf;

use p4runtime::client::{Client, PipelineParts};
use p4runtime::named::Named;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use p4runtime::p4info::P4InfoIndex;

use super::P4Error;
use super::connect::Connection;
use super::diff::Item;
use super::read::{entities, offered};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Entries and default entries of every table (constant ones left out), action profiles,
multicast groups, clone sessions, meters; with --registers also registers. Counters are
not state to restore and stay out. The same state gives the same file.

Examples:
  shunt p4 export                     (to standard output)
  shunt p4 export backup.p4rt";

/// The switch's whole state as a readable file: one entity a line, which is also what
/// `insert` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The file; standard output without.
    file: Option<PathBuf>,
    /// Registers too, every cell.
    #[arg(long)]
    registers: bool,
}

/// What a switch has, and what it does not offer to read.
pub(super) struct State {
    pub(super) items: Vec<Item>,
    pub(super) not_offered: Vec<&'static str>,
}

pub(super) async fn run(to: &Connection, out: &Output, what: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let state = gather(&client, &index, what.registers).await?;
    let cookie = client
        .get_pipeline(PipelineParts::CookieOnly)
        .await?
        .cookie();
    let named: Vec<Named> = state.items.iter().map(|item| item.named.clone()).collect();
    let text = out.render_lines(&named, ToString::to_string)?;
    let mut head = String::new();
    if out.is_text() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            head,
            "# P4Runtime state of device {}, pipeline cookie {}; `shunt p4 import` takes it",
            to.device_id(),
            cookie.map_or_else(|| "none".to_owned(), |cookie| format!("{cookie:#018x}")),
        );
        for what in &state.not_offered {
            let _ = writeln!(
                head,
                "# without {what}: the switch does not offer to read them"
            );
        }
    }
    let text = head + &text;
    match what.file {
        Some(path) => std::fs::write(&path, text).map_err(|source| P4Error::File { path, source }),
        None => Ok(out.text(&text)?),
    }
}

/// Everything that can be written back, in the order of the P4Info, by key within it.
pub(super) async fn gather(
    client: &Client,
    index: &P4InfoIndex,
    registers: bool,
) -> Result<State, P4Error> {
    let mut found: Vec<pb::Entity> = Vec::new();
    let mut not_offered = Vec::new();
    let profiles = index.action_profiles().iter().map(|profile| profile.id);
    for kind in super::groups::selections(profiles, true) {
        let what = match &kind {
            Kind::ActionProfileMember(_) => "action profile members",
            Kind::ActionProfileGroup(_) => "action profile groups",
            _ => "multicast groups and clone sessions",
        };
        match offered(client, index, kind).await? {
            Some(entities) => found.extend(entities),
            None if !not_offered.contains(&what) => not_offered.push(what),
            None => {}
        }
    }
    for table in index.tables() {
        let mut wanted = pb::TableEntry {
            table_id: table.id,
            ..Default::default()
        };
        if table.const_default_action.is_none() {
            let default = Kind::TableEntry(pb::TableEntry {
                is_default_action: true,
                ..wanted.clone()
            });
            let default = entities(client, index, vec![default]).await?;
            found.extend(default.into_iter().filter(has_action));
        }
        if table.is_const {
            continue;
        }
        if index.direct_meter_of(table).is_some() {
            wanted.meter_config = Some(pb::MeterConfig::default());
        }
        let entries = entities(client, index, vec![Kind::TableEntry(wanted)]).await?;
        let own = entries.into_iter().filter(|entity| match &entity.entity {
            // Some servers include the default entry in a wildcard read.
            Some(Kind::TableEntry(entry)) => !entry.is_const && !entry.is_default_action,
            _ => false,
        });
        found.extend(own);
    }
    for meter in index.meters() {
        let wanted = Kind::MeterEntry(pb::MeterEntry {
            meter_id: meter.id,
            ..Default::default()
        });
        match offered(client, index, wanted).await? {
            Some(cells) => found.extend(cells.into_iter().filter(|entity| {
                matches!(&entity.entity, Some(Kind::MeterEntry(cell)) if cell.config.is_some())
            })),
            None => not_offered.push("meters"),
        }
    }
    for register in index.registers().iter().filter(|_| registers) {
        let wanted = Kind::RegisterEntry(pb::RegisterEntry {
            register_id: register.id,
            ..Default::default()
        });
        match offered(client, index, wanted).await? {
            Some(cells) => found.extend(cells),
            None => not_offered.push("registers"),
        }
    }
    let items = found.into_iter().map(|entity| Item::new(entity, index));
    Ok(State {
        items: items.collect::<Result<_, _>>()?,
        not_offered,
    })
}

fn has_action(entity: &pb::Entity) -> bool {
    matches!(&entity.entity, Some(Kind::TableEntry(entry)) if entry.action.is_some())
}
