//! Checks the typed tables against the P4Info and writes the ids of both as constants.

use std::error::Error;
use std::path::PathBuf;

#[path = "build/check.rs"]
mod check;
#[path = "build/declared.rs"]
mod declared;

const P4INFO: &str = "shunt.p4info.txtpb";
const PIPELINE: &str = "shunt.json";

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
    let ids = match check::generate(&info, declared::DECLARED) {
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
