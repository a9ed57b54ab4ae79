//! How the daemon starts, fails to start, and stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{SwitchKind, Topology};
use shunt_testbed::{Error, Result, binaries, sandbox};

/// Runs `shuntd` until it ends; returns what it said. It has to fail, in words.
fn refused(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: "shuntd".into(),
            source,
            remedy: "",
        })?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.status.success(), "it should have failed: {said}");
    assert_eq!(output.status.signal(), None, "{said}");
    assert!(
        !said.contains("panicked") && !said.contains("stack backtrace"),
        "{said}"
    );
    Ok(said)
}

fn shuntd(arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries::find("shuntd").unwrap());
    command.args(arguments);
    command
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("bad.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_missing_configuration_is_named() {
    let said = refused(shuntd(&["--config", "/nonexistent/shunt.toml"])).unwrap();
    assert!(said.contains("/nonexistent/shunt.toml"), "{said}");
}

#[test]
fn every_fault_of_a_configuration_is_named_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s.sock");
    let text = shunt_testbed::topology::configuration(&socket)
        .replace("vlan = 20", "vlan = 4095")
        .replacen("vpc = \"green\"", "vpc = \"grean\"", 1);
    let said = refused(shuntd(&["--config", &write(directory.path(), &text)])).unwrap();
    assert!(said.contains("4095"), "{said}");
    let text = shunt_testbed::topology::configuration(&socket)
        .replacen("vpc = \"green\"", "vpc = \"grean\"", 1)
        .replacen("underlay = \"fabric\"", "underlay = \"fabrik\"", 1);
    let said = refused(shuntd(&["--config", &write(directory.path(), &text)])).unwrap();
    assert!(said.contains("grean") && said.contains("fabrik"), "{said}");
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let said = refused(shuntd(&[
        "--config",
        &write(directory.path(), "[daemon]\nx = = 1\n"),
    ]))
    .unwrap();
    assert!(
        said.contains("bad.toml") && said.contains("line 2"),
        "{said}"
    );
}

