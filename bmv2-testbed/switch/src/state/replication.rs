//! The packet replication engine: multicast groups and clone sessions.

use std::collections::HashMap;

use super::profile::Watch;

/// One copy of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) port: u32,
    /// `egress_rid`.
    pub(crate) instance: u32,
    /// Whether the client named the port by bytes (1.4) or by the older number.
    pub(crate) by_bytes: bool,
    pub(crate) backups: Vec<(Watch, u32)>,
}

/// A multicast group.
#[derive(Clone, Debug, Default)]
pub(crate) struct MulticastGroup {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) metadata: Vec<u8>,
}

/// A clone session.
#[derive(Clone, Debug, Default)]
pub(crate) struct CloneSession {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) class_of_service: u32,
    /// Copies are cut to this many bytes; 0 leaves them whole.
    pub(crate) packet_length_bytes: i32,
}

/// All groups and sessions.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    pub(crate) groups: HashMap<u32, MulticastGroup>,
    pub(crate) sessions: HashMap<u32, CloneSession>,
}
