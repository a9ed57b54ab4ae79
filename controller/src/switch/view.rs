//! What others see of the session.

use shunt_p4::InterfaceId;

/// Where the session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwitchState {
    /// No stream.
    #[default]
    Connecting,
    /// Another controller is the primary.
    Backup,
    /// The pipeline is compared or pushed.
    Pushing,
    /// Nothing is written before the whole of the network is known.
    Waiting,
    /// The switch is read back and put right.
    Repairing,
    /// Changes are written as they come.
    Ready,
}

impl SwitchState {
    /// Its name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            SwitchState::Connecting => "connecting",
            SwitchState::Backup => "backup",
            SwitchState::Pushing => "pushing",
            SwitchState::Waiting => "waiting",
            SwitchState::Repairing => "repairing",
            SwitchState::Ready => "ready",
        }
    }

    /// Whether it writes to the switch, or soon will.
    pub const fn is_primary(self) -> bool {
        !matches!(self, SwitchState::Connecting | SwitchState::Backup)
    }

    /// The role on the stream.
    pub const fn role(self) -> &'static str {
        match self {
            SwitchState::Connecting => "none",
            SwitchState::Backup => "backup",
            _ => "primary",
        }
    }
}

/// A snapshot of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchView {
    /// Where it stands.
    pub state: SwitchState,
    /// The pipeline that is on the switch, as far as it is known.
    pub pipeline_cookie: Option<u64>,
    /// Entries wanted.
    pub entries: u64,
    /// Entries that are not yet as wanted.
    pub pending: u64,
    /// Those of them that the switch has refused.
    pub refused: u64,
    /// Entries of another role in our tables, left alone.
    pub others: u64,
    /// Sessions so far.
    pub sessions: u64,
    /// What went wrong last in this session or kept it from beginning.
    pub last_error: Option<String>,
    /// Entries on the switch by table.
    pub tables: Vec<(&'static str, u64)>,
    /// Batches taken over.
    pub applied: u64,
    /// Tunnels that cannot send: the way to their remote end point is not resolved.
    pub unresolved: Vec<InterfaceId>,
}
