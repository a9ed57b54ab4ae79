//! P4 objects as a controller uses them: plain values, checked once on loading.

use std::fmt;

use super::data::DataType;
use super::objects::{Named, part_by_id, part_by_name};
use super::{Object, P4InfoError};
use crate::p4::config::v1::counter_spec::Unit as CounterUnit;
use crate::p4::config::v1::meter_spec::Unit as MeterUnit;
use crate::value::Format;

/// How a field of a key is compared (P4Runtime 9.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MatchKind {
    /// Equal in every bit.
    Exact,
    /// Equal in the first bits.
    Lpm,
    /// Equal in the bits of a mask.
    Ternary,
    /// Between two values, both included.
    Range,
    /// Equal, or anything.
    Optional,
    /// An architecture's own kind.
    Other(String),
}

impl MatchKind {
    /// Whether a table with such a field has priorities (P4Runtime 9.1).
    pub fn needs_priority(&self) -> bool {
        matches!(self, Self::Ternary | Self::Range | Self::Optional)
    }
}

impl fmt::Display for MatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Lpm => "LPM",
            Self::Ternary => "ternary",
            Self::Range => "range",
            Self::Optional => "optional",
            Self::Other(kind) => kind,
        })
    }
}

/// What a value refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the entry has to be.
    pub to: ReferredTo,
    /// The field that has the value there.
    pub field: String,
}

/// Where an entry has to be that a value refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReferredTo {
    /// In a table of this name.
    Table(String),
    /// Among the multicast groups (`builtin::multicast_group_table`).
    MulticastGroups,
    /// Among the clone sessions (`builtin::clone_session_table`).
    CloneSessions,
}

/// A field of a table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchField {
    /// Id within the table.
    pub id: u32,
    /// Name, as in the program or its `@name`.
    pub name: String,
    /// Width in bits; 0 for a type that the controller sees as a string.
    pub bitwidth: u32,
    /// How it is compared.
    pub kind: MatchKind,
    /// The named type, where the program gives one.
    pub type_name: Option<String>,
    /// How values are shown: `@format(…)`, else by type, width and name.
    pub format: Format,
    /// What values refer to (`@refers_to(table, field)`).
    pub refers_to: Vec<Reference>,
}

/// Where a table may use an action (P4Runtime 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionScope {
    /// In entries and as the default action.
    TableAndDefault,
    /// In entries only (`@tableonly`).
    TableOnly,
    /// As the default action only (`@defaultonly`).
    DefaultOnly,
    /// As the group action of a one-shot selector.
    GroupAction,
}

/// An action that a table may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActionRef {
    /// The action's id.
    pub id: u32,
    /// Where it may be used.
    pub scope: ActionScope,
}

/// A match-action table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Id, unique in the program.
    pub id: u32,
    /// Full name (`control.table`).
    pub name: String,
    /// Short name, unique among tables.
    pub alias: String,
    /// The key, in the program's order.
    pub match_fields: Vec<MatchField>,
    /// The actions it may use, in the program's order.
    pub actions: Vec<ActionRef>,
    /// The default action, where it can never change.
    pub const_default_action: Option<u32>,
    /// Entries that the program asks for; 0 says nothing.
    pub size: u64,
    /// Whether entries may have an idle timeout.
    pub idle_timeout: bool,
    /// Whether entries are fixed by the program.
    pub is_const: bool,
    /// Whether the program gives it entries to start with.
    pub has_initial_entries: bool,
    /// The action profile that holds its actions.
    pub implementation: Option<u32>,
    /// Ids of its direct counters and meters.
    pub direct_resources: Vec<u32>,
}

impl Table {
    /// The field of the key named `name`.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownName`], with the nearest name.
    pub fn field(&self, name: &str) -> Result<&MatchField, P4InfoError> {
        part_by_name(&self.match_fields, name, || self.label())
    }

    /// The field of the key with this id.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownId`].
    pub fn field_by_id(&self, id: u32) -> Result<&MatchField, P4InfoError> {
        part_by_id(&self.match_fields, id, || self.label())
    }

    /// Whether the table may use this action, and where.
    pub fn action_ref(&self, action_id: u32) -> Option<ActionRef> {
        self.actions
            .iter()
            .find(|action| action.id == action_id)
            .copied()
    }

    /// Whether entries need a priority: one field at least is ternary, range or
    /// optional (P4Runtime 9.1).
    pub fn needs_priority(&self) -> bool {
        self.match_fields
            .iter()
            .any(|field| field.kind.needs_priority())
    }

    fn label(&self) -> String {
        format!("table {:?}", self.alias)
    }
}

