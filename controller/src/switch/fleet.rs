//! Several switches, each with a session of its own.

use std::sync::Arc;

use shunt_p4::NetworkOp;
use shunt_slowpath::policy::Peering;

use super::handle::SwitchHandle;
use crate::config::{PuntMeter, Switch};

/// A switch and its session.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its configuration.
    pub switch: Switch,
    /// Its session.
    pub handle: SwitchHandle,
}

/// The switches; clones share them.
#[derive(Clone, Debug)]
pub struct Switches(Arc<[Member]>);

/// There is no such switch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no switch named {name:?} (known: {})", known.join(", "))]
pub struct UnknownSwitch {
    /// The name given.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl Switches {
    /// These.
    pub fn new(members: Vec<Member>) -> Self {
        Self(members.into())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    /// The one of that name; all for an empty name.
    ///
    /// # Errors
    /// [`UnknownSwitch`].
    pub fn named(&self, name: &str) -> Result<Vec<Member>, UnknownSwitch> {
        let named = |member: &&Member| name.is_empty() || member.switch.name == name;
        let found: Vec<Member> = self.0.iter().filter(named).cloned().collect();
        if found.is_empty() && !name.is_empty() {
            let known = self.0.iter().map(|member| member.switch.name.clone());
            return Err(UnknownSwitch {
                name: name.to_owned(),
                known: known.collect(),
            });
        }
        Ok(found)
    }

    /// Hands a batch to every switch at once: none waits for another.
    pub async fn apply(&self, ops: &[NetworkOp]) {
        let all = self
            .0
            .iter()
            .map(|member| member.handle.apply(ops.to_vec()));
        futures::future::join_all(all).await;
    }

    /// As [`SwitchHandle::configure`], of every switch.
    pub async fn configure(&self, meters: &[PuntMeter], peerings: &[Peering]) {
        let all = self
            .0
            .iter()
            .map(|member| member.handle.configure(meters.to_vec(), peerings.to_vec()));
        futures::future::join_all(all).await;
    }

    /// The whole of the network has been said.
    pub async fn complete(&self) {
        let all = self.0.iter().map(|member| member.handle.complete());
        futures::future::join_all(all).await;
    }

    /// Whether every switch holds exactly what was handed over.
    pub fn are_converged(&self) -> bool {
        self.0.iter().all(|member| member.handle.is_converged())
    }
}
