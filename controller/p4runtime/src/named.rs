//! Entities by name: a line of text, or a value that serializes, for every kind
//! of entity of P4Runtime.
//!
//! One line is one entity. What is shown is what is understood:
//!
//! ```text
//! table flow4 vpc=1 src=10.0.0.2 proto=6 … do flow4_snat vpc=1 src=203.0.113.10 --idle-timeout 30s
//! table acl src=10.0.0.0/8 dst_port=80..90 do punt reason=3 --priority 10
//! table ecmp group=1 do 2x send port=1 do 1x send port=2      (one-shot: weights)
//! table ecmp group=2 do group=7                               (or member=5)
//! default acl do drop
//! member ecmp_selector 5 do send port=1
//! group ecmp_selector 7 member=5 member=3x6 --max-size 4      (3x6: member 6, weight 3)
//! counter drops 3 --packets 5 --bytes 70
//! direct-counter flow4 vpc=1 … --packets 5 --bytes 70
//! meter limits 0 --cir 10 --cburst 5 --pir 20 --pburst 10
//! direct-meter acl port=1 --priority 10 --cir 10 --cburst 5 --pir 20 --pburst 10
//! register cells 3 --value 7
//! multicast 1 port=1 port=2:1                                 (2:1: port 2, instance 1)
//! clone 5 port=510 --length 128 --class 1
//! digest learn_t --max-timeout 1s --max-list 10 --ack-timeout 1s
//! value-set ethertypes type=0x800 or type=0x86dd
//! extern Cache.cache --type-url example.com/Entry --bytes-hex 0a0101
//! ```
//!
//! `->` is understood in place of `do`, which a shell would take for a
//! redirection, and the word `table` may be left out. Values are written as
//! [`parse_value`](crate::value::parse_value) and
//! [`parse_match`](crate::value::parse_match) say.
//!
//! ```
//! use p4runtime::named::{Named, Purpose, parse_line};
//! use p4runtime::p4info::P4InfoIndex;
//!
//! let index = P4InfoIndex::from_text(
//!     r#"
//!     tables {
//!       preamble { id: 1 name: "ingress.route" alias: "route" }
//!       match_fields { id: 1 name: "dst" bitwidth: 32 match_type: LPM }
//!       action_refs { id: 2 }
//!       size: 16
//!     }
//!     actions {
//!       preamble { id: 2 name: "ingress.send" alias: "send" }
//!       params { id: 1 name: "port" bitwidth: 9 }
//!     }
//!     "#,
//! )?;
//! let entity = parse_line("route dst=10.0.0.0/8 do send port=3", &index, Purpose::Write)?;
//! let shown = Named::of(&entity, &index)?.to_string();
//! assert_eq!(shown, "table route dst=10.0.0.0/8 do send port=3");
//! assert_eq!(
//!     parse_line("route dst=10.0.0.0/8 do send port=600", &index, Purpose::Write)
//!         .unwrap_err()
//!         .to_string(),
//!     "action \"send\", parameter \"port\": 600 is out of range: 9 bits hold 0 to 511"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod data;
mod error;
mod others;
mod packet;
mod parse;
mod show;
mod table;
mod view;
mod words;

pub use data::{format_data, parse_data};
pub use error::NamedError;
pub use packet::{packet_in_fields, packet_out};
pub use parse::{Purpose, parse_line, parse_words};

/// Names and values, in the program's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

/// An entity with names for ids and text for bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "entity", rename_all = "kebab-case"))]
pub enum Named {
    /// An entry of a table.
    Table(Entry),
    /// A table's default entry.
    Default(Entry),
    /// A member of an action profile.
    Member(Member),
    /// A group of an action profile.
    Group(Group),
    /// A cell of an indexed counter.
    Counter(CounterCell),
    /// The counter of a table's entry.
    DirectCounter(Entry),
    /// A cell of an indexed meter.
    Meter(MeterCell),
    /// The meter of a table's entry.
    DirectMeter(Entry),
    /// A cell of a register.
    Register(RegisterCell),
    /// A multicast group.
    Multicast(Multicast),
    /// A clone session.
    Clone(CloneSession),
    /// How digests are sent.
    Digest(DigestConfig),
    /// The members of a parser value set.
    ValueSet(ValueSetMembers),
    /// An entry of an extern that P4Runtime does not define.
    Extern(ExternEntry),
}

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    )*};
}

