//! Match fields and parameters, to and from messages; the macro `table!` is made of these.

use p4runtime::p4::v1::action::Param;
use p4runtime::p4::v1::field_match::{Exact, FieldMatchType, Lpm, Ternary};
use p4runtime::p4::v1::table_action::Type;
use p4runtime::p4::v1::{Action, FieldMatch, TableAction};

use super::error::TableError;
use super::value::{P4Prefix, P4Value, all_ones, canonical, number};

/// The match fields of an entry of `table`.
pub(crate) struct Fields<'a> {
    pub(crate) table: &'static str,
    pub(crate) matches: &'a [FieldMatch],
}

impl<'a> Fields<'a> {
    /// Refuses fields that are not among `known`, or there twice.
    pub(crate) fn new(
        table: &'static str,
        matches: &'a [FieldMatch],
        known: &[u32],
    ) -> Result<Self, TableError> {
        unique(
            table,
            "match field",
            matches.iter().map(|field| field.field_id),
            known,
        )?;
        Ok(Self { table, matches })
    }

    fn find(&self, id: u32) -> Option<&FieldMatchType> {
        self.matches
            .iter()
            .find(|field| field.field_id == id)?
            .field_match_type
            .as_ref()
    }
}

fn unique(
    table: &'static str,
    what: &'static str,
    ids: impl Iterator<Item = u32>,
    known: &[u32],
) -> Result<(), TableError> {
    let mut seen = 0_u64;
    for id in ids {
        let place = known.iter().position(|known| *known == id);
        match place {
            Some(place) if seen & 1 << place == 0 => seen |= 1 << place,
            _ => return Err(TableError::Surplus { table, what, id }),
        }
    }
    Ok(())
}

fn value<T: P4Value>(
    table: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<T, TableError> {
    number(bytes, T::BITS)
        .and_then(T::from_bits)
        .ok_or_else(|| TableError::Value {
            table,
            field,
            value: bytes.to_vec(),
        })
}

/// Exact matches.
pub(crate) mod exact {
    use super::*;

    pub(crate) const fn bits<T: P4Value>() -> u32 {
        T::BITS
    }

    pub(crate) fn push<T: P4Value>(matches: &mut Vec<FieldMatch>, id: u32, value: T) {
        let value = canonical(value.to_bits());
        matches.push(FieldMatch {
            field_id: id,
            field_match_type: Some(FieldMatchType::Exact(Exact { value })),
        });
    }

    pub(crate) fn take<T: P4Value>(
        fields: &Fields<'_>,
        field: &'static str,
        id: u32,
    ) -> Result<T, TableError> {
        let table = fields.table;
        match fields.find(id) {
            Some(FieldMatchType::Exact(exact)) => value(table, field, &exact.value),
            Some(_) => Err(TableError::MatchKind {
                table,
                field,
                kind: "exact",
            }),
            None => Err(TableError::Missing { table, field }),
        }
    }
}

/// Longest prefix matches; length 0 is left out.
pub(crate) mod lpm {
    use super::*;

    pub(crate) const fn bits<T: P4Prefix>() -> u32 {
        T::BITS
    }

    pub(crate) fn push<T: P4Prefix>(matches: &mut Vec<FieldMatch>, id: u32, prefix: T) {
        let (bits, length) = prefix.to_prefix();
        if length > 0 {
            let value = canonical(bits);
            let prefix_len = i32::from(length);
            matches.push(FieldMatch {
                field_id: id,
                field_match_type: Some(FieldMatchType::Lpm(Lpm { value, prefix_len })),
            });
        }
    }

    pub(crate) fn take<T: P4Prefix>(
        fields: &Fields<'_>,
        field: &'static str,
        id: u32,
    ) -> Result<T, TableError> {
        let table = fields.table;
        let kind = TableError::MatchKind {
            table,
            field,
            kind: "LPM",
        };
        let (bits, length, value) = match fields.find(id) {
            Some(FieldMatchType::Lpm(lpm)) if lpm.prefix_len > 0 => {
                let length = u8::try_from(lpm.prefix_len).map_err(|_| kind)?;
                (number(&lpm.value, T::BITS), length, lpm.value.as_slice())
            }
            None => (Some(0), 0, [].as_slice()),
            Some(_) => return Err(kind),
        };
        bits.and_then(|bits| T::from_prefix(bits, length))
            .ok_or_else(|| TableError::Value {
                table,
                field,
                value: value.to_vec(),
            })
    }
}

/// Ternary matches that are of the whole value, or left out.
pub(crate) mod ternary {
    use super::*;

    pub(crate) const fn bits<T: Whole>() -> u32 {
        <T::Value as P4Value>::BITS
    }

    /// An `Option` of a value.
    pub(crate) trait Whole {
        type Value: P4Value;
        fn get(self) -> Option<Self::Value>;
        fn from(value: Option<Self::Value>) -> Self;
    }

    impl<V: P4Value> Whole for Option<V> {
        type Value = V;
        fn get(self) -> Option<V> {
            self
        }
        fn from(value: Option<V>) -> Self {
            value
        }
    }

    pub(crate) fn push<T: Whole>(matches: &mut Vec<FieldMatch>, id: u32, value: T) {
        if let Some(value) = value.get() {
            let value = canonical(value.to_bits());
            let mask = canonical(all_ones(bits::<T>()));
            matches.push(FieldMatch {
                field_id: id,
                field_match_type: Some(FieldMatchType::Ternary(Ternary { value, mask })),
            });
        }
    }

    pub(crate) fn take<T: Whole>(
        fields: &Fields<'_>,
        field: &'static str,
        id: u32,
    ) -> Result<T, TableError> {
        let table = fields.table;
        match fields.find(id) {
            Some(FieldMatchType::Ternary(found))
                if number(&found.mask, bits::<T>()) == Some(all_ones(bits::<T>())) =>
            {
                value(table, field, &found.value).map(|value| T::from(Some(value)))
            }
            Some(_) => Err(TableError::MatchKind {
                table,
                field,
                kind: "ternary (whole value)",
            }),
            None => Ok(T::from(None)),
        }
    }
}

/// Adds a parameter.
pub(crate) fn push_param<T: P4Value>(params: &mut Vec<Param>, param_id: u32, value: T) {
    let value = canonical(value.to_bits());
    params.push(Param { param_id, value });
}

/// Refuses parameters that are not among `known`, or there twice.
pub(crate) fn check_params(
    table: &'static str,
    action: &Action,
    known: &[u32],
) -> Result<(), TableError> {
    unique(
        table,
        "parameter",
        action.params.iter().map(|param| param.param_id),
        known,
    )
}

/// A parameter of an action.
pub(crate) fn take_param<T: P4Value>(
    table: &'static str,
    action: &Action,
    field: &'static str,
    id: u32,
) -> Result<T, TableError> {
    let found = action.params.iter().find(|param| param.param_id == id);
    let param = found.ok_or(TableError::Missing { table, field })?;
    value(table, field, &param.value)
}

/// An entry's direct action, as a message.
pub(crate) fn direct(action: Action) -> Option<TableAction> {
    Some(TableAction {
        r#type: Some(Type::Action(action)),
    })
}

/// An entry's direct action.
pub(crate) fn take_direct<'a>(
    table: &'static str,
    action: &'a Option<TableAction>,
) -> Result<&'a Action, TableError> {
    match action.as_ref().and_then(|action| action.r#type.as_ref()) {
        Some(Type::Action(action)) => Ok(action),
        _ => Err(TableError::NoAction {
            table,
            expected: "action",
        }),
    }
}
