//! `shunt p4` against the embedded switch: every verb's output, against files.
//!
//! `UPDATE_GOLDEN=1` writes the files anew; look at the difference before it is committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod entries;
mod live;
mod state;
mod switch;
