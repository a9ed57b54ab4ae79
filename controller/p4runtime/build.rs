//! Compiles the protos with protox (no protoc needed) and generates messages,
//! the service's client and server, and the descriptor set.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;

const ROOT: &str = "proto";
const ENTRY: &str = "proto/p4/v1/p4runtime.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");

    let descriptors = protox::compile([ENTRY], [ROOT])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("p4runtime.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .client_mod_attribute("p4.v1", "#[cfg(feature = \"client\")]")
        .server_mod_attribute("p4.v1", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
