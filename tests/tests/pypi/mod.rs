//! Packages of PyPI, kept below `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program prints; what it says when it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stdout) + &text(&output.stderr)),
    }
}

/// Where a package and what it needs are, installed now or before.
pub(crate) fn install(package: &str) -> Result<PathBuf, String> {
    try_install(package).map_err(|reason| {
        // pip's last line says why.
        let why = reason.lines().last().unwrap_or_default();
        format!("{package} is not to be had: {why}")
    })
}

fn try_install(package: &str) -> Result<PathBuf, String> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pypi");
    let site = cache.join(package);
    if site.is_dir() {
        return Ok(site);
    }
    std::fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    let fresh = tempfile::tempdir_in(&cache).map_err(|error| error.to_string())?;
    let pip = ["-m", "pip", "install", "--quiet"];
    let options = ["--disable-pip-version-check", "--retries", "1"];
    let mut command = Command::new("python3");
    command.args(pip).args(options).args(["--timeout", "20"]);
    run(command.arg("--target").arg(fresh.path()).arg(package))?;
    // Another test may have been quicker: its result is as good.
    let renamed = std::fs::rename(fresh.path(), &site);
    match renamed {
        Ok(()) => Ok(site),
        Err(_) if site.is_dir() => Ok(site),
        Err(error) => Err(error.to_string()),
    }
}
