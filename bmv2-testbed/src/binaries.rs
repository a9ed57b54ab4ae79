//! Where the programs of this workspace are: beside the running one.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// The path of a program built in this workspace (`shuntd`, `shunt`, `shunt-switch`,
/// `shunt-testbed`). Test programs are one folder below them.
pub fn find(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(Error::file("/proc/self/exe"))?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Other(format!(
                "the program {name} is not beside {}: run `cargo build --workspace --bins` first \
                 (`make demo` and `make test` do)",
                program.display()
            ))
        })
}

/// A program on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A program of a Debian package: on PATH, or where daemons are that a user's PATH leaves out.
pub fn installed(name: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| {
        ["/usr/sbin", "/sbin", "/usr/lib/frr"]
            .iter()
            .map(|folder| PathBuf::from(folder).join(name))
            .find(|file| file.is_file())
    })
}
