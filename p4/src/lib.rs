//! Domain types of shunt and one typed Rust file per P4 table.
