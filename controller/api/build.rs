//! Compiles the proto with protox (no protoc needed) and generates messages, client, server
//! and the descriptor set. Messages serialise as JSON with the proto's field names.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;

const ROOT: &str = "proto";
const ENTRY: &str = "proto/shunt/v1/shunt.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let descriptors = protox::compile([ENTRY], [ROOT])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("shunt.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
