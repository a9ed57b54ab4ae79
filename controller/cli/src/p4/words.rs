//! An entity as words and options of the command line.

use p4runtime::named::{NamedError, Purpose, parse_words};
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::P4InfoIndex;

macro_rules! options {
    ($($(#[$doc:meta])* $field:ident = $name:literal, $value:literal;)*) => {
        /// The words of an entity and its options.
        #[derive(Debug, Default, clap::Args)]
        pub(crate) struct Words {
            /// TABLE FIELD=VALUE… do ACTION PARAM=VALUE…, or another entity (see the examples).
            #[arg(value_name = "WORD")]
            words: Vec<String>,
            $($(#[$doc])* #[arg(long = $name, value_name = $value, help_heading = "Entity", allow_hyphen_values = true)]
            $field: Option<String>,)*
        }

        impl Words {
            /// As one line, options behind.
            fn all(&self) -> Vec<String> {
                let mut all = self.words.clone();
                $(if let Some(value) = &self.$field {
                    all.extend([concat!("--", $name).to_owned(), value.clone()]);
                })*
                all
            }
        }
    };
}

options! {
    /// The entry's priority, from 1; the largest wins. In tables with ternary, range or optional fields.
    priority = "priority", "N";
    /// The switch reports the entry when no packet has hit it for so long, such as 30s.
    idle_timeout = "idle-timeout", "TIME";
    /// The controller's own bytes, kept with the entry.
    metadata = "metadata", "HEX";
    /// A meter's committed rate a second.
    cir = "cir", "N";
    /// A meter's committed burst.
    cburst = "cburst", "N";
    /// A meter's peak rate a second.
    pir = "pir", "N";
    /// A meter's peak burst.
    pburst = "pburst", "N";
    /// A single-rate meter's excess burst.
    eburst = "eburst", "N";
    /// A counter's packets.
    packets = "packets", "N";
    /// A counter's bytes.
    bytes = "bytes", "N";
    /// A register's value.
    value = "value", "VALUE";
    /// The most members or weight of a group.
    max_size = "max-size", "N";
    /// Bytes of a packet that a clone session copies; all without.
    length = "length", "BYTES";
    /// A clone session's class of service.
    class = "class", "N";
    /// The longest that a digest waits for others.
    max_timeout = "max-timeout", "TIME";
    /// The most digests in one list.
    max_list = "max-list", "N";
    /// How long the same digest is not sent again without an ack.
    ack_timeout = "ack-timeout", "TIME";
    /// An extern entry's message type.
    type_url = "type-url", "URL";
    /// An extern entry's message.
    bytes_hex = "bytes-hex", "HEX";
}

impl Words {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// The entity that they mean.
    pub(crate) fn entity(
        &self,
        index: &P4InfoIndex,
        purpose: Purpose,
    ) -> Result<pb::Entity, NamedError> {
        parse_words(&self.all(), index, purpose)
    }
}
