//! Where everything is in the packet-state buffer.

use std::collections::HashMap;

use super::error::{LoadError, unsupported};
use crate::bits::{Field, GUARD_BYTES};
use crate::json;

/// The widest field that is accepted, in bits.
pub(crate) const MAX_FIELD_BITS: u64 = 2048;
/// The longest varbit field that is accepted, in bytes.
const MAX_VARBIT_BYTES: u32 = 2048;
/// The largest packet state that is accepted, in bytes.
const MAX_STATE_BYTES: usize = 1 << 20;

/// Bytes of packet state that [`crate::code`] reaches; a program with more runs in its written
/// form.
pub(crate) const PLACES: usize = 4096;
/// The shortest packet state: whatever place is read or written, 16 bytes from there exist.
pub(crate) const STATE_BYTES: usize = PLACES + 16;

/// Index of a header instance.
pub(crate) type HeaderIndex = usize;

/// One header instance, in wire layout without its varbit.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) name: String,
    /// Index of the header's type: headers of one type are laid out alike.
    pub(crate) kind: usize,
    pub(crate) metadata: bool,
    /// First byte in the buffer.
    pub(crate) start: usize,
    /// In bytes, without the varbit.
    pub(crate) fixed_bytes: usize,
    /// Index of the byte that is 1 while the header is valid.
    pub(crate) valid: usize,
    pub(crate) varbit: Option<Varbit>,
    /// Headers that become invalid when this one becomes valid (the same header union).
    pub(crate) siblings: Vec<HeaderIndex>,
}

/// A header's field of variable length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Varbit {
    /// Bits of the fixed part in front of it.
    pub(crate) before: usize,
    /// First byte of its value in the buffer.
    pub(crate) start: usize,
    /// The field that holds its present length, in bytes.
    pub(crate) length: Field,
    /// In bytes.
    pub(crate) max_bytes: usize,
}

/// A stack of headers or header unions; its elements follow each other in the buffer.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) first: HeaderIndex,
    pub(crate) len: usize,
    /// Headers of each element: 1, or the members of the union.
    pub(crate) members: usize,
    /// The members' names; none in a stack of headers.
    pub(crate) names: Vec<String>,
    /// Index of the byte that counts the elements pushed (`nextIndex`).
    pub(crate) next: usize,
    /// Bytes from one element to the next.
    pub(crate) stride: usize,
}

#[derive(Debug)]
struct Kind {
    /// Name, first bit within the header, width, sign. A varbit is not among them.
    fields: Vec<(String, usize, u16, bool)>,
    /// Of metadata: how many bytes each field has for itself (0: it shares them).
    own: Vec<u8>,
    bits: usize,
    /// Name, bits in front, longest in bytes.
    varbit: Option<(String, usize, usize)>,
    /// All field names in order (varbit included), for access by offset.
    order: Vec<String>,
}

/// The compiled layout.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    kinds: Vec<Kind>,
    pub(crate) headers: Vec<Header>,
    pub(crate) stacks: Vec<Stack>,
    /// Unions: name and members.
    pub(crate) unions: Vec<(String, Vec<HeaderIndex>)>,
    by_name: HashMap<String, HeaderIndex>,
    stack_by_name: HashMap<String, usize>,
    /// First byte of the area for action arguments.
    pub(crate) args_start: usize,
    /// Bytes of the buffer that are used.
    pub(crate) state_bytes: usize,
    /// The buffer at the start of a packet.
    pub(crate) template: Vec<u8>,
}

impl Layout {
    /// Lays the document's headers out.
    pub(crate) fn compile(doc: &json::Document) -> Result<Self, LoadError> {
        let mut layout = Self::default();
        let mut kind_by_name = HashMap::new();
        for kind in &doc.header_types {
            kind_by_name.insert(kind.name.as_str(), layout.kinds.len());
            layout.kinds.push(Kind::compile(kind)?);
        }
        let mut id_to_index = HashMap::new();
        for header in &doc.headers {
            let kind = *kind_by_name
                .get(header.header_type.as_str())
                .ok_or_else(|| LoadError::Unknown {
                    what: "header type",
                    name: header.header_type.clone(),
                    place: format!("header {}", header.name),
                })?;
            let index = layout.headers.len();
            id_to_index.insert(header.id, index);
            if layout.by_name.insert(header.name.clone(), index).is_some() {
                return Err(LoadError::Duplicate {
                    what: "header",
                    name: header.name.clone(),
                });
            }
            layout.headers.push(Header {
                name: header.name.clone(),
                kind,
                metadata: header.metadata,
                start: 0,
                fixed_bytes: layout.kinds.get(kind).map_or(0, |k| k.bits.div_ceil(8)),
                valid: 0,
                varbit: None,
                siblings: Vec::new(),
            });
        }
        layout.spread_metadata();
        layout.add_stacks(doc, &id_to_index)?;
        layout.add_unions(doc, &id_to_index)?;
        layout.place(doc)?;
        Ok(layout)
    }

