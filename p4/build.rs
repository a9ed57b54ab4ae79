//! Checks the typed tables against the P4Info and writes the ids of both as constants.
//!
//! The declarations are the very `table!` invocations of `src/tables`: here the macro yields
//! data, in the crate it yields types.

use std::error::Error;
use std::path::PathBuf;

#[path = "build/check.rs"]
mod check;

const P4INFO: &str = "shunt.p4info.txtpb";
const PIPELINE: &str = "shunt.json";

macro_rules! table {
    (
        $(#[$table_doc:meta])*
        $table:ident => $entry:ident, $mode:ident;
        $(#[$key_doc:meta])*
        key $key:ident {
            $($(#[$field_doc:meta])* $field:ident: $field_type:ty = $kind:ident $bits:literal),* $(,)?
        }
        $(#[$actions_doc:meta])*
        action $actions:ident {
            $($(#[$action_doc:meta])* $variant:ident = $action:ident $({
                $($(#[$param_doc:meta])* $param:ident: $param_type:ty = $param_bits:literal),* $(,)?
            })?),* $(,)?
        }
    ) => {
        pub(super) const DECLARED: super::check::Table = super::check::Table {
            name: stringify!($table),
            mode: stringify!($mode),
            fields: &[$((stringify!($field), stringify!($kind), $bits)),*],
            actions: &[$(super::check::Action {
                name: stringify!($action),
                params: &[$($((stringify!($param), $param_bits)),*)?],
            }),*],
        };
    };
}

macro_rules! declared {
    ($($path:literal $table:ident;)*) => {
        $(#[path = $path] mod $table;)*
        const DECLARED: &[check::Table] = &[$($table::DECLARED),*];
    };
}

declared! {
    "src/tables/classify_port.rs" classify_port;
    "src/tables/classify_vxlan.rs" classify_vxlan;
    "src/tables/ecmp.rs" ecmp;
    "src/tables/egress_interface.rs" egress_interface;
    "src/tables/flow4.rs" flow4;
    "src/tables/flow6.rs" flow6;
    "src/tables/neighbor4.rs" neighbor4;
    "src/tables/neighbor6.rs" neighbor6;
    "src/tables/nexthop.rs" nexthop;
    "src/tables/punt.rs" punt;
    "src/tables/route4.rs" route4;
    "src/tables/route6.rs" route6;
}

/// FNV-1a, 64 bits: stable across machines and compilers.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    for input in [P4INFO, PIPELINE, "build", "build.rs", "src/tables"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let text = std::fs::read_to_string(P4INFO)?;
    let info = p4runtime::p4info::parse_p4info_text(&text)?;
    let ids = match check::generate(&info, DECLARED) {
        Ok(ids) => ids,
        Err(faults) => {
            for fault in &faults {
                println!("cargo::error={fault}");
            }
            return Err("the types in src/tables do not fit shunt.p4info.txtpb".into());
        }
    };
    let cookie = hash(
        hash(0xcbf2_9ce4_8422_2325, text.as_bytes()),
        &std::fs::read(PIPELINE)?,
    );
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("ids.rs"), ids)?;
    std::fs::write(out.join("cookie.rs"), format!("{cookie:#x}_u64"))?;
    Ok(())
}
