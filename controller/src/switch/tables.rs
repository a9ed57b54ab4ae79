//! All tables of the switch but the flows, each with its type: books and readings.

use p4runtime::p4::v1::{Entity, TableEntry, entity};
use shunt_p4::tables::{
    AnyEntry, ClassifyPort, ClassifyVxlan, Ecmp, EgressInterface, Meter, Neighbor4, Neighbor6,
    NexthopEntry, P4Table, Punt, Route4, Route6, TableError, is_flow,
};

use super::book::Book;

/// Declares a struct for what is kept for each table, in the order of dependency: what comes
/// later leads to what comes earlier, and lets traffic in last.
macro_rules! tables {
    ($($field:ident: $entry:ident,)*) => {
        /// What is wanted of each table, and where the switch differs.
        #[derive(Debug, Default)]
        pub(super) struct Books {
            $(pub(super) $field: Book<$entry>,)*
        }

        /// What a switch holds.
        #[derive(Debug, Default)]
        pub(crate) struct Reading {
            $(pub(super) $field: Vec<$entry>,)*
            /// Entries that no type of ours can say.
            pub(super) foreign: Vec<(TableEntry, TableError)>,
        }

        impl Reading {
            /// Takes an entry as the switch sent it. What the program itself put into a table
            /// is nobody's to change, and flows are the offload engine's.
            pub(crate) fn add(&mut self, raw: TableEntry) {
                if raw.is_const || raw.is_default_action || is_flow(&raw) {
                    return;
                }
                match raw.table_id {
                    $($entry::ID => match $entry::from_entry(&raw) {
                        Ok(entry) => self.$field.push(entry),
                        Err(error) => self.foreign.push((raw, error)),
                    },)*
                    id => self.foreign.push((raw, TableError::UnknownTable(id))),
                }
            }

            /// Entries in all.
            pub(crate) fn len(&self) -> usize {
                0 $(+ self.$field.len())* + self.foreign.len()
            }

            /// The question that it answers: all entries of our tables, with their meters.
            pub(crate) fn question() -> Vec<Entity> {
                vec![$(wildcard($entry::ID)),*]
            }
        }

        /// Names the tables, for code that does the same with each.
        macro_rules! each_table {
            ($do:ident) => { $($do!($field, $entry);)* };
        }
        pub(super) use each_table;

        /// Which table.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Table {
            $($field,)*
        }

        impl Books {
            /// Notes a wanted entry.
            pub(super) fn set(&mut self, entry: AnyEntry) {
                match entry {
                    $(AnyEntry::$entry(entry) => self.$field.set(entry),)*
                    AnyEntry::Flow4(_) | AnyEntry::Flow6(_) => {}
                }
            }

            /// Notes that an entry is not wanted.
            pub(super) fn unset(&mut self, entry: &AnyEntry) {
                match entry {
                    $(AnyEntry::$entry(entry) => self.$field.unset(&entry.key()),)*
                    AnyEntry::Flow4(_) | AnyEntry::Flow6(_) => {}
                }
            }
        }
    };
}

tables! {
    egress_interface: EgressInterface,
    neighbor4: Neighbor4,
    neighbor6: Neighbor6,
    punt: Punt,
    nexthop: NexthopEntry,
    ecmp: Ecmp,
    route4: Route4,
    route6: Route6,
    classify_port: ClassifyPort,
    classify_vxlan: ClassifyVxlan,
}

/// A switch says meters only when it is asked for them (P4Runtime 9.1).
fn wildcard(table_id: u32) -> Entity {
    Entity {
        entity: Some(entity::Entity::TableEntry(TableEntry {
            table_id,
            meter_config: (table_id == Punt::ID).then(Meter::wanted),
            ..Default::default()
        })),
    }
}
