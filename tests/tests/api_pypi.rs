//! The daemon's API by a client that Python's grpcio generates from the proto. Without Python, pip
//! or the index, the test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pypi;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shunt_testbed::service::wait_for;
use shunt_testbed::topology::{SwitchKind, Topology};
use shunt_testbed::{Error, sandbox};

/// With what it needs, grpcio and protobuf among it.
const PACKAGE: &str = "grpcio-tools==1.85.1";

#[test]
fn a_generated_client_gets_what_the_proto_says() {
    const NAME: &str = "a_generated_client_gets_what_the_proto_says";
    // Inside there is no network: what was installed before is found.
    let site = match pypi::install(PACKAGE) {
        Ok(site) => site,
        Err(reason) => return sandbox::skip(NAME, &reason),
    };
    sandbox::test(NAME, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let _switch = topology.start_switch(SwitchKind::Embedded)?;
        let _daemon = topology.start_daemon()?;
        wait_for(
            "the daemon to report `converged`",
            Duration::from_secs(60),
            || {
                topology
                    .shunt(&["status"])
                    .is_ok_and(|status| status["converged"] == true)
            },
        )?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let generated = directory.path().join("generated");
        std::fs::create_dir(&generated).map_err(Error::file(&generated))?;
        let said = pypi::run(
            Command::new("python3")
                .arg(root.join("tests/tests/python/api.py"))
                .arg(root.join("controller/api/proto"))
                .arg(&generated)
                .arg(topology.socket())
                .env("PYTHONPATH", &site),
        );
        assert!(
            said.as_ref().is_ok_and(|said| said.contains("every call")),
            "{said:?}"
        );
        Ok(())
    });
}
