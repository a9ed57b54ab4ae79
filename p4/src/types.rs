//! Identifiers, each with its range; a value that exists is in range.

use std::fmt;
use std::str::FromStr;

/// A value out of its type's range, or text that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeError {
    what: &'static str,
    allowed: &'static str,
    given: String,
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} is not {}", self.what, self.given, self.allowed)
    }
}

impl std::error::Error for TypeError {}

/// Declares a number newtype: name, representation, what it is called, allowed range.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty), $what:literal, $min:literal..=$max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// The smallest value.
            pub const MIN: $name = $name($min);
            /// The largest value.
            pub const MAX: $name = $name($max);

            /// The number, if it is in range.
            pub const fn new(value: $repr) -> Option<Self> {
                #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
                if value >= $min && value <= $max { Some(Self(value)) } else { None }
            }

            /// The number itself.
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = TypeError;

            fn try_from(value: u64) -> Result<Self, TypeError> {
                <$repr>::try_from(value).ok().and_then(Self::new).ok_or_else(|| TypeError {
                    what: $what,
                    allowed: concat!("a number from ", $min, " to ", $max),
                    given: value.to_string(),
                })
            }
        }

        impl FromStr for $name {
            type Err = TypeError;

            fn from_str(text: &str) -> Result<Self, TypeError> {
                text.parse::<$repr>().ok().and_then(Self::new).ok_or_else(|| TypeError {
                    what: $what,
                    allowed: concat!("a number from ", $min, " to ", $max),
                    given: text.to_owned(),
                })
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let value = <u64 as serde::Deserialize>::deserialize(de)?;
                Self::try_from(value).map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number!(
    /// A virtual private cloud: one routing table, one address space. 0 is "none".
    VpcId(u16), "VPC id", 1..=65535
);
number!(
    /// A logical interface of the gateway: a port with or without tags, or a tunnel. 0 is "none".
    InterfaceId(u16), "interface id", 1..=65535
);
number!(
    /// A next hop as the switch knows it: an egress interface and perhaps a gateway.
    NexthopId(u32), "next hop id", 1..=4294967295
);
number!(
    /// A group of next hops that share a prefix's traffic (ECMP).
    EcmpGroupId(u16), "ECMP group id", 1..=65535
);
number!(
    /// A data-plane port of a switch (v1model: 9 bits; 511 is the drop port).
    SwitchPort(u16), "switch port", 0..=510
);
number!(
    /// A switch, by its place among those that a daemon started with, from 0.
    SwitchIndex(u8), "switch number", 0..=255
);
number!(
    /// A VLAN id that a frame may carry (IEEE 802.1Q: 0 and 4095 are reserved).
    VlanId(u16), "VLAN id", 1..=4094
);
number!(
    /// A VXLAN network identifier (RFC 7348: 24 bits).
    Vni(u32), "VNI", 1..=16777215
);

/// Switches of one daemon: each has rings to every worker, and a device of its own.
pub const MAX_SWITCHES: usize = 8;

impl SwitchIndex {
    /// The switch of an interface whose switch is configured, and comes with the daemon's next
    /// start: none that there is.
    pub const ABSENT: SwitchIndex = SwitchIndex::MAX;

    /// The one at that place. More than [`MAX_SWITCHES`] there are not.
    #[inline]
    pub fn of(place: usize) -> Self {
        let place = u8::try_from(place)
            .ok()
            .filter(|place| usize::from(*place) < MAX_SWITCHES);
        place.map_or(Self::ABSENT, Self)
    }

    /// Its place.
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

impl Default for SwitchIndex {
    /// The first.
    fn default() -> Self {
        Self::MIN
    }
}

/// A 48-bit Ethernet address, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether the group bit is set (IEEE 802.3: multicast and broadcast).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let error = || TypeError {
            what: "MAC address",
            allowed: "six hexadecimal bytes separated by colons",
            given: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        parts
            .next()
            .is_none()
            .then_some(MacAddr(bytes))
            .ok_or_else(error)
    }
}

impl serde::Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(de)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_at_both_ends() {
        assert!(VpcId::new(0).is_none());
        assert_eq!(VpcId::new(1), Some(VpcId::MIN));
        assert!(VlanId::new(4095).is_none());
        assert!(SwitchPort::new(511).is_none());
        assert!("16777216".parse::<Vni>().is_err());
        let error = VlanId::try_from(4095).unwrap_err();
        assert_eq!(
            error.to_string(),
            "VLAN id \"4095\" is not a number from 1 to 4094"
        );
    }

    #[test]
    fn mac_round_trips_and_rejects() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "+2:00:5e:10:00:ff",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
