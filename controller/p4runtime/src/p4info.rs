//! The P4Info of a pipeline, parsed, checked and indexed by name and by id.
//!
//! ```
//! use p4runtime::p4info::{MatchKind, P4InfoIndex};
//!
//! let index = P4InfoIndex::from_text(
//!     r#"
//!     tables {
//!       preamble { id: 33554433 name: "ingress.flow4" alias: "flow4" }
//!       match_fields { id: 1 name: "dst" bitwidth: 32 match_type: LPM }
//!       size: 1024
//!     }
//!     "#,
//! )?;
//! let table = index.table("flow4")?;
//! assert_eq!(table.field("dst")?.kind, MatchKind::Lpm);
//! assert_eq!(
//!     index.table("flowx").unwrap_err().to_string(),
//!     "no table \"flowx\"; did you mean \"flow4\"?"
//! );
//! # Ok::<(), p4runtime::p4info::P4InfoError>(())
//! ```

mod annotation;
mod convert;
mod data;
mod error;
mod index;
mod model;
mod objects;
mod text;

pub use data::DataType;
pub use error::{Object, P4InfoError};
pub use index::P4InfoIndex;
pub use model::{
    Action, ActionProfile, ActionRef, ActionScope, Counter, Digest, DirectCounter, DirectMeter,
    Extern, MatchField, MatchKind, Meter, PacketField, PacketHeader, Param, Reference, ReferredTo,
    Register, Table, ValueSet,
};
pub(crate) use objects::nearest;
pub use text::{format_p4info_text, parse_p4info_text};

#[cfg(test)]
mod tests;
