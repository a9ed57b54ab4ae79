//! Types of the data in registers and digests.

use std::collections::HashMap;

use crate::p4::config::v1 as pb;
use crate::value::Format;

/// How deep types may nest; P4 programs nest a few levels.
const DEPTH_MAX: usize = 16;

/// The type of a register's cells or of a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `bit<W>` or `int<W>`.
    Bits {
        /// Width in bits; 0 for a type that the controller sees as a string.
        bitwidth: u32,
        /// How values are shown.
        format: Format,
    },
    /// `varbit<W>`: hex and a length.
    Varbit {
        /// The most bits.
        bitwidth: u32,
    },
    /// `bool`.
    Bool,
    /// A tuple, its members without names.
    Tuple(Vec<DataType>),
    /// A struct's members, in order.
    Struct(Vec<(String, DataType)>),
    /// A header's members, in order.
    Header(Vec<(String, DataType)>),
    /// An enum's members.
    Enum(Vec<String>),
    /// The program's errors.
    Error(Vec<String>),
    /// A serializable enum: members and their values.
    Serializable {
        /// Width in bits.
        bitwidth: u32,
        /// Names and values.
        members: Vec<(String, Vec<u8>)>,
    },
    /// A type that has no text here, such as a header stack.
    Other(&'static str),
}

pub(super) type Types = pb::P4TypeInfo;

/// The type that a specification means. What is missing from the type
/// information is [`DataType::Other`]: it matters only to who uses it.
pub(super) fn data_type(spec: Option<&pb::P4DataTypeSpec>, types: &Types, name: &str) -> DataType {
    nested(spec, types, name, 0)
}

fn nested(spec: Option<&pb::P4DataTypeSpec>, types: &Types, name: &str, depth: usize) -> DataType {
    use pb::p4_data_type_spec::TypeSpec;
    const UNKNOWN: DataType = DataType::Other("type that the P4Info does not describe");
    let Some(spec) = spec.and_then(|spec| spec.type_spec.as_ref()) else {
        return UNKNOWN;
    };
    if depth > DEPTH_MAX {
        return DataType::Other("type that is nested too deep");
    }
    let inner = |spec: Option<&_>, name: &str| nested(spec, types, name, depth + 1);
    match spec {
        TypeSpec::Bitstring(bits) => bitstring(bits, name, None),
        TypeSpec::Bool(_) => DataType::Bool,
        TypeSpec::Tuple(tuple) => DataType::Tuple(
            tuple
                .members
                .iter()
                .map(|one| inner(Some(one), ""))
                .collect(),
        ),
        TypeSpec::Struct(named) => match types.structs.get(&named.name) {
            Some(found) => DataType::Struct(
                found
                    .members
                    .iter()
                    .map(|one| (one.name.clone(), inner(one.type_spec.as_ref(), &one.name)))
                    .collect(),
            ),
            None => UNKNOWN,
        },
        TypeSpec::Header(named) => match types.headers.get(&named.name) {
            Some(found) => {
                let member = |one: &pb::p4_header_type_spec::Member| {
                    let bits = one.type_spec.as_ref();
                    let bits = bits.map_or(UNKNOWN, |bits| bitstring(bits, &one.name, None));
                    (one.name.clone(), bits)
                };
                DataType::Header(found.members.iter().map(member).collect())
            }
            None => UNKNOWN,
        },
        TypeSpec::Enum(named) => match types.enums.get(&named.name) {
            Some(found) => {
                DataType::Enum(found.members.iter().map(|one| one.name.clone()).collect())
            }
            None => UNKNOWN,
        },
        TypeSpec::Error(_) => DataType::Error(
            types
                .error
                .as_ref()
                .map_or(Vec::new(), |all| all.members.clone()),
        ),
        TypeSpec::SerializableEnum(named) => match types.serializable_enums.get(&named.name) {
            Some(found) => {
                let members = found.members.iter();
                let underlying = found.underlying_type.as_ref();
                DataType::Serializable {
                    bitwidth: underlying.map_or(0, |bits| width(bits.bitwidth)),
                    members: members
                        .map(|one| (one.name.clone(), one.value.clone()))
                        .collect(),
                }
            }
            None => UNKNOWN,
        },
        TypeSpec::NewType(named) => {
            use pb::p4_new_type_spec::Representation;
            use pb::p4_new_type_translation::SdnType;
            let found = types.new_types.get(&named.name);
            match found.and_then(|found| found.representation.as_ref()) {
                Some(Representation::OriginalType(original)) => inner(Some(original), name),
                Some(Representation::TranslatedType(translated)) => {
                    let bitwidth = match translated.sdn_type {
                        Some(SdnType::SdnBitwidth(bits)) => width(bits),
                        _ => 0,
                    };
                    let format = Format::guess(bitwidth, name, Some(&named.name));
                    DataType::Bits { bitwidth, format }
                }
                None => UNKNOWN,
            }
        }
        TypeSpec::HeaderUnion(_) => DataType::Other("header union"),
        TypeSpec::HeaderStack(_) => DataType::Other("header stack"),
        TypeSpec::HeaderUnionStack(_) => DataType::Other("header union stack"),
    }
}

fn bitstring(bits: &pb::P4BitstringLikeTypeSpec, name: &str, type_name: Option<&str>) -> DataType {
    use pb::p4_bitstring_like_type_spec::TypeSpec;
    let bitwidth = match &bits.type_spec {
        Some(TypeSpec::Bit(bit)) => width(bit.bitwidth),
        Some(TypeSpec::Int(int)) => width(int.bitwidth),
        Some(TypeSpec::Varbit(varbit)) => {
            return DataType::Varbit {
                bitwidth: width(varbit.max_bitwidth),
            };
        }
        None => return DataType::Other("bit string without a width"),
    };
    let told = format_of(&bits.annotations, &bits.structured_annotations, bitwidth);
    DataType::Bits {
        bitwidth,
        format: told.unwrap_or_else(|| Format::guess(bitwidth, name, type_name)),
    }
}

fn width(bits: i32) -> u32 {
    u32::try_from(bits).unwrap_or(0)
}

/// The format that `@format(…)` asks for, if the width allows it.
pub(super) fn format_of(
    annotations: &[String],
    structured: &[pb::StructuredAnnotation],
    bitwidth: u32,
) -> Option<Format> {
    super::annotation::arguments("format", annotations, structured)
        .iter()
        .filter_map(|arguments| Format::by_annotation(arguments.first()?))
        .find(|format| format.fits(bitwidth))
}

/// The formats of the program's new types (`type bit<32> ipv4_addr_t`).
pub(super) fn new_type_formats(types: Option<&Types>) -> HashMap<String, Vec<Format>> {
    let Some(types) = types else {
        return HashMap::new();
    };
    let formats = |spec: &pb::P4NewTypeSpec| {
        super::annotation::arguments("format", &spec.annotations, &spec.structured_annotations)
            .iter()
            .filter_map(|arguments| Format::by_annotation(arguments.first()?))
            .collect()
    };
    let new_types = types.new_types.iter();
    new_types
        .map(|(name, spec)| (name.clone(), formats(spec)))
        .collect()
}
