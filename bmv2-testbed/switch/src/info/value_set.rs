//! Binds parser value sets.

use p4runtime::p4::config::v1 as pb;

use super::bind::{match_kind, preamble, width_of};
use super::{FieldInfo, Info, ValueSetInfo};
use crate::program::Program;
use crate::program::error::{LoadError, malformed};

impl Info {
    pub(super) fn bind_value_sets(
        &mut self,
        p4info: &pb::P4Info,
        program: &Program,
    ) -> Result<(), LoadError> {
        for set in &p4info.value_sets {
            let head = preamble(&set.preamble, "value set")?;
            let place = format!("P4Info value set {}", head.name);
            let mut sets = program.value_sets.iter().enumerate();
            let Some((index, compiled)) = sets.find(|(_, s)| s.name == head.name) else {
                // The compiler leaves sets out of the JSON that no state uses.
                continue;
            };
            let mut fields = Vec::new();
            let mut key_bytes = 0;
            for (i, field) in set.r#match.iter().enumerate() {
                let part = compiled.parts.as_ref().and_then(|p| p.get(i)).copied();
                let width = match part {
                    // Enumerations have no width in the P4Info.
                    Some(part) if field.bitwidth == 0 => part,
                    _ => width_of(field.bitwidth, &format!("field {} of {place}", field.name))?,
                };
                let program_width = part.unwrap_or(width);
                let bytes = usize::from(program_width).div_ceil(8);
                fields.push(FieldInfo {
                    id: field.id,
                    name: field.name.clone(),
                    kind: match_kind(field, &place)?,
                    width,
                    offset: key_bytes,
                    bytes,
                    program_width,
                });
                key_bytes += bytes;
            }
            if let Some(parts) = &compiled.parts
                && parts.len() != fields.len()
            {
                return Err(malformed(
                    &place,
                    format!(
                        "it matches {} fields, the JSON's select {}",
                        fields.len(),
                        parts.len()
                    ),
                ));
            }
            let size = usize::try_from(set.size).ok().filter(|size| *size > 0);
            self.value_sets.insert(
                head.id,
                ValueSetInfo {
                    id: head.id,
                    name: head.name.clone(),
                    index,
                    fields,
                    size: size.unwrap_or(compiled.max_size).min(compiled.max_size),
                    key_bytes,
                },
            );
        }
        Ok(())
    }
}
