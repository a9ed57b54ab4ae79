//! Ways in which real servers depart from the specification, for clients to be tested against.

/// One departure; `--deviate` of `shunt-switch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Deviation {
    /// As simple_switch_grpc's server, PI: API 1.3.0, CONTINUE_ON_ERROR only, roles ignored,
    /// registers and value sets UNIMPLEMENTED, a read in one message, its own status codes,
    /// writes without an election id while no stream is open, and `promote`.
    Pi,
    /// A batch ends with its first error; the updates after it are ABORTED.
    FirstError,
    /// Values are sent zero-padded to their full width.
    PadBytes,
    /// When the primary leaves, the client with the highest election id takes its place.
    Promote,
}

/// The departures of one server; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deviations {
    /// See [`Deviation::Pi`].
    pub pi: bool,
    /// See [`Deviation::FirstError`].
    pub first_error: bool,
    /// See [`Deviation::PadBytes`].
    pub pad_bytes: bool,
    /// See [`Deviation::Promote`].
    pub promote: bool,
}

impl FromIterator<Deviation> for Deviations {
    fn from_iter<T: IntoIterator<Item = Deviation>>(deviations: T) -> Self {
        let mut all = Self::default();
        for deviation in deviations {
            match deviation {
                Deviation::Pi => all.pi = true,
                Deviation::FirstError => all.first_error = true,
                Deviation::PadBytes => all.pad_bytes = true,
                Deviation::Promote => all.promote = true,
            }
        }
        all
    }
}

impl Deviations {
    /// Whether a client takes the place of a primary that left, without being asked.
    pub(crate) fn promotes(self) -> bool {
        self.promote || self.pi
    }
}