    /// Metadata never goes on the wire: its fields get bytes of their own, so that they are read
    /// and written without a look at their neighbours.
    fn spread_metadata(&mut self) {
        for (index, kind) in self.kinds.iter_mut().enumerate() {
            let mut uses = self.headers.iter().filter(|h| h.kind == index).peekable();
            if uses.peek().is_some() && uses.all(|h| h.metadata) && kind.varbit.is_none() {
                kind.spread();
            }
        }
        for header in &mut self.headers {
            let kind = self.kinds.get(header.kind);
            header.fixed_bytes = kind.map_or(0, |k| k.bits.div_ceil(8));
        }
    }

    fn add_stacks(
        &mut self,
        doc: &json::Document,
        ids: &HashMap<u32, HeaderIndex>,
    ) -> Result<(), LoadError> {
        for stack in &doc.header_stacks {
            let members = resolve(&stack.header_ids, ids, "header stack", &stack.name)?;
            self.add_stack(&stack.name, &members, Vec::new())?;
        }
        for stack in &doc.header_union_stacks {
            let place = || format!("header union stack {}", stack.name);
            let unknown = |what, name: &dyn std::fmt::Display| LoadError::Unknown {
                what,
                name: name.to_string(),
                place: place(),
            };
            let mut types = doc.header_union_types.iter();
            let kind = types.find(|t| t.name == stack.union_type);
            let kind = kind.ok_or_else(|| unknown("header union type", &stack.union_type))?;
            let mut members = Vec::new();
            for id in &stack.header_union_ids {
                let union = doc.header_unions.iter().find(|u| u.id == *id);
                let union = union.ok_or_else(|| unknown("header union id", id))?;
                if union.header_ids.len() != kind.headers.len() {
                    return Err(LoadError::Malformed {
                        place: place(),
                        why: format!("union {} has other members than its type", union.name),
                    });
                }
                members.extend(resolve(
                    &union.header_ids,
                    ids,
                    "header union",
                    &union.name,
                )?);
            }
            let names = kind.headers.iter().map(|h| h.0.clone()).collect();
            self.add_stack(&stack.name, &members, names)?;
        }
        Ok(())
    }

    /// Adds a stack of headers, or of unions with members of these names. `headers` are those of
    /// all elements.
    fn add_stack(
        &mut self,
        name: &str,
        headers: &[HeaderIndex],
        names: Vec<String>,
    ) -> Result<(), LoadError> {
        let members = names.len().max(1);
        let malformed = |why: &str| LoadError::Malformed {
            place: format!("header stack {name}"),
            why: why.to_owned(),
        };
        let first = *headers
            .first()
            .ok_or_else(|| malformed("it has no element"))?;
        let len = headers.len() / members;
        let in_order = headers.iter().enumerate().all(|(i, h)| *h == first + i);
        if !in_order || len > 255 {
            return Err(unsupported(
                "header stack whose elements are not listed one after the other",
                name,
            ));
        }
        let kind = |i: usize| self.headers.get(first + i).map(|h| h.kind);
        if (0..headers.len()).any(|i| kind(i) != kind(i % members)) {
            return Err(malformed("its elements differ in type"));
        }
        self.stack_by_name
            .insert(name.to_owned(), self.stacks.len());
        self.stacks.push(Stack {
            first,
            len,
            members,
            names,
            next: 0,
            stride: 0,
        });
        Ok(())
    }

    fn add_unions(
        &mut self,
        doc: &json::Document,
        ids: &HashMap<u32, HeaderIndex>,
    ) -> Result<(), LoadError> {
        for union in &doc.header_unions {
            let members = resolve(&union.header_ids, ids, "header union", &union.name)?;
            for member in &members {
                if let Some(header) = self.headers.get_mut(*member) {
                    header.siblings = members.iter().copied().filter(|m| m != member).collect();
                }
            }
            self.unions.push((union.name.clone(), members));
        }
        Ok(())
    }

