//! What an entry has besides key and action: idle timeout, priority and meter, members.

use std::num::NonZeroU16;
use std::time::Duration;

use p4runtime::p4::v1::table_action::Type;
use p4runtime::p4::v1::{
    Action, ActionProfileAction, ActionProfileActionSet, MeterConfig, TableAction,
};

use super::error::TableError;

/// Rates of a two-rate three-colour meter (RFC 4115 as P4Runtime 9.6 has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Packets a second that are green.
    pub committed_rate: u32,
    /// Packets at once that are green.
    pub committed_burst: u32,
    /// Packets a second that are not red.
    pub peak_rate: u32,
    /// Packets at once that are not red.
    pub peak_burst: u32,
}

impl Meter {
    /// `rate` packets a second, `burst` at once; what is above is red.
    pub const fn single(rate: u32, burst: u32) -> Self {
        Self {
            committed_rate: rate,
            committed_burst: burst,
            peak_rate: rate,
            peak_burst: burst,
        }
    }

    /// What a read names to get meters with the entries (P4Runtime 9.1: only when asked for).
    pub fn wanted() -> MeterConfig {
        MeterConfig::default()
    }

    pub(crate) fn to_config(self) -> MeterConfig {
        MeterConfig {
            cir: i64::from(self.committed_rate),
            cburst: i64::from(self.committed_burst),
            pir: i64::from(self.peak_rate),
            pburst: i64::from(self.peak_burst),
            eburst: 0,
        }
    }

    pub(crate) fn from_config(
        table: &'static str,
        config: &MeterConfig,
    ) -> Result<Self, TableError> {
        let part = |what, value| {
            u32::try_from(value).map_err(|_| TableError::Number { table, what, value })
        };
        Ok(Self {
            committed_rate: part("meter cir", config.cir)?,
            committed_burst: part("meter cburst", config.cburst)?,
            peak_rate: part("meter pir", config.pir)?,
            peak_burst: part("meter pburst", config.pburst)?,
        })
    }
}

impl std::fmt::Display for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            committed_rate,
            committed_burst,
            peak_rate,
            peak_burst,
        } = self;
        write!(f, "{committed_rate}/s burst {committed_burst}")?;
        if (peak_rate, peak_burst) != (committed_rate, committed_burst) {
            write!(f, ", peak {peak_rate}/s burst {peak_burst}")?;
        }
        Ok(())
    }
}

/// Nanoseconds on the wire; 0 is "never", and so is what does not fit (292 years).
pub(crate) fn idle_to_ns(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_nanos()).unwrap_or(0)
}

pub(crate) fn idle_from_ns(table: &'static str, value: i64) -> Result<Duration, TableError> {
    u64::try_from(value)
        .map(Duration::from_nanos)
        .map_err(|_| TableError::Number {
            table,
            what: "idle timeout",
            value,
        })
}

pub(crate) fn priority(table: &'static str, value: i32) -> Result<NonZeroU16, TableError> {
    narrow(table, "priority", value)
}

fn narrow(table: &'static str, what: &'static str, value: i32) -> Result<NonZeroU16, TableError> {
    u16::try_from(value)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or(TableError::Number {
            table,
            what,
            value: i64::from(value),
        })
}

/// The one-shot form of a selector's group.
pub(crate) fn action_set(members: impl Iterator<Item = (Action, NonZeroU16)>) -> TableAction {
    let action_profile_actions = members
        .map(|(action, weight)| ActionProfileAction {
            action: Some(action),
            weight: i32::from(weight.get()),
            ..Default::default()
        })
        .collect();
    TableAction {
        r#type: Some(Type::ActionProfileActionSet(ActionProfileActionSet {
            action_profile_actions,
            ..Default::default()
        })),
    }
}

/// The members of a one-shot group: actions and weights.
pub(crate) fn take_action_set<'a>(
    table: &'static str,
    action: &'a Option<TableAction>,
) -> Result<Vec<(&'a Action, NonZeroU16)>, TableError> {
    let missing = TableError::NoAction {
        table,
        expected: "one-shot action set",
    };
    let Some(Type::ActionProfileActionSet(set)) =
        action.as_ref().and_then(|action| action.r#type.as_ref())
    else {
        return Err(missing);
    };
    set.action_profile_actions
        .iter()
        .map(|member| {
            let action = member.action.as_ref();
            let action = action.ok_or(TableError::NoAction {
                table,
                expected: "action",
            })?;
            Ok((action, narrow(table, "weight", member.weight)?))
        })
        .collect()
}
