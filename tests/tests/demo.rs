//! The main job, end to end: the demo with fewer small downloads, on the embedded switch or, with
//! `SWITCH=bmv2`, on the real one; and what is left when it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{binaries, sandbox};

/// One at a time: a demo keeps two cores busy.
static ALONE: Mutex<()> = Mutex::new(());

fn demo(directory: &std::path::Path) -> Command {
    let mut command = Command::new(binaries::find("shunt-testbed").unwrap());
    command
        .args(["demo", "--small", "60", "--directory"])
        .arg(directory);
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_main_job_holds() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Err(error) = sandbox::available() {
        return sandbox::skip("the_main_job_holds", &error.to_string());
    }
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{text}\n{errors}\n{}",
        logs(directory.path())
    );
    assert!(text.contains("Report"), "{text}");
    assert!(!text.contains("FAIL"), "{text}");
}

/// A demo that is killed takes everything with it: no process, no interface, no namespace.
#[test]
fn a_killed_demo_leaves_nothing() {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Err(error) = sandbox::available() {
        return sandbox::skip("a_killed_demo_leaves_nothing", &error.to_string());
    }
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().display().to_string();
    let logs = tempfile::tempdir().unwrap();
    let mut service = Service::start("demo", logs.path(), demo(directory.path())).unwrap();
    service
        .wait_for_output("converged after", Duration::from_secs(60))
        .unwrap();
    assert!(
        !processes_with(&mark).is_empty(),
        "its processes are there while it runs"
    );
    // SIGKILL: nothing of its own can clean up.
    drop(service);
    let gone = wait_for("every process to end", Duration::from_secs(5), || {
        processes_with(&mark).is_empty()
    });
    assert!(gone.is_ok(), "left: {:?}", processes_with(&mark));
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("sh-wan"));
}

/// Process ids whose command line has a text.
fn processes_with(text: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            std::fs::read(path.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

fn logs(directory: &std::path::Path) -> String {
    ["shuntd", "switch"]
        .iter()
        .map(|name| {
            let path = directory.join(format!("{name}.log"));
            format!(
                "--- {name}\n{}\n",
                std::fs::read_to_string(path).unwrap_or_default()
            )
        })
        .collect()
}
