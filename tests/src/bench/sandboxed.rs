//! Benchmarks that need network namespaces of their own.

use shunt_testbed::sandbox;

use crate::report::{BenchError, Report};

/// A folder that goes with the sandbox.
pub(crate) const FOLDER: &str = "/run";

/// Runs this program again in a sandbox, where it measures, and takes over what it found.
pub(crate) fn run(
    name: &str,
    report: &mut Report,
    measure: fn(&mut Report) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    if sandbox::is_inside() {
        sandbox::prepare().map_err(BenchError::failed)?;
        return measure(report);
    }
    sandbox::available().map_err(|why| BenchError::Skipped(why.to_string()))?;
    let folder = std::env::temp_dir().join(format!("shunt-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(BenchError::failed)?;
    let arguments = [name.into(), "--out".into(), folder.clone().into()];
    let ended = sandbox::reexec(arguments, |_| {}).map_err(BenchError::failed);
    let found = ended.and_then(|status| match status.success() {
        true => report.adopt(&folder),
        false => Err(BenchError::failed(format!("in its sandbox: {status}"))),
    });
    let _ = std::fs::remove_dir_all(&folder);
    found
}
