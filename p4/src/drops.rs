//! Why the switch drops packets: `DROP_*` of `include/headers.p4`, the index of its counter
//! [`COUNTER`].

/// The counter's alias in the P4Info.
pub const COUNTER: &str = "drops";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why the switch dropped a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum SwitchDrop { $($(#[$doc])* $name = $value,)* }

        impl SwitchDrop {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [SwitchDrop] = &[$(SwitchDrop::$name,)*];

            /// The reason of that index.
            pub const fn from_index(index: i64) -> Option<Self> {
                match index { $($value => Some(SwitchDrop::$name),)* _ => None }
            }

            /// Its name in output.
            pub const fn as_str(self) -> &'static str {
                match self { $(SwitchDrop::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than its headers.
    Parse = 1, "parse";
    /// Wrong IPv4 header checksum.
    Checksum = 2, "checksum";
    /// Port and tags are no interface's.
    Classify = 3, "classify";
    /// A shunt header that its sender may not write.
    ShuntHeader = 4, "shunt_header";
    /// For another station.
    NotForUs = 5, "not_for_us";
    /// An IP header that cannot be.
    Malformed = 6, "malformed";
    /// A blackhole route.
    Blackhole = 7, "blackhole";
    /// An egress interface that the switch does not know.
    NoEgress = 8, "no_egress";
    /// For software, which is not to see it.
    Punt = 9, "punt";
    /// For software, by more than its reason's meter lets through.
    Meter = 10, "meter";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_program() {
        let header = include_str!("../include/headers.p4");
        for reason in SwitchDrop::ALL {
            let name = format!("DROP_{}", reason.as_str().to_ascii_uppercase());
            let line = header
                .lines()
                .find(|line| line.split_whitespace().any(|word| word == name))
                .unwrap_or_else(|| panic!("{name}"));
            assert!(
                line.ends_with(&format!("= {};", *reason as u8)),
                "{name}: {line}"
            );
            assert_eq!(SwitchDrop::from_index(*reason as i64), Some(*reason));
        }
        let defined = header.matches("const bit<8> DROP_").count();
        assert_eq!(defined, SwitchDrop::ALL.len() + 1, "and DROP_NONE");
    }
}
