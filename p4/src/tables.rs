//! One typed Rust file per P4 table: key, action, entry, to and from P4Runtime.
//!
//! The declarations are checked against the P4Info when the crate builds: names, widths and
//! match kinds of keys, actions and parameters. Ids never appear by hand. What `from_entry`
//! accepts is what `to_entry` writes (zero padding apart): an entry that somebody else made
//! in a way that no type here can say is an error, for the reconciler to remove.

#[macro_use]
mod declare;
mod codec;
mod error;
mod flow;
mod mode;
mod show;
mod value;
mod wire;

/// Ids of tables, match fields, actions and parameters, from the P4Info.
#[allow(non_upper_case_globals)]
pub mod ids {
    include!(concat!(env!("OUT_DIR"), "/ids.rs"));
}

use p4runtime::p4::v1::TableEntry;

pub use error::TableError;
pub use flow::{flow_from_entry, flow_key_entry, flow_key_from_entry, flow_to_entry, is_flow};
pub use mode::Meter;
pub use show::{Names, Numbers, Shown, ShownAction};
pub use value::{P4Prefix, P4Value};
pub use wire::FlowUpdate;

/// A table's entry.
pub trait P4Table: Sized + Clone + PartialEq + std::fmt::Debug {
    /// The table's name: the P4Info's alias.
    const NAME: &'static str;
    /// The table's id.
    const ID: u32;
    /// What tells its entries apart: the match, with the priority where there is one.
    type Key: Copy + Eq + std::hash::Hash + std::fmt::Debug;

    /// The entry's key.
    fn key(&self) -> Self::Key;

    /// An entry with nothing but this key, for DELETE and reads.
    fn entry_of_key(key: &Self::Key) -> TableEntry;

    /// The key in words.
    fn shown_key(key: &Self::Key, names: &dyn Names) -> Shown;

    /// The entry in words.
    fn shown(&self, names: &dyn Names) -> Shown;

    /// The whole entry, for INSERT and MODIFY.
    fn to_entry(&self) -> TableEntry;

    /// The entry's key alone, for DELETE and reads.
    fn key_entry(&self) -> TableEntry {
        Self::entry_of_key(&self.key())
    }

    /// The reverse of [`P4Table::to_entry`].
    ///
    /// # Errors
    /// [`TableError`]: the entry is none that this type could have written.
    fn from_entry(entry: &TableEntry) -> Result<Self, TableError>;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident: $entry:ident, $($other:ident),*;)*) => {
        $(mod $table; pub use $table::{$entry, $($other),*};)*

        /// An entry of any table.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum AnyEntry {
            $($(#[$doc])* $entry($entry),)*
        }

        impl AnyEntry {
            /// Every table: name and id.
            pub const TABLES: &'static [(&'static str, u32)] =
                &[$((<$entry as P4Table>::NAME, <$entry as P4Table>::ID)),*];

            /// The whole entry, for INSERT and MODIFY.
            pub fn to_entry(&self) -> TableEntry {
                match self { $(Self::$entry(entry) => entry.to_entry(),)* }
            }

            /// The entry's key alone, for DELETE and reads.
            pub fn key_entry(&self) -> TableEntry {
                match self { $(Self::$entry(entry) => entry.key_entry(),)* }
            }

            /// The entry in words.
            pub fn shown(&self, names: &dyn Names) -> Shown {
                match self { $(Self::$entry(entry) => entry.shown(names),)* }
            }

            /// The entry's table.
            pub const fn table(&self) -> &'static str {
                match self { $(Self::$entry(_) => <$entry as P4Table>::NAME,)* }
            }

            /// The reverse of [`AnyEntry::to_entry`].
            ///
            /// # Errors
            /// [`TableError`]: no such table, or not an entry that its type could have written.
            pub fn from_entry(entry: &TableEntry) -> Result<Self, TableError> {
                match entry.table_id {
                    $(<$entry as P4Table>::ID => P4Table::from_entry(entry).map(Self::$entry),)*
                    id => Err(TableError::UnknownTable(id)),
                }
            }
        }

        /// A generic function for each table, with its name.
        #[cfg(test)]
        macro_rules! each_entry {
            ($function:ident) => {
                &[$((<$entry as P4Table>::NAME, $function::<$entry>)),*]
            };
        }
        #[cfg(test)]
        use each_entry;

        $(impl From<$entry> for AnyEntry {
            fn from(entry: $entry) -> Self {
                Self::$entry(entry)
            }
        })*
    };
}

tables! {
    /// Of `classify_port`.
    classify_port: ClassifyPort, ClassifyPortKey, ClassifyPortAction;
    /// Of `classify_vxlan`.
    classify_vxlan: ClassifyVxlan, ClassifyVxlanKey, ClassifyVxlanAction;
    /// Of `flow4`.
    flow4: Flow4, Flow4Key, Flow4Action;
    /// Of `flow6`.
    flow6: Flow6, Flow6Key, Flow6Action;
    /// Of `route4`.
    route4: Route4, Route4Key, Route4Action;
    /// Of `route6`.
    route6: Route6, Route6Key, Route6Action;
    /// Of `ecmp`.
    ecmp: Ecmp, EcmpKey, EcmpAction;
    /// Of `nexthop`.
    nexthop: NexthopEntry, NexthopKey, NexthopAction;
    /// Of `neighbor4`.
    neighbor4: Neighbor4, Neighbor4Key, Neighbor4Action;
    /// Of `neighbor6`.
    neighbor6: Neighbor6, Neighbor6Key, Neighbor6Action;
    /// Of `egress_interface`.
    egress_interface: EgressInterface, EgressInterfaceKey, EgressInterfaceAction;
    /// Of `punt`.
    punt: Punt, PuntKey, PuntAction;
}

fn same_table<T: P4Table>(entry: &TableEntry) -> Result<(), TableError> {
    if entry.table_id == T::ID {
        Ok(())
    } else {
        Err(TableError::OtherTable {
            table: T::NAME,
            id: entry.table_id,
        })
    }
}

fn no_priority(table: &'static str, entry: &TableEntry) -> Result<(), TableError> {
    match entry.priority {
        0 => Ok(()),
        value => Err(TableError::Number {
            table,
            what: "priority",
            value: i64::from(value),
        }),
    }
}

#[cfg(test)]
mod tests;
