//! What the user sees when there is no daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

fn shunt(socket: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shunt"))
        .arg("--socket")
        .arg(socket)
        .arg("status")
        .output()
        .unwrap()
}

#[test]
fn a_socket_that_is_missing_is_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let output = shunt(&socket);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains(socket.to_str().unwrap()) && said.contains("SHUNT_SOCKET"),
        "{said}"
    );
}

#[test]
fn a_socket_without_a_listener_is_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dead.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let output = shunt(&socket);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("nobody listens"), "{said}");
}

/// Regression: it waited for ever.
#[test]
fn a_daemon_that_hangs_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    // Accepted by the kernel, never read.
    let _listener = UnixListener::bind(&socket).unwrap();
    let output = shunt(&socket);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("does not answer"), "{said}");
}
