//! P4Info in protobuf text format, which is what p4c writes.

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::P4InfoError;
use crate::p4::config::v1::P4Info;

/// Reads a P4Info in protobuf text format (`.txtpb`).
///
/// # Errors
/// [`P4InfoError::Text`] with the place and the reason.
pub fn parse_p4info_text(text: &str) -> Result<P4Info, P4InfoError> {
    DynamicMessage::parse_text_format(descriptor()?, text)
        .map_err(|error| P4InfoError::Text(locate(text, &error)))?
        .transcode_to()
        .map_err(|error| P4InfoError::Text(error.to_string()))
}

/// Writes a P4Info in protobuf text format, one field a line.
///
/// # Errors
/// [`P4InfoError::Descriptors`], which a test rules out.
pub fn format_p4info_text(info: &P4Info) -> Result<String, P4InfoError> {
    let mut message = DynamicMessage::new(descriptor()?);
    message
        .transcode_from(info)
        .map_err(|error| P4InfoError::Descriptors(error.to_string()))?;
    let options = prost_reflect::text_format::FormatOptions::new().pretty(true);
    Ok(message.to_text_format_with_options(&options))
}

fn descriptor() -> Result<MessageDescriptor, P4InfoError> {
    DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET)
        .map_err(|error| P4InfoError::Descriptors(error.to_string()))?
        .get_message_by_name("p4.config.v1.P4Info")
        .ok_or_else(|| P4InfoError::Descriptors("p4.config.v1.P4Info is missing".to_owned()))
}

/// The parser's reason with the line it is about, where it names one.
fn locate(text: &str, error: &prost_reflect::text_format::ParseError) -> String {
    use miette::Diagnostic as _;
    let line = error
        .labels()
        .and_then(|mut labels| labels.next())
        .and_then(|label| text.get(..label.offset()))
        .map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {error}"),
        None => error.to_string(),
    }
}
