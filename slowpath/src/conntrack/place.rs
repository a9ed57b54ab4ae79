//! Whether a connection is in hardware, and in whose.

use shunt_p4::{MAX_SWITCHES, SwitchIndex};

/// Where a connection's two entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[repr(u8)]
pub enum Offload {
    /// Not in hardware.
    Software,
    /// Asked for.
    Installing,
    /// Both acknowledged.
    Installed,
    /// To be removed, as soon as the queue has room.
    RemoveQueued,
    /// Removal asked for.
    Removing,
}

impl Offload {
    /// Its name in output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Offload::Software => "software",
            Offload::Installing => "installing",
            Offload::Installed => "installed",
            Offload::RemoveQueued | Offload::Removing => "removing",
        }
    }
}

/// A connection's place in hardware, in a byte: [`Offload`], and above it the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u8);

const SWITCH_SHIFT: u8 = 4;
/// Bits of the switch; all of them: none.
const SWITCH: u8 = 0xf0;
const _: () = assert!(MAX_SWITCHES < (SWITCH >> SWITCH_SHIFT) as usize);

impl Place {
    /// In software, and on no switch so far.
    pub const SOFTWARE: Self = Self(SWITCH);

    /// Where its entries are.
    #[inline]
    pub const fn offload(self) -> Offload {
        match self.0 & !SWITCH {
            0 => Offload::Software,
            1 => Offload::Installing,
            2 => Offload::Installed,
            3 => Offload::RemoveQueued,
            _ => Offload::Removing,
        }
    }

    /// See [`Place::offload`].
    #[inline]
    pub const fn set_offload(&mut self, offload: Offload) {
        self.0 = self.0 & SWITCH | offload as u8;
    }

    /// Whether its entries are in hardware, or on their way.
    #[inline]
    pub const fn is_in_hardware(self) -> bool {
        matches!(self.0 & !SWITCH, 1 | 2)
    }

    /// The switch that its entries are on, or were last; absent as long as there were none.
    #[inline]
    pub fn switch(self) -> SwitchIndex {
        SwitchIndex::of(usize::from(self.0 >> SWITCH_SHIFT))
    }

    /// See [`Place::switch`].
    pub fn set_switch(&mut self, switch: SwitchIndex) {
        let switch = switch.get().min(SWITCH >> SWITCH_SHIFT);
        self.0 = self.0 & !SWITCH | switch << SWITCH_SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_are_kept_apart() {
        let mut place = Place::SOFTWARE;
        assert_eq!(
            (place.offload(), place.switch()),
            (Offload::Software, SwitchIndex::ABSENT)
        );
        let all = [
            Offload::Software,
            Offload::Installing,
            Offload::Installed,
            Offload::RemoveQueued,
            Offload::Removing,
        ];
        let switches = (0..MAX_SWITCHES).map(SwitchIndex::of);
        for switch in switches.chain([SwitchIndex::ABSENT]) {
            place.set_switch(switch);
            for offload in all {
                place.set_offload(offload);
                assert_eq!((place.offload(), place.switch()), (offload, switch));
                let there = matches!(offload, Offload::Installing | Offload::Installed);
                assert_eq!(place.is_in_hardware(), there);
            }
        }
    }
}
