//! Our protos against the official bindings: every message, field, number, type,
//! enum value and method must be the same. The official ones come from PyPI, into
//! a directory of the test's own; without Python, pip or the index the test says
//! that it was skipped. `P4RUNTIME_REQUIRE_OFFICIAL=1` makes that a failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

/// The official package, of the version that our protos state.
const PACKAGE: &str = "p4runtime==1.6.0";
/// Fewer lines than this, and the script listed nothing worth comparing.
const LINES_MIN: usize = 500;

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn python(site: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", site)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The bindings were generated for an older protobuf than pip brings.
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    command
}

fn list(site: &Path, argument: Option<&Path>) -> Result<BTreeSet<String>, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/official_descriptors.py");
    let output = run(python(site).arg(script).args(argument))?;
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().map(str::to_owned).collect())
}

fn install(site: &Path) -> Result<(), String> {
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    let options = ["--retries", "1", "--timeout", "20", "--target"];
    run(python(site).args(pip).args(options).arg(site).arg(PACKAGE)).map(drop)
}

/// Says that the test was skipped, also to the summary of `make test`.
fn skip(why: &str) {
    use std::io::Write as _;
    println!("SKIPPED the_protos_are_the_official_ones: {why}");
    if let Some(path) = std::env::var_os("SHUNT_SKIPPED") {
        let options = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        writeln!(options.unwrap(), "the_protos_are_the_official_ones: {why}").unwrap();
    }
}

#[test]
fn the_protos_are_the_official_ones() {
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    if let Err(reason) = install(&site) {
        let required = std::env::var_os("P4RUNTIME_REQUIRE_OFFICIAL").is_some();
        assert!(!required, "{PACKAGE} is not to be had: {reason}");
        return skip(&format!("{PACKAGE} is not to be had: {reason}"));
    }
    let own = directory.path().join("own.bin");
    std::fs::write(&own, p4runtime::FILE_DESCRIPTOR_SET).unwrap();
    let official = list(&site, None).unwrap();
    let own = list(&site, Some(&own)).unwrap();

    assert!(official.len() > LINES_MIN, "{} lines only", official.len());
    let missing: Vec<_> = official.difference(&own).collect();
    let extra: Vec<_> = own.difference(&official).collect();
    assert!(missing.is_empty(), "the official protos have: {missing:#?}");
    assert!(extra.is_empty(), "our protos alone have: {extra:#?}");
}
