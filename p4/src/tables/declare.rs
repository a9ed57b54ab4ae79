//! The macro `table!`: from a declaration to key, action and entry types.
//!
//! `build.rs` reads the same declarations with a macro of the same name and checks them against
//! the P4Info; here the declared widths are checked against the Rust types.

macro_rules! table {
    (
        $(#[$table_doc:meta])*
        $table:ident => $entry:ident, $mode:ident;
        $(#[$key_doc:meta])*
        key $key:ident {
            $($(#[$field_doc:meta])* $field:ident: $field_type:ty = $kind:ident $bits:literal),* $(,)?
        }
        $(#[$actions_doc:meta])*
        action $actions:ident {
            $($(#[$action_doc:meta])* $variant:ident = $action:ident $({
                $($(#[$param_doc:meta])* $param:ident: $param_type:ty = $param_bits:literal),* $(,)?
            })?),* $(,)?
        }
    ) => {
        #[allow(unused_imports)]
        use std::net::{Ipv4Addr, Ipv6Addr};
        #[allow(unused_imports)]
        use ipnet::{Ipv4Net, Ipv6Net};
        use p4runtime::p4::v1::{self as pb, FieldMatch, TableEntry};
        #[allow(unused_imports)]
        use crate::frame::PuntReason;
        #[allow(unused_imports)]
        use crate::types::{
            EcmpGroupId, InterfaceId, MacAddr, NexthopId, SwitchPort, VlanId, Vni, VpcId,
        };
        use super::codec;
        use super::error::TableError;
        use super::ids::$table as ids;
        use super::P4Table;
        use super::show::{Names, Show as _, Shown, ShownAction};

        $(const _: () = assert!(
            codec::$kind::bits::<$field_type>() == $bits,
            concat!("table ", stringify!($table), " key ", stringify!($field), ": ",
                stringify!($field_type), " is not ", $bits, " bits wide"),
        );)*
        $($($(const _: () = assert!(
            codec::exact::bits::<$param_type>() == $param_bits,
            concat!("table ", stringify!($table), " action ", stringify!($action), " parameter ",
                stringify!($param), ": ", stringify!($param_type), " is not ", $param_bits,
                " bits wide"),
        );)*)?)*

        const NAME: &str = stringify!($table);

        $(#[$key_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $key {
            $($(#[$field_doc])* pub $field: $field_type,)*
        }

        impl $key {
            const IDS: &'static [u32] = &[$(ids::key::$field),*];

            /// The match fields, don't-care ones left out.
            pub fn to_matches(&self) -> Vec<FieldMatch> {
                let mut matches = Vec::with_capacity(Self::IDS.len());
                $(codec::$kind::push(&mut matches, ids::key::$field, self.$field);)*
                matches
            }

            /// The reverse.
            ///
            /// # Errors
            /// [`TableError`]: a field is missing, unknown, of another kind or out of range.
            pub fn from_matches(matches: &[FieldMatch]) -> Result<Self, TableError> {
                let fields = codec::Fields::new(NAME, matches, Self::IDS)?;
                Ok(Self {
                    $($field: codec::$kind::take(&fields, stringify!($field), ids::key::$field)?,)*
                })
            }

            /// The fields by name, their values in words.
            pub fn shown(&self, names: &dyn Names) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), self.$field.show(names))),*]
            }
        }

        $(#[$actions_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $actions {
            $($(#[$action_doc])* $variant $({ $($(#[$param_doc])* $param: $param_type,)* })?,)*
        }

        impl $actions {
            /// The action with its parameters.
            pub fn to_action(&self) -> pb::Action {
                #[allow(unused_mut)]
                let mut params = Vec::new();
                let action_id = match *self {
                    $(Self::$variant $({ $($param,)* })? => {
                        $($(codec::push_param(&mut params, ids::action::$action::$param, $param);)*)?
                        ids::action::$action::ID
                    })*
                };
                pb::Action { action_id, params }
            }

            /// The reverse.
            ///
            /// # Errors
            /// [`TableError`]: another action, or a parameter is missing, unknown or out of range.
            pub fn from_action(action: &pb::Action) -> Result<Self, TableError> {
                match action.action_id {
                    $(ids::action::$action::ID => {
                        codec::check_params(NAME, action, &[$($(ids::action::$action::$param),*)?])?;
                        Ok(Self::$variant $({
                            $($param: codec::take_param(
                                NAME, action, stringify!($param), ids::action::$action::$param,
                            )?,)*
                        })?)
                    })*
                    id => Err(TableError::UnknownAction { table: NAME, id }),
                }
            }

            /// The action by name, its parameters in words.
            #[allow(unused_variables)]
            pub fn shown(&self, names: &dyn Names) -> ShownAction {
                match *self {
                    $(Self::$variant $({ $($param,)* })? => ShownAction {
                        name: stringify!($action),
                        params: vec![$($((stringify!($param), $param.show(names))),*)?],
                        weight: None,
                    },)*
                }
            }
        }

        entry! { $mode; $(#[$table_doc])* $entry, $key, $actions }

        #[cfg(test)]
        impl super::tests::Sample for $key {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                Self { $($field: super::tests::$kind(draw),)* }
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for $actions {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                let makers: &[fn(&mut dyn FnMut() -> u128) -> Self] = &[
                    $(|_draw| Self::$variant $({ $($param: super::tests::exact(_draw),)* })?,)*
                ];
                makers[draw() as usize % makers.len()](draw)
            }
        }
    };
}

/// The entry type, by what it has besides key and action (see `mode.rs`).
macro_rules! entry {
    (plain; $(#[$doc:meta])* $entry:ident, $key:ident, $actions:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $entry {
            /// The match.
            pub key: $key,
            /// The action.
            pub action: $actions,
        }

        key_entry! { $key }

        impl P4Table for $entry {
            const NAME: &'static str = NAME;
            const ID: u32 = ids::ID;
            type Key = $key;

            fn to_entry(&self) -> TableEntry {
                TableEntry { action: codec::direct(self.action.to_action()), ..self.key_entry() }
            }

            fn key(&self) -> $key {
                self.key
            }

            fn entry_of_key(key: &$key) -> TableEntry {
                key.to_key_entry()
            }

            fn shown_key(key: &$key, names: &dyn Names) -> Shown {
                Shown::new(NAME, key.shown(names))
            }

            fn shown(&self, names: &dyn Names) -> Shown {
                Shown { actions: vec![self.action.shown(names)], ..Self::shown_key(&self.key, names) }
            }

            fn from_entry(entry: &TableEntry) -> Result<Self, TableError> {
                super::same_table::<Self>(entry)?;
                super::no_priority(NAME, entry)?;
                Ok(Self {
                    key: $key::from_matches(&entry.r#match)?,
                    action: $actions::from_action(codec::take_direct(NAME, &entry.action)?)?,
                })
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for $entry {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                Self { key: $key::sample(draw), action: $actions::sample(draw) }
            }
        }
    };
    (idle_timeout; $(#[$doc:meta])* $entry:ident, $key:ident, $actions:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $entry {
            /// The match.
            pub key: $key,
            /// The action.
            pub action: $actions,
            /// The switch reports the entry when no packet has hit it for so long; 0: never.
            pub idle_timeout: std::time::Duration,
        }

        key_entry! { $key }

        impl P4Table for $entry {
            const NAME: &'static str = NAME;
            const ID: u32 = ids::ID;
            type Key = $key;

            fn to_entry(&self) -> TableEntry {
                TableEntry {
                    action: codec::direct(self.action.to_action()),
                    idle_timeout_ns: super::mode::idle_to_ns(self.idle_timeout),
                    ..self.key_entry()
                }
            }

            fn key(&self) -> $key {
                self.key
            }

            fn entry_of_key(key: &$key) -> TableEntry {
                key.to_key_entry()
            }

            fn shown_key(key: &$key, names: &dyn Names) -> Shown {
                Shown::new(NAME, key.shown(names))
            }

            fn shown(&self, names: &dyn Names) -> Shown {
                let timeout = (self.idle_timeout > std::time::Duration::ZERO)
                    .then(|| ("idle_timeout", super::show::duration(self.idle_timeout)));
                Shown {
                    actions: vec![self.action.shown(names)],
                    properties: timeout.into_iter().collect(),
                    ..Self::shown_key(&self.key, names)
                }
            }

            fn from_entry(entry: &TableEntry) -> Result<Self, TableError> {
                super::same_table::<Self>(entry)?;
                super::no_priority(NAME, entry)?;
                Ok(Self {
                    key: $key::from_matches(&entry.r#match)?,
                    action: $actions::from_action(codec::take_direct(NAME, &entry.action)?)?,
                    idle_timeout: super::mode::idle_from_ns(NAME, entry.idle_timeout_ns)?,
                })
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for $entry {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                Self {
                    key: $key::sample(draw),
                    action: $actions::sample(draw),
                    idle_timeout: std::time::Duration::from_nanos(draw() as u64 >> 1),
                }
            }
        }
    };
    (metered; $(#[$doc:meta])* $entry:ident, $key:ident, $actions:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $entry {
            /// The match.
            pub key: $key,
            /// Of the entries that match, the one with the largest counts; part of the key.
            pub priority: std::num::NonZeroU16,
            /// The action.
            pub action: $actions,
            /// The entry's meter; none: everything is green.
            pub meter: Option<super::Meter>,
        }

        impl P4Table for $entry {
            const NAME: &'static str = NAME;
            const ID: u32 = ids::ID;
            type Key = ($key, std::num::NonZeroU16);

            fn to_entry(&self) -> TableEntry {
                TableEntry {
                    action: codec::direct(self.action.to_action()),
                    meter_config: self.meter.map(super::Meter::to_config),
                    ..self.key_entry()
                }
            }

            fn key(&self) -> Self::Key {
                (self.key, self.priority)
            }

            fn entry_of_key((key, priority): &Self::Key) -> TableEntry {
                TableEntry {
                    table_id: ids::ID,
                    r#match: key.to_matches(),
                    priority: i32::from(priority.get()),
                    ..Default::default()
                }
            }

            fn shown_key((key, priority): &Self::Key, names: &dyn Names) -> Shown {
                Shown { priority: Some(priority.get()), ..Shown::new(NAME, key.shown(names)) }
            }

            fn shown(&self, names: &dyn Names) -> Shown {
                let meter = self.meter.map(|meter| ("meter", meter.to_string()));
                Shown {
                    actions: vec![self.action.shown(names)],
                    properties: meter.into_iter().collect(),
                    ..Self::shown_key(&self.key(), names)
                }
            }

            fn from_entry(entry: &TableEntry) -> Result<Self, TableError> {
                super::same_table::<Self>(entry)?;
                let meter = entry.meter_config.as_ref();
                Ok(Self {
                    key: $key::from_matches(&entry.r#match)?,
                    priority: super::mode::priority(NAME, entry.priority)?,
                    action: $actions::from_action(codec::take_direct(NAME, &entry.action)?)?,
                    meter: meter.map(|meter| super::Meter::from_config(NAME, meter)).transpose()?,
                })
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for $entry {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                Self {
                    key: $key::sample(draw),
                    priority: std::num::NonZeroU16::new(draw() as u16 | 1).unwrap(),
                    action: $actions::sample(draw),
                    meter: (draw() & 1 == 1).then(|| super::Meter {
                        committed_rate: draw() as u32,
                        committed_burst: draw() as u32,
                        peak_rate: draw() as u32,
                        peak_burst: draw() as u32,
                    }),
                }
            }
        }
    };
    (members; $(#[$doc:meta])* $entry:ident, $key:ident, $actions:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $entry {
            /// The match.
            pub key: $key,
            /// Actions and their weights, at least one member.
            pub members: Vec<($actions, std::num::NonZeroU16)>,
        }

        key_entry! { $key }

        impl P4Table for $entry {
            const NAME: &'static str = NAME;
            const ID: u32 = ids::ID;
            type Key = $key;

            fn to_entry(&self) -> TableEntry {
                let members = self.members.iter();
                let members = members.map(|(action, weight)| (action.to_action(), *weight));
                TableEntry { action: Some(super::mode::action_set(members)), ..self.key_entry() }
            }

            fn key(&self) -> $key {
                self.key
            }

            fn entry_of_key(key: &$key) -> TableEntry {
                key.to_key_entry()
            }

            fn shown_key(key: &$key, names: &dyn Names) -> Shown {
                Shown::new(NAME, key.shown(names))
            }

            fn shown(&self, names: &dyn Names) -> Shown {
                let members = self.members.iter();
                let actions = members.map(|(action, weight)| ShownAction {
                    weight: Some(weight.get()),
                    ..action.shown(names)
                });
                Shown { actions: actions.collect(), ..Self::shown_key(&self.key, names) }
            }

            fn from_entry(entry: &TableEntry) -> Result<Self, TableError> {
                super::same_table::<Self>(entry)?;
                super::no_priority(NAME, entry)?;
                let members = super::mode::take_action_set(NAME, &entry.action)?;
                let members = members.into_iter();
                Ok(Self {
                    key: $key::from_matches(&entry.r#match)?,
                    members: members
                        .map(|(action, weight)| Ok(($actions::from_action(action)?, weight)))
                        .collect::<Result<_, TableError>>()?,
                })
            }
        }

        #[cfg(test)]
        impl super::tests::Sample for $entry {
            fn sample(draw: &mut dyn FnMut() -> u128) -> Self {
                let members = (0..=draw() % 16).map(|_| {
                    let weight = std::num::NonZeroU16::new(draw() as u16 | 1).unwrap();
                    ($actions::sample(draw), weight)
                });
                Self { members: members.collect(), key: $key::sample(draw) }
            }
        }
    };
}

/// The entry that a DELETE or a read names, where no priority is part of it.
macro_rules! key_entry {
    ($key:ident) => {
        impl $key {
            /// An entry with nothing but this key: what DELETE needs.
            pub fn to_key_entry(&self) -> TableEntry {
                TableEntry {
                    table_id: ids::ID,
                    r#match: self.to_matches(),
                    ..Default::default()
                }
            }
        }
    };
}