    /// Assigns places: validity flags, stack counters, headers, then action arguments.
    fn place(&mut self, doc: &json::Document) -> Result<(), LoadError> {
        let mut at = GUARD_BYTES;
        for header in &mut self.headers {
            header.valid = at;
            at += 1;
        }
        for stack in &mut self.stacks {
            stack.next = at;
            at += 1;
        }
        for header in &mut self.headers {
            header.start = at;
            at += header.fixed_bytes;
            let varbit = self.kinds.get(header.kind).and_then(|k| k.varbit.as_ref());
            if let Some((_, before, max_bytes)) = varbit {
                header.varbit = Some(Varbit {
                    before: *before,
                    start: at + 2,
                    length: Field::at(at * 8, 16, false),
                    max_bytes: *max_bytes,
                });
                at += 2 + max_bytes;
            }
        }
        for stack in &mut self.stacks {
            let first = self.headers.get(stack.first).map_or(0, |h| h.start);
            let second = self.headers.get(stack.first + stack.members);
            let second = second.map_or(first, |h| h.start);
            stack.stride = if stack.len > 1 { second - first } else { 0 };
        }
        self.args_start = at;
        let mut args = 0;
        for action in &doc.actions {
            let mut bytes: usize = 0;
            for datum in &action.runtime_data {
                if u64::from(datum.bitwidth) > MAX_FIELD_BITS {
                    return Err(unsupported(
                        "action parameter wider than 2048 bits",
                        format!("{} of action {}", datum.name, action.name),
                    ));
                }
                bytes += (datum.bitwidth as usize).div_ceil(8);
            }
            args = args.max(bytes);
        }
        // Headroom behind the last field keeps wide loads inside the buffer.
        let total = at + args + GUARD_BYTES;
        if total > MAX_STATE_BYTES {
            return Err(unsupported("packet state over 1 MiB", "the headers"));
        }
        self.state_bytes = total;
        self.template = vec![0; total.max(STATE_BYTES)];
        for header in &self.headers {
            if header.metadata
                && let Some(valid) = self.template.get_mut(header.valid)
            {
                *valid = 1;
            }
        }
        Ok(())
    }

    /// The header of this name.
    pub(crate) fn header(&self, name: &str, place: &str) -> Result<HeaderIndex, LoadError> {
        self.by_name
            .get(name)
            .copied()
            .ok_or_else(|| LoadError::Unknown {
                what: "header",
                name: name.to_owned(),
                place: place.to_owned(),
            })
    }

    /// The stack of this name.
    pub(crate) fn stack(&self, name: &str, place: &str) -> Result<usize, LoadError> {
        self.stack_by_name
            .get(name)
            .copied()
            .ok_or_else(|| LoadError::Unknown {
                what: "header stack",
                name: name.to_owned(),
                place: place.to_owned(),
            })
    }

    /// A stack, and which member of its elements has this name (none in a stack of headers).
    pub(crate) fn member(
        &self,
        stack: usize,
        member: &str,
        place: &str,
    ) -> Result<(&Stack, usize), LoadError> {
        let unknown = |what| LoadError::Unknown {
            what,
            name: member.to_owned(),
            place: place.to_owned(),
        };
        let stack = self.stacks.get(stack).ok_or_else(|| unknown("stack"))?;
        if stack.names.is_empty() && member.is_empty() {
            return Ok((stack, 0));
        }
        let found = stack.names.iter().position(|name| name == member);
        Ok((stack, found.ok_or_else(|| unknown("union member"))?))
    }

    /// The field of this name, or `$valid$`.
    pub(crate) fn field(&self, header: &str, field: &str, place: &str) -> Result<Field, LoadError> {
        let index = self.header(header, place)?;
        self.field_of(index, field).ok_or_else(|| {
            if self.is_varbit(index, field) {
                unsupported(
                    "use of a varbit field's value",
                    format!("{header}.{field} in {place}"),
                )
            } else {
                LoadError::Unknown {
                    what: "field",
                    name: format!("{header}.{field}"),
                    place: place.to_owned(),
                }
            }
        })
    }

    /// As [`Layout::field`], by index; none when there is no such field of fixed width.
    pub(crate) fn field_of(&self, index: HeaderIndex, field: &str) -> Option<Field> {
        let header = self.headers.get(index)?;
        if field == "$valid$" {
            return Some(Field::alone(header.valid, 1, 1, false));
        }
        let kind = self.kinds.get(header.kind)?;
        let position = kind.fields.iter().position(|f| f.0 == field)?;
        let (_, bit, width, signed) = kind.fields.get(position)?;
        let field = Field::at(header.start * 8 + bit, *width, *signed);
        let own = kind.own.get(position).copied().unwrap_or(0);
        Some(Field { own, ..field })
    }

    /// All fields of fixed width, in order.
    pub(crate) fn fields(&self, index: HeaderIndex) -> Vec<Field> {
        let kind = self.headers.get(index).and_then(|h| self.kinds.get(h.kind));
        let names = kind.into_iter().flat_map(|k| &k.fields).map(|f| &f.0);
        names.filter_map(|f| self.field_of(index, f)).collect()
    }

