//! Namespaces of its own for a whole run: user (unless root), network, mount and process.
//!
//! The first process inside is number 1 of its process namespace: when it ends, or whoever
//! started it is killed, the kernel ends all others and the network namespaces, interfaces and
//! mounts go with them. Nothing of the host's own network is touched.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitStatus};

use crate::error::{Error, Result};
use crate::netns::run;

/// Set inside a sandbox.
const MARK: &str = "SHUNT_SANDBOX";

/// Whether this process runs inside a sandbox.
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether this process's user ids are mapped one by one, as in a sandbox that was not made by
/// root (`user_namespaces(7)`).
pub fn is_in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().nth(2) == Some("1"))
}

fn unshare() -> Command {
    // setpriv: the sandbox dies with its parent even when that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command
}

/// Why no sandbox can be made here; `Ok` when one can.
pub fn available() -> Result<()> {
    let output = unshare()
        .arg("true")
        .output()
        .map_err(|source| Error::Start {
            program: "setpriv and unshare".into(),
            source,
            remedy: "install the package util-linux",
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Other(format!(
        "namespaces are not allowed here ({}); run as root or allow unprivileged user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1)",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Runs this very program again, inside a sandbox, with these arguments, and waits for it.
///
/// `started` is told the process id by which `nsenter --all --target` finds the sandbox.
pub fn reexec(
    arguments: impl IntoIterator<Item = OsString>,
    started: impl FnOnce(u32),
) -> Result<ExitStatus> {
    available()?;
    let mut child = this_program(arguments)?.spawn().map_err(unstarted)?;
    started(child.id());
    child.wait().map_err(unstarted)
}

/// This very program, to be run inside a sandbox.
fn this_program(arguments: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let program = std::env::current_exe().map_err(Error::file("/proc/self/exe"))?;
    let mut command = unshare();
    command.arg(program).args(arguments).env(MARK, "1");
    Ok(command)
}

fn unstarted(source: std::io::Error) -> Error {
    Error::Start {
        program: "unshare".into(),
        source,
        remedy: "install the package util-linux",
    }
}

/// To be called first inside: a private `/run` for `ip netns`, and loopback up.
pub fn prepare() -> Result<()> {
    run("mount -t tmpfs tmpfs /run")?;
    fs::create_dir_all("/run/netns").map_err(Error::file("/run/netns"))?;
    run("ip link set lo up")
}

/// Runs the body of a test inside a sandbox: called outside, it starts the test binary again
/// for that one test; called inside, it runs the body. Where namespaces are not allowed, the
/// test is skipped, which is said on standard output and in the file that the environment
/// variable `SHUNT_SKIPPED` names.
///
/// # Panics
/// When the test fails inside.
#[allow(clippy::panic)] // this is the assertion of a test
pub fn test(name: &str, body: impl FnOnce() -> Result<()>) {
    if is_inside() {
        if let Err(error) = prepare().and_then(|()| body()) {
            panic!("{name}: {error}");
        }
        return;
    }
    if let Err(error) = available() {
        skip(name, &error.to_string());
        return;
    }
    // An ignored test that runs was asked for: it must not be ignored inside.
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    // Its output is shown only with a failure, or to who asks: the counts in it are not of this run.
    let output = this_program(arguments.map(OsString::from))
        .and_then(|mut command| command.output().map_err(unstarted));
    match output {
        // A name without its module, say, names no test, and none cannot fail.
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 0 tests") => {
            panic!("no test is named {name}");
        }
        Ok(output) if output.status.success() => {
            if std::env::args().any(|argument| argument == "--nocapture") {
                print!("{}", String::from_utf8_lossy(&output.stdout));
            }
        }
        Ok(output) => panic!(
            "{name}: failed in its sandbox ({})\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Says that a test was skipped, and why; the summary of `make test` repeats it.
pub fn skip(name: &str, why: &str) {
    use std::io::Write;
    // The summary counts lines, and what a program said may be several.
    let why = why.trim().replace('\n', "; ");
    println!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("SHUNT_SKIPPED") {
        // In one write: tests are skipped side by side.
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) =
            file.and_then(|mut file| file.write_all(format!("{name}: {why}\n").as_bytes()))
        {
            println!("cannot note that it was skipped: {error}");
        }
    }
}
