//! Writes the hand-made inputs to `corpus/<target>/`, for a first run.

#[path = "../src/harness.rs"]
mod harness;

fn main() -> std::io::Result<()> {
    for (target, name, bytes) in harness::seeds() {
        let folder = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(format!("{folder}/{name}"), bytes)?;
    }
    Ok(())
}