views! {
    /// An entry of a table; the rest of the key is the priority.
    Entry {
        /// The table.
        table: String,
        /// The match, don't-cares left out.
        #[cfg_attr(feature = "serde", serde(rename = "match"))]
        matches: Pairs,
        /// The action, if the entity carries it.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        action: Option<Choice>,
        /// 0 in tables without priorities.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_zero"))]
        priority: i32,
        /// Such as 30s.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        idle_timeout: Option<String>,
        /// Since the last packet that hit, where it was asked for.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        idle_for: Option<String>,
        /// The controller's own, in hex.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        metadata: Option<String>,
        /// The direct meter's rates.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        meter: Option<Rates>,
        /// The direct counter.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        counter: Option<Count>,
    }
    /// An action and its parameters.
    Call {
        /// The action.
        action: String,
        /// Its parameters.
        params: Pairs,
    }
    /// A member of a one-shot set.
    Weighted {
        /// Its share.
        weight: i32,
        /// The port whose state decides whether it is used.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        watch_port: Option<String>,
        /// The action.
        #[cfg_attr(feature = "serde", serde(flatten))]
        call: Call,
    }
    /// What was counted.
    Count {
        /// Packets.
        packets: i64,
        /// Bytes.
        bytes: i64,
    }
    /// A meter's rates a second and bursts, in its unit.
    Rates {
        /// Committed rate.
        cir: i64,
        /// Committed burst.
        cburst: i64,
        /// Peak rate.
        pir: i64,
        /// Peak burst.
        pburst: i64,
        /// Excess burst, of a single-rate meter.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_zero_64"))]
        eburst: i64,
    }
    /// A member of an action profile.
    Member {
        /// The action profile.
        profile: String,
        /// The member's id.
        id: u32,
        /// Its action.
        #[cfg_attr(feature = "serde", serde(flatten))]
        call: Option<Call>,
    }
    /// A group of an action profile.
    Group {
        /// The action profile.
        profile: String,
        /// The group's id.
        id: u32,
        /// Its members.
        members: Vec<GroupMember>,
        /// The most members or weight; 0 says nothing.
        max_size: i32,
    }
    /// A member of a group.
    GroupMember {
        /// The member's id.
        id: u32,
        /// Its share.
        weight: i32,
        /// The port whose state decides whether it is used.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
        watch_port: Option<String>,
    }
    /// A cell of an indexed counter.
    CounterCell {
        /// The counter.
        counter: String,
        /// Which cell; every one if it is missing.
        index: Option<i64>,
        /// What was counted.
        #[cfg_attr(feature = "serde", serde(flatten))]
        count: Option<Count>,
    }
    /// A cell of an indexed meter.
    MeterCell {
        /// The meter.
        meter: String,
        /// Which cell; every one if it is missing.
        index: Option<i64>,
        /// Its rates; without any, everything is green.
        #[cfg_attr(feature = "serde", serde(flatten))]
        rates: Option<Rates>,
    }
    /// A cell of a register.
    RegisterCell {
        /// The register.
        register: String,
        /// Which cell; every one if it is missing.
        index: Option<i64>,
        /// Its value.
        value: Option<String>,
    }
    /// A multicast group.
    Multicast {
        /// The group's id.
        id: u32,
        /// Where copies go: `port` or `port:instance`.
        ports: Vec<String>,
    }
    /// A clone session.
    CloneSession {
        /// The session's id.
        id: u32,
        /// Where copies go: `port` or `port:instance`.
        ports: Vec<String>,
        /// Bytes of a packet that are copied; 0 is all.
        length: i32,
        /// Class of service.
        class: u32,
    }
    /// How digests are sent.
    DigestConfig {
        /// The digest.
        digest: String,
        /// The longest that a digest waits for others.
        max_timeout: String,
        /// The most digests in a list.
        max_list: i32,
        /// How long the same digest is not sent again without an ack.
        ack_timeout: String,
    }
    /// The members of a parser value set.
    ValueSetMembers {
        /// The value set.
        value_set: String,
        /// The members.
        members: Vec<Pairs>,
    }
    /// An entry of an extern that P4Runtime does not define.
    ExternEntry {
        /// `Type.instance`.
        instance: String,
        /// The message's type.
        type_url: String,
        /// The message, in hex.
        bytes_hex: String,
    }
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(untagged))]
pub enum Choice {
    /// An action.
    Call(Call),
    /// A member of the table's action profile.
    Member {
        /// Its id.
        member: u32,
    },
    /// A group of the table's action profile.
    Group {
        /// Its id.
        group: u32,
    },
    /// Actions with weights, without ids.
    OneShot {
        /// The actions.
        one_shot: Vec<Weighted>,
    },
}

impl Pairs {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Pairs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(feature = "serde")]
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

#[cfg(feature = "serde")]
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero_64(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