/// A parameter of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Id within the action.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Width in bits; 0 for a type that the controller sees as a string.
    pub bitwidth: u32,
    /// The named type, where the program gives one.
    pub type_name: Option<String>,
    /// How values are shown: `@format(…)`, else by type, width and name.
    pub format: Format,
    /// What values refer to (`@refers_to(table, field)`).
    pub refers_to: Vec<Reference>,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Id, unique in the program.
    pub id: u32,
    /// Full name.
    pub name: String,
    /// Short name, unique among actions.
    pub alias: String,
    /// Parameters, in the program's order.
    pub params: Vec<Param>,
}

impl Action {
    /// The parameter named `name`.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownName`], with the nearest name.
    pub fn param(&self, name: &str) -> Result<&Param, P4InfoError> {
        part_by_name(&self.params, name, || self.label())
    }

    /// The parameter with this id.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownId`].
    pub fn param_by_id(&self, id: u32) -> Result<&Param, P4InfoError> {
        part_by_id(&self.params, id, || self.label())
    }

    fn label(&self) -> String {
        format!("action {:?}", self.alias)
    }
}

/// A field of a controller header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketField {
    /// Id within the header.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Width in bits.
    pub bitwidth: u32,
    /// How values are shown.
    pub format: Format,
}

/// A controller header: the metadata of packets in (`packet_in`) or out
/// (`packet_out`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Id, unique in the program.
    pub id: u32,
    /// `packet_in` or `packet_out`.
    pub name: String,
    /// Short name.
    pub alias: String,
    /// Fields, in the header's order.
    pub fields: Vec<PacketField>,
}

impl PacketHeader {
    /// The field named `name`.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownName`], with the nearest name.
    pub fn field(&self, name: &str) -> Result<&PacketField, P4InfoError> {
        part_by_name(&self.fields, name, || format!("header {:?}", self.name))
    }

    /// The field with this id.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownId`].
    pub fn field_by_id(&self, id: u32) -> Result<&PacketField, P4InfoError> {
        part_by_id(&self.fields, id, || format!("header {:?}", self.name))
    }
}

impl ValueSet {
    /// The field of a member with this id.
    ///
    /// # Errors
    /// [`P4InfoError::UnknownId`].
    pub fn field_by_id(&self, id: u32) -> Result<&MatchField, P4InfoError> {
        let label = || format!("value set {:?}", self.alias);
        part_by_id(&self.match_fields, id, label)
    }
}

/// Objects that are an identity and a few plain properties.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            /// Id, unique in the program.
            pub id: u32,
            /// Full name.
            pub name: String,
            /// Short name, unique within the kind.
            pub alias: String,
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

plain! {
    /// Action specifications that tables share, with or without a selector.
    ActionProfile {
        /// The tables that use it.
        table_ids: Vec<u32>,
        /// Whether groups of members can be made.
        with_selector: bool,
        /// Members (or the sum of weights) in all.
        size: u64,
        /// The most members or weight in a group; 0 says nothing.
        max_group_size: u32,
    }
    /// An indexed counter.
    Counter {
        /// What it counts.
        unit: CounterUnit,
        /// Number of cells.
        size: u64,
    }
    /// A counter for each entry of a table.
    DirectCounter {
        /// What it counts.
        unit: CounterUnit,
        /// The table.
        table_id: u32,
    }
    /// An indexed meter.
    Meter {
        /// What it measures.
        unit: MeterUnit,
        /// Number of cells.
        size: u64,
    }
    /// A meter for each entry of a table.
    DirectMeter {
        /// What it measures.
        unit: MeterUnit,
        /// The table.
        table_id: u32,
    }
    /// An indexed register.
    Register {
        /// The type of a cell.
        data: DataType,
        /// Number of cells.
        size: u64,
    }
    /// A message from the data plane.
    Digest {
        /// The type of one message.
        data: DataType,
    }
    /// A parser value set.
    ValueSet {
        /// What a member is matched by.
        match_fields: Vec<MatchField>,
        /// The most members it can have.
        size: u64,
    }
    /// An instance of an extern that P4Runtime does not define.
    Extern {
        /// The id of the extern's type.
        type_id: u32,
        /// The name of the extern's type.
        type_name: String,
    }
}

macro_rules! named {
    ($($type:ident),*) => {$(
        impl Named for $type {
            const OBJECT: Object = Object::$type;
            fn id(&self) -> u32 {
                self.id
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn alias(&self) -> &str {
                &self.alias
            }
        }
    )*};
}

named!(
    Table,
    Action,
    ActionProfile,
    Counter,
    DirectCounter,
    Meter,
    DirectMeter,
    Register,
    Digest,
    ValueSet,
    PacketHeader,
    Extern
);

macro_rules! named_part {
    ($($type:ident),*) => {$(
        impl Named for $type {
            const OBJECT: Object = Object::$type;
            fn id(&self) -> u32 {
                self.id
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn alias(&self) -> &str {
                ""
            }
        }
    )*};
}

named_part!(MatchField, Param, PacketField);
