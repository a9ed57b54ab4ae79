//! A set of objects of one kind, found by id, full name or alias.

use std::collections::HashMap;

use super::{Object, P4InfoError};

/// How alike two names must be (0 to 1) for one to be suggested for the other.
const SUGGEST_ABOVE: f64 = 0.6;
/// How many names are shown to who asked for one that none is like.
const KNOWN_SHOWN_MAX: usize = 8;

/// What identifies an object within its kind.
pub(super) trait Named {
    const OBJECT: Object;
    fn id(&self) -> u32;
    fn name(&self) -> &str;
    /// Empty where the kind has none.
    fn alias(&self) -> &str;
}

#[derive(Clone, Debug, Default)]
pub(super) struct Objects<T> {
    items: Vec<T>,
    by_id: HashMap<u32, usize>,
    by_name: HashMap<String, usize>,
}

impl<T: Named> Objects<T> {
    pub(super) fn new(items: Vec<T>) -> Result<Self, P4InfoError> {
        let mut by_id = HashMap::with_capacity(items.len());
        let mut by_name = HashMap::with_capacity(2 * items.len());
        for (at, item) in items.iter().enumerate() {
            if by_id.insert(item.id(), at).is_some() {
                return Err(P4InfoError::DuplicateId {
                    object: T::OBJECT,
                    name: item.name().to_owned(),
                    id: item.id(),
                });
            }
            for name in [item.name(), item.alias()] {
                // An alias may be the name itself, but never another's.
                let other = match name {
                    "" => None,
                    name => by_name.insert(name.to_owned(), at),
                };
                if other.is_some_and(|other| other != at) {
                    return Err(P4InfoError::DuplicateName {
                        object: T::OBJECT,
                        name: name.to_owned(),
                    });
                }
            }
        }
        Ok(Self {
            items,
            by_id,
            by_name,
        })
    }

    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    pub(super) fn by_id(&self, id: u32) -> Result<&T, P4InfoError> {
        self.by_id
            .get(&id)
            .and_then(|at| self.items.get(*at))
            .ok_or(P4InfoError::UnknownId {
                object: T::OBJECT,
                id,
                owner: None,
            })
    }

    pub(super) fn by_name(&self, name: &str) -> Result<&T, P4InfoError> {
        self.by_name
            .get(name)
            .and_then(|at| self.items.get(*at))
            .ok_or_else(|| unknown_name(T::OBJECT, name, None, self.items.iter()))
    }
}

/// Finds a part (match field, parameter) of `owner` by name.
pub(super) fn part_by_name<'a, T: Named>(
    parts: &'a [T],
    name: &str,
    owner: impl FnOnce() -> String,
) -> Result<&'a T, P4InfoError> {
    parts
        .iter()
        .find(|part| part.name() == name)
        .ok_or_else(|| unknown_name(T::OBJECT, name, Some(owner()), parts.iter()))
}

/// Finds a part (match field, parameter) of `owner` by id.
pub(super) fn part_by_id<T: Named>(
    parts: &[T],
    id: u32,
    owner: impl FnOnce() -> String,
) -> Result<&T, P4InfoError> {
    // Parts are few, and p4c numbers them from 1 in order.
    let guess = (id as usize).checked_sub(1).and_then(|at| parts.get(at));
    guess
        .filter(|part| part.id() == id)
        .or_else(|| parts.iter().find(|part| part.id() == id))
        .ok_or_else(|| P4InfoError::UnknownId {
            object: T::OBJECT,
            id,
            owner: Some(owner()),
        })
}

fn unknown_name<'a, T: Named + 'a>(
    object: Object,
    name: &str,
    owner: Option<String>,
    items: impl Iterator<Item = &'a T> + Clone,
) -> P4InfoError {
    let aliases = items.clone().map(|item| match item.alias() {
        "" => item.name().to_owned(),
        alias => alias.to_owned(),
    });
    let known: Vec<String> = aliases.take(KNOWN_SHOWN_MAX + 1).collect();
    let names = items.flat_map(|item| [item.alias(), item.name()]);
    let suggestion = nearest(name, names).map(str::to_owned);
    P4InfoError::UnknownName {
        object,
        name: name.to_owned(),
        owner,
        suggestion,
        known: Some(known).filter(|known| known.len() <= KNOWN_SHOWN_MAX),
    }
}

/// The known name that is most like this one, if any is like it.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .filter(|known| !known.is_empty())
        .map(|known| (strsim::normalized_damerau_levenshtein(known, name), known))
        .filter(|(likeness, _)| *likeness >= SUGGEST_ABOVE)
        // The first of equals: the order of the program.
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, known)| known)
}