#[test]
fn an_unreachable_switch_is_named() {
    sandbox::test("an_unreachable_switch_is_named", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let configuration = topology.write_configuration()?;
        let mut command = topology
            .gw
            .command(&binaries::find("shuntd")?.to_string_lossy());
        command
            .arg("--config")
            .arg(configuration)
            .args(["--switch-timeout", "1s"]);
        let said = refused(command)?;
        assert!(
            said.contains("127.0.0.1:9559") && said.contains("sw1"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn a_device_that_does_not_exist_is_named() {
    sandbox::test("a_device_that_does_not_exist_is_named", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let path = topology.write_configuration()?;
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        std::fs::write(&path, text.replace("\"sp0\"", "\"nosuch0\""))
            .map_err(Error::file(&path))?;
        let mut command = topology
            .gw
            .command(&binaries::find("shuntd")?.to_string_lossy());
        command.arg("--config").arg(path);
        let said = refused(command)?;
        assert!(said.contains("nosuch0"), "{said}");
        Ok(())
    });
}

#[test]
fn a_switch_port_that_does_not_exist_is_named() {
    sandbox::test("a_switch_port_that_does_not_exist_is_named", || {
        let mut command = Command::new(binaries::find("shunt-switch")?);
        command.args([
            "-i",
            "1@nosuch1",
            "--no-p4",
            "--",
            "--grpc-server-addr",
            "127.0.0.1:0",
        ]);
        let said = refused(command)?;
        assert!(said.contains("nosuch1"), "{said}");
        Ok(())
    });
}

/// What Prometheus gets: the P4Runtime clients' and the offload engine's metrics, by their
/// documented names.
#[test]
fn the_metrics_are_served() {
    sandbox::test("the_metrics_are_served", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let _switch = topology.start_switch(SwitchKind::from_environment())?;
        let _daemon = topology.start_daemon()?;
        let ask = "exec 3<>/dev/tcp/127.0.0.1/9464; \
                   printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let of = "{address=\"127.0.0.1:9559\",device=\"1\"";
        let wanted = [
            format!("\np4runtime_client_primary{of}}} 1\n"),
            format!("\np4runtime_client_streams_opened_total{of}}} 1\n"),
            format!("\np4runtime_client_updates_total{of},code=\"OK\"}} "),
            format!("\np4runtime_client_rpc_duration_seconds_bucket{of},rpc=\"Write\",le=\"1\"}} "),
            "\nshunt_offload_up{switch=\"sw1\"} 1\n".to_owned(),
            "\nshunt_offload_latency_seconds_count{switch=\"sw1\",operation=\"removal\",stage=\"total\"} 0\n"
                .to_owned(),
            "\nshunt_converged 1\n".to_owned(),
            "\nshunt_switch_state{switch=\"sw1\",state=\"ready\"} 1\n".to_owned(),
            "\nshunt_slowpath_connections_max 65536\n".to_owned(),
            "\nshunt_nat_capacity{rule=\"red-out\",protocol=\"udp\",family=\"ipv4\"} 38977\n"
                .to_owned(),
        ];
        let mut said = String::new();
        // The daemon says that it is ready before it has written anything.
        let served = wait_for("all metrics", Duration::from_secs(10), || {
            let output = topology.gw.command("bash").args(["-c", ask]).output();
            said = output.map_or_else(
                |error| error.to_string(),
                |output| String::from_utf8_lossy(&output.stdout).into_owned(),
            );
            wanted.iter().all(|line| said.contains(line))
        });
        assert!(served.is_ok(), "{wanted:?}: {said}");
        let (_, page) = said.split_once("\r\n\r\n").unwrap();
        promtool("the_metrics_are_served", &["check", "metrics"], page)
    });
}

#[test]
fn the_alert_rules_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/packaging");
    let rules = folder.join("alerts.yml").display().to_string();
    promtool("the_alert_rules_are_sound", &["check", "rules", &rules], "").unwrap();
}

/// What Prometheus's own tool says of it, where that is; the test is named for where it is not.
fn promtool(test: &str, arguments: &[&str], input: &str) -> Result<()> {
    let Some(program) = binaries::on_path("promtool") else {
        sandbox::skip(test, "promtool is not on PATH");
        return Ok(());
    };
    let mut file = tempfile::tempfile().map_err(Error::file("/tmp"))?;
    file.write_all(input.as_bytes())
        .and_then(|()| file.rewind())
        .map_err(Error::file("/tmp"))?;
    let output = Command::new(program).args(arguments).stdin(file).output();
    let output = output.map_err(Error::file("promtool"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    Ok(())
}

fn stops_cleanly_on(signal: Signal) -> Result<()> {
    let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
    let topology = Topology::build(directory.path())?;
    let _switch: Service = topology.start_switch(SwitchKind::from_environment())?;
    let mut daemon = topology.start_daemon()?;
    assert!(topology.gw.output("ip -o link")?.contains("sh-wan"));
    daemon.signal(signal)?;
    let status = daemon.wait(Duration::from_secs(2))?;
    assert!(status.success(), "{status}: {}", daemon.output());
    assert!(
        !topology.gw.output("ip -o link")?.contains("sh-"),
        "its taps are gone"
    );
    assert!(
        !topology.gw.output("ip rule")?.contains("sh-"),
        "its rules are gone"
    );
    assert!(!topology.socket().exists(), "its socket is gone");
    Ok(())
}

#[test]
fn sigterm_stops_the_daemon_cleanly() {
    sandbox::test("sigterm_stops_the_daemon_cleanly", || {
        stops_cleanly_on(Signal::SIGTERM)
    });
}

#[test]
fn sigint_stops_the_daemon_cleanly() {
    sandbox::test("sigint_stops_the_daemon_cleanly", || {
        stops_cleanly_on(Signal::SIGINT)
    });
}

/// As systemd sees it: ready, alive again and again, stopping.
#[test]
fn systemd_is_told() {
    sandbox::test("systemd_is_told", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let _switch = topology.start_switch(SwitchKind::from_environment())?;
        let path = directory.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).map_err(Error::file(&path))?;
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .map_err(Error::file(&path))?;
        let told = |wanted: &str| {
            let mut buffer = [0; 4096];
            loop {
                let len = socket.recv(&mut buffer).map_err(Error::file(wanted))?;
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if text.lines().any(|line| line == wanted) {
                    return Ok::<_, Error>(());
                }
            }
        };
        let mut command = topology
            .gw
            .command(&binaries::find("shuntd")?.to_string_lossy());
        command
            .arg("--config")
            .arg(topology.write_configuration()?)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
        let daemon = Service::start("shuntd", directory.path(), command)?;
        told("READY=1")?;
        assert!(topology.shunt(&["version"]).is_ok(), "ready is ready");
        told("WATCHDOG=1")?;
        told("WATCHDOG=1")?;
        daemon.signal(Signal::SIGTERM)?;
        told("STOPPING=1")?;
        Ok(())
    });
}

#[test]
fn the_log_level_changes_while_it_runs() {
    sandbox::test("the_log_level_changes_while_it_runs", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let _switch = topology.start_switch(SwitchKind::from_environment())?;
        let daemon = topology.start_daemon()?;
        assert_eq!(topology.shunt(&["log"])?["level"], "info");
        let said = topology.shunt(&["log", "a=b=c"]).unwrap_err().to_string();
        assert!(said.contains("is no log level"), "{said}");
        assert!(!daemon.output().contains("kernel batch"));
        topology.shunt(&["log", "info,shunt_controller::pump=debug"])?;
        topology.add_routes()?;
        wait_for("a line of that level", Duration::from_secs(20), || {
            daemon.output().contains("kernel batch")
        })?;
        Ok(())
    });
}

/// The unit of the package, as far as systemd can tell without running it.
#[test]
fn the_systemd_unit_is_sound() {
    let Some(analyze) = binaries::on_path("systemd-analyze") else {
        let why = "systemd-analyze is not on PATH";
        return sandbox::skip("the_systemd_unit_is_sound", why);
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/packaging");
    let text = std::fs::read_to_string(folder.join("shuntd.service")).unwrap();
    let shuntd = binaries::find("shuntd").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("shuntd.service");
    let text = text.replace("/usr/sbin/shuntd", &shuntd.display().to_string());
    // The package's manual pages are not there.
    let text = text.replace("Documentation=man:shuntd(8) man:shunt(1)\n", "");
    std::fs::write(&unit, text).unwrap();
    let output = Command::new(&analyze)
        .args(["verify", "--man=no"])
        .arg(&unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("shuntd.service"), "{said}");
}

#[test]
fn manual_pages_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let shunt = binaries::find("shunt").unwrap();
    let status = Command::new(shunt)
        .arg("man")
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    for (page, text) in [
        ("shunt.1", "shunt\\-config(1)"),
        ("shunt-config-apply.1", "dry"),
        ("shunt-flows-delete.1", "prefix"),
    ] {
        let page = directory.path().join(page);
        let page = std::fs::read_to_string(&page).unwrap();
        assert!(page.starts_with(".ie") && page.contains(text), "{page}");
    }
    let page = shuntd(&["--man"]).output().unwrap().stdout;
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains(".TH shuntd 8"), "{page}");
}