    /// The field at a position of the header's type, as `access_field` names it.
    pub(crate) fn field_at(&self, index: HeaderIndex, position: usize) -> Option<Field> {
        let kind = self.kinds.get(self.headers.get(index)?.kind)?;
        let name = kind.order.get(position)?.clone();
        self.field_of(index, &name)
    }

    /// Name, first bit and width of each field of a header that takes `bytes` on the wire.
    pub(crate) fn wire_fields(
        &self,
        index: HeaderIndex,
        bytes: usize,
    ) -> Vec<(String, usize, usize)> {
        let header = self.headers.get(index);
        let Some((header, kind)) = header.and_then(|h| Some((h, self.kinds.get(h.kind)?))) else {
            return Vec::new();
        };
        let varbit = bytes.saturating_sub(header.fixed_bytes) * 8;
        let mut at = 0;
        let mut fixed = kind.fields.iter();
        let fields = kind.order.iter().map(|name| {
            let bits = match &kind.varbit {
                Some((varbit_name, ..)) if varbit_name == name => varbit,
                _ => fixed.next().map_or(0, |f| usize::from(f.2)),
            };
            let from = at;
            at += bits;
            (name.clone(), from, bits)
        });
        fields.collect()
    }

    /// Whether this names the header's varbit field.
    pub(crate) fn is_varbit(&self, index: HeaderIndex, field: &str) -> bool {
        self.headers
            .get(index)
            .and_then(|h| self.kinds.get(h.kind))
            .and_then(|k| k.varbit.as_ref())
            .is_some_and(|v| v.0 == field)
    }
}

fn resolve(
    ids: &[u32],
    known: &HashMap<u32, HeaderIndex>,
    what: &'static str,
    name: &str,
) -> Result<Vec<HeaderIndex>, LoadError> {
    ids.iter()
        .map(|id| {
            known.get(id).copied().ok_or_else(|| LoadError::Unknown {
                what: "header id",
                name: id.to_string(),
                place: format!("{what} {name}"),
            })
        })
        .collect()
}

impl Kind {
    fn compile(kind: &json::HeaderType) -> Result<Self, LoadError> {
        let place = || format!("header type {}", kind.name);
        let malformed = |why: &str| LoadError::Malformed {
            place: place(),
            why: why.to_owned(),
        };
        let mut out = Self {
            fields: Vec::new(),
            own: Vec::new(),
            bits: 0,
            varbit: None,
            order: Vec::new(),
        };
        for field in &kind.fields {
            let name = field
                .first()
                .and_then(|v| v.as_str())
                .ok_or_else(|| malformed("a field has no name"))?
                .to_owned();
            out.order.push(name.clone());
            let width = field
                .get(1)
                .ok_or_else(|| malformed("a field has no width"))?;
            if field.get(3).and_then(|v| v.as_bool()) == Some(true) {
                return Err(unsupported(
                    "saturating field",
                    format!("{name} of {}", place()),
                ));
            }
            if width.as_str() == Some("*") {
                if out.varbit.is_some() {
                    return Err(malformed("it has two varbit fields"));
                }
                out.varbit = Some((name, out.bits, 0));
                continue;
            }
            let width = width
                .as_u64()
                .filter(|w| (1..=MAX_FIELD_BITS).contains(w))
                .ok_or_else(|| {
                    unsupported(
                        "field width other than 1 to 2048 bits",
                        format!("{name} of {}", place()),
                    )
                })?;
            let signed = field.get(2).and_then(|v| v.as_bool()).unwrap_or(false);
            out.fields.push((name, out.bits, width as u16, signed));
            out.bits += width as usize;
        }
        if let Some((_, _, max)) = &mut out.varbit {
            let whole = kind
                .max_length
                .ok_or_else(|| malformed("it has a varbit but no max_length"))?;
            if !out.bits.is_multiple_of(8) {
                return Err(unsupported(
                    "varbit beside fields that do not add up to whole bytes",
                    place(),
                ));
            }
            let fixed = (out.bits / 8) as u32;
            *max = whole
                .checked_sub(fixed)
                .filter(|m| *m <= MAX_VARBIT_BYTES)
                .ok_or_else(|| malformed("its max_length does not fit its fields"))?
                as usize;
        }
        Ok(out)
    }

    /// Gives each field bytes of its own: 1, 2, 4 or 8, or as many as it takes if it is longer.
    fn spread(&mut self) {
        let mut at = 0;
        for (_, bit, width, _) in &mut self.fields {
            let bytes = usize::from(*width).div_ceil(8);
            let own = if bytes <= 8 {
                bytes.next_power_of_two()
            } else {
                bytes
            };
            *bit = (at + own) * 8 - usize::from(*width);
            at += own;
            self.own.push(u8::try_from(own).unwrap_or(0));
        }
        self.bits = at * 8;
    }
}
