//! Why there is no session with the switch; each message names the switch and what to do.

use std::time::Duration;

use p4runtime::client::ClientError;

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Nobody answers there.
    #[error(
        "switch {name} at {address} could not be reached in {tried:?}: {source}; start its \
         P4Runtime server, or correct its address"
    )]
    Unreachable {
        /// The switch's name.
        name: String,
        /// Where it should be.
        address: String,
        /// For how long it was tried.
        tried: Duration,
        /// The last try's error.
        source: ClientError,
    },
    /// It answers, and refuses.
    #[error("switch {name} at {address}: {source}")]
    Refused {
        /// The switch's name.
        name: String,
        /// Where it is.
        address: String,
        /// In its words.
        source: ClientError,
    },
    /// It doesn't take our pipeline, and runs another one.
    #[error(
        "switch {name} at {address} does not run this shuntd's pipeline and does not take it: \
         {source}. {difference}. Load the shunt.json that belongs to this shuntd, or run the \
         shuntd that belongs to the switch's pipeline"
    )]
    Pipeline {
        /// The switch's name.
        name: String,
        /// Where it is.
        address: String,
        /// In its words.
        source: ClientError,
        /// How its P4Info differs from ours.
        difference: String,
    },
    /// Our own P4Info is broken: a faulty build.
    #[error("the P4Info in this binary cannot be read: {0}; build it anew")]
    OwnP4Info(String),
}