/// What a killed daemon leaves behind (its socket, rules) does not stop the next one.
#[test]
fn a_killed_daemon_can_be_started_again() {
    sandbox::test("a_killed_daemon_can_be_started_again", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let _switch = topology.start_switch(SwitchKind::from_environment())?;
        drop(topology.start_daemon()?); // SIGKILL
        let daemon = topology.start_daemon()?;
        let (status, _) = daemon.stop(Duration::from_secs(2))?;
        assert!(status.success(), "{status}");
        Ok(())
    });
}

/// Regression: the ports' threads slept in libpcap and never heard of the stop.
#[test]
fn a_quiet_switch_stops_on_sigterm() {
    sandbox::test("a_quiet_switch_stops_on_sigterm", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let switch = topology.start_switch(SwitchKind::Embedded)?;
        let (status, _) = switch.stop(Duration::from_secs(2))?;
        assert!(status.success(), "{status}");
        Ok(())
    });
}

/// Regression: a hung switch keeps its TCP connection, and was taken for a healthy one.
#[test]
fn a_switch_that_hangs_is_noticed_and_taken_back() {
    sandbox::test("a_switch_that_hangs_is_noticed_and_taken_back", || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let topology = Topology::build(directory.path())?;
        let switch = topology.start_switch(SwitchKind::from_environment())?;
        let _daemon = topology.start_daemon()?;
        let converged = || topology.shunt(&["status"]).is_ok();
        wait_for("converged", Duration::from_secs(20), converged)?;
        switch.signal(Signal::SIGSTOP)?;
        wait_for("trouble to be seen", Duration::from_secs(30), || {
            !converged()
        })?;
        switch.signal(Signal::SIGCONT)?;
        wait_for("converged again", Duration::from_secs(30), converged)?;
        Ok(())
    });
}
