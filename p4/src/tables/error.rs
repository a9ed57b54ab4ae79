//! What can be wrong with an entry that a switch sends.

/// A table entry that does not fit its type. Names are those of the P4Info.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// An entry of another table.
    #[error("table {table}: the entry is of the table with id {id:#x}")]
    OtherTable {
        /// The table that was expected.
        table: &'static str,
        /// The entry's table.
        id: u32,
    },
    /// An entry of no table that this crate knows.
    #[error("no table has id {0:#x}")]
    UnknownTable(u32),
    /// A match field or parameter that has to be there is not.
    #[error("table {table}: {field} is missing")]
    Missing {
        /// The table.
        table: &'static str,
        /// The match field or parameter.
        field: &'static str,
    },
    /// A match field or parameter that the table or action doesn't have, or that is there twice.
    #[error("table {table}: unknown or repeated {what} {id}")]
    Surplus {
        /// The table.
        table: &'static str,
        /// "match field" or "parameter".
        what: &'static str,
        /// Its id.
        id: u32,
    },
    /// A match field of another kind.
    #[error("table {table}: {field} is not a valid {kind} match")]
    MatchKind {
        /// The table.
        table: &'static str,
        /// The match field.
        field: &'static str,
        /// The kind it should have.
        kind: &'static str,
    },
    /// A value that is too large or that the type excludes.
    #[error("table {table}: {field} has no meaning with the value {value:02x?}")]
    Value {
        /// The table.
        table: &'static str,
        /// The match field or parameter.
        field: &'static str,
        /// The bytes received.
        value: Vec<u8>,
    },
    /// No action, or not of the kind that the table has.
    #[error("table {table}: the entry has no {expected}")]
    NoAction {
        /// The table.
        table: &'static str,
        /// "action" or "one-shot action set".
        expected: &'static str,
    },
    /// An action that the table doesn't have.
    #[error("table {table}: no action has id {id:#x}")]
    UnknownAction {
        /// The table.
        table: &'static str,
        /// The action.
        id: u32,
    },
    /// Priority, weight, idle timeout or meter rate out of range.
    #[error("table {table}: {what} {value} is out of range")]
    Number {
        /// The table.
        table: &'static str,
        /// Which one.
        what: &'static str,
        /// What it is.
        value: i64,
    },
}
