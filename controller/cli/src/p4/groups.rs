//! `shunt p4 groups`.

use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::entity::Entity as Kind;
use pb::packet_replication_engine_entry::Type;

use super::P4Error;
use super::connect::Connection;
use super::read::{named, offered};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Examples:
  shunt p4 groups
  shunt p4 groups ecmp_selector";

/// Members and groups of action profiles, multicast groups, clone sessions.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Only of this action profile.
    profile: Option<String>,
}

/// The selections of everything that has members or replicas.
pub(super) fn selections(profiles: impl Iterator<Item = u32>, replication: bool) -> Vec<Kind> {
    let members = |action_profile_id| {
        [
            Kind::ActionProfileMember(pb::ActionProfileMember {
                action_profile_id,
                ..Default::default()
            }),
            Kind::ActionProfileGroup(pb::ActionProfileGroup {
                action_profile_id,
                ..Default::default()
            }),
        ]
    };
    let engine = |r#type| {
        Kind::PacketReplicationEngineEntry(pb::PacketReplicationEngineEntry {
            r#type: Some(r#type),
        })
    };
    let mut all: Vec<Kind> = Vec::new();
    if replication {
        all.push(engine(Type::MulticastGroupEntry(
            pb::MulticastGroupEntry::default(),
        )));
        all.push(engine(Type::CloneSessionEntry(
            pb::CloneSessionEntry::default(),
        )));
    }
    all.extend(profiles.flat_map(members));
    all
}

pub(super) async fn run(to: &Connection, out: &Output, which: Arguments) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let kinds = match &which.profile {
        Some(name) => selections(std::iter::once(index.action_profile(name)?.id), false),
        None => selections(
            index.action_profiles().iter().map(|profile| profile.id),
            true,
        ),
    };
    let mut found = Vec::new();
    for kind in kinds {
        // Groups of a profile without a selector, replication on a switch without.
        if let Some(entities) = offered(&client, &index, kind).await? {
            found.extend(named(&entities, &index)?);
        }
    }
    Ok(out.lines(&found, ToString::to_string)?)
}
