//! The switches, each with a session and an offload engine of its own.

use std::sync::Arc;

use shunt_offload::EngineRef;
use shunt_p4::NetworkOp;

use super::handle::SwitchHandle;
use crate::config::Switch;

/// A switch and its session.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its configuration.
    pub switch: Switch,
    /// Its session.
    pub handle: SwitchHandle,
    /// What installs connections in it; none where nobody does.
    pub engine: Option<EngineRef>,
}

/// The switches, in the order of their places ([`shunt_p4::SwitchIndex`]); clones share them.
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
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.0.iter()
    }

    /// Those that do not hold exactly what was handed over, by name.
    pub fn behind(&self) -> Vec<String> {
        let behind = self.0.iter().filter(|member| !member.handle.is_converged());
        behind.map(|member| member.switch.name.clone()).collect()
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

    /// The whole of the network has been said.
    pub async fn complete(&self) {
        let all = self.0.iter().map(|member| member.handle.complete());
        futures::future::join_all(all).await;
    }

    /// Whether every switch holds exactly what was handed over.
    pub fn are_converged(&self) -> bool {
        self.behind().is_empty()
    }
}
