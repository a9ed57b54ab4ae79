//! The P4Info bound to the compiled program: ids on one side, indices and widths on the other.

mod bind;
mod value_set;

use std::collections::HashMap;

use p4runtime::p4::config::v1::P4Info;

use crate::program::table::Match;

/// The bound P4Info.
#[derive(Debug, Default)]
pub(crate) struct Info {
    pub(crate) p4info: P4Info,
    pub(crate) tables: HashMap<u32, TableInfo>,
    /// Table ids in the P4Info's order, for wildcard reads.
    pub(crate) table_ids: Vec<u32>,
    /// P4Info id by the program's table index.
    pub(crate) table_by_index: HashMap<usize, u32>,
    pub(crate) actions: HashMap<u32, ActionInfo>,
    pub(crate) profiles: HashMap<u32, ProfileInfo>,
    pub(crate) counters: HashMap<u32, ArrayInfo>,
    pub(crate) meters: HashMap<u32, ArrayInfo>,
    pub(crate) registers: HashMap<u32, ArrayInfo>,
    pub(crate) value_sets: HashMap<u32, ValueSetInfo>,
    /// Table id by the id of its direct counter or meter.
    pub(crate) direct_counters: HashMap<u32, u32>,
    pub(crate) direct_meters: HashMap<u32, u32>,
    /// P4Info id and name by the program's list id.
    pub(crate) digests: HashMap<u32, (u32, String)>,
    pub(crate) packet_in: Vec<PacketField>,
    pub(crate) packet_out: Vec<PacketField>,
}

/// A table.
#[derive(Debug)]
pub(crate) struct TableInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Index in the program.
    pub(crate) index: usize,
    pub(crate) fields: Vec<FieldInfo>,
    /// Slot and scope of each action, by id.
    pub(crate) actions: HashMap<u32, (u16, Scope)>,
    /// Action ids by slot; 0 where the P4Info has none.
    pub(crate) action_ids: Vec<u32>,
    pub(crate) needs_priority: bool,
    pub(crate) const_default: bool,
    pub(crate) is_const: bool,
    /// The action profile's P4Info id.
    pub(crate) profile: Option<u32>,
    pub(crate) has_counter: bool,
    pub(crate) has_meter: bool,
    pub(crate) idle_timeout: bool,
}

/// Where an action may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    TableAndDefault,
    TableOnly,
    DefaultOnly,
}

/// A match field, in the order of the P4Info.
#[derive(Debug)]
pub(crate) struct FieldInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) kind: Match,
    pub(crate) width: u16,
    /// Place in the packed key.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// Width in the program, which a translated type may exceed.
    pub(crate) program_width: u16,
}

/// An action.
#[derive(Debug)]
pub(crate) struct ActionInfo {
    pub(crate) name: String,
    /// In the order of the packed arguments.
    pub(crate) params: Vec<ParamInfo>,
}

/// An action parameter.
#[derive(Debug)]
pub(crate) struct ParamInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) width: u16,
    pub(crate) program_width: u16,
}

/// An action profile.
#[derive(Debug)]
pub(crate) struct ProfileInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) with_selector: bool,
    pub(crate) size: usize,
    /// 0: no limit.
    pub(crate) max_group_size: usize,
    pub(crate) weights_disallowed: bool,
    pub(crate) size_by: SizeBy,
    /// One table that uses it: its slots are the members' slots.
    pub(crate) table: u32,
}

/// What makes a group's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeBy {
    Weights,
    /// 0: no limit to a weight.
    Members {
        max_weight: i32,
    },
}

/// A counter, meter or register array.
#[derive(Debug)]
pub(crate) struct ArrayInfo {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) size: usize,
    pub(crate) width: u16,
    pub(crate) data: DataKind,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataKind {
    Bits,
    Signed,
    Bool,
    /// An enumeration with values.
    Enum,
}

impl ArrayInfo {
    /// Whether a register's cells take more than 128 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.width > crate::bits::MAX_VALUE_BITS
    }
}

/// A parser value set.
#[derive(Debug)]
pub(crate) struct ValueSetInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Index in the program.
    pub(crate) index: usize,
    pub(crate) fields: Vec<FieldInfo>,
    /// In members.
    pub(crate) size: usize,
    /// Bytes of a packed member.
    pub(crate) key_bytes: usize,
}

/// A field of packet-in or packet-out metadata.
#[derive(Debug)]
pub(crate) struct PacketField {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) width: u16,
}
