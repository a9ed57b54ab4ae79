//! The JSON that p4c's bmv2 backend writes, as it is on disk.
//!
//! Nothing here knows what the document means: [`crate::program`] resolves the names and refuses
//! what the switch cannot do. The format is described by bmv2's `JSON_format.md` (version 2.x).

mod hex;
mod model;

pub(crate) use hex::{HexError, big_integer_of, bytes_of, integer_of, low_ones};
pub(crate) use model::*;
