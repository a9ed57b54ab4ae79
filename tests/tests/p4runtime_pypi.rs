//! Independent P4Runtime clients, p4runtime-shell and finsy of PyPI, drive the embedded switch:
//! as the specification has it, and where it deviates as real servers do. By their bindings the
//! same questions go to the real bmv2 and to the embedded switch that deviates as bmv2's server,
//! and the answers are compared. The packages are kept below `target/`; without Python, pip or
//! the index, or without bmv2, the tests say that they were skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pypi;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::time::{Duration, Instant};

use pypi::{install, run};
use shunt_testbed::{binaries, sandbox};

/// How long a switch may take to listen.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the embedded switch answers otherwise than bmv2 though it deviates as bmv2's server, and
/// why that stays.
const DIFFERENCES: [(&str, &str); 5] = [
    (
        "delete the group with an unknown member",
        "PI leaves the group of a refused insert behind",
    ),
    ("delete the group with a weight of 0", "the same"),
    ("delete the group with too much weight", "the same"),
    ("delete the group with a member twice", "the same"),
    (
        "read members",
        "PI makes a member for each unit of weight, and shows them all",
    ),
];

/// A client: its package with its version, its script, and what its environment needs.
struct Client {
    package: &'static str,
    script: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const SHELL: Client = Client {
    package: "p4runtime-shell==0.0.6",
    script: "shell.py",
    // Its bindings were generated for an older protobuf.
    environment: &[("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")],
};

const FINSY: Client = Client {
    package: "finsy==0.30.0",
    script: "finsy_client.py",
    environment: &[],
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A switch on a port of its own; ends with the value.
struct Switch {
    child: Child,
    address: String,
}

impl Switch {
    fn start(deviation: Option<&str>) -> Self {
        let mut command = Command::new(binaries::find("shunt-switch").unwrap());
        command.args(["--no-p4", "--cpu-port", "510"]);
        command.args(["--grpc-server-addr", "127.0.0.1:0"]);
        if let Some(deviation) = deviation {
            command.args(["--deviate", deviation]);
        }
        Self::embedded(command)
    }

    fn embedded(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address }
    }

    /// The real one, at a port that was free a moment ago.
    fn bmv2(program: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut command = Command::new(program);
        command.args(["--no-p4", "--device-id", "1", "--", "--cpu-port", "510"]);
        command.args(["--grpc-server-addr", &address]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < DEADLINE, "bmv2 does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // It may have ended by itself, which the client noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drive(name: &str, client: &Client) {
    let site = match install(client.package) {
        Ok(site) => site,
        Err(reason) => {
            return sandbox::skip(name, &reason);
        }
    };
    let root = root();
    for deviation in [None, Some("pi"), Some("pad-bytes"), Some("promote")] {
        let switch = Switch::start(deviation);
        let mut command = Command::new("python3");
        command
            .env("PYTHONPATH", &site)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(client.environment.iter().copied())
            .arg(root.join("tests/tests/python").join(client.script))
            .arg(&switch.address)
            .arg(root.join("p4/shunt.p4info.txtpb"))
            .arg(root.join("p4/shunt.json"))
            .arg(root.join("bmv2-testbed/switch/testdata/forward.p4info.txtpb"))
            .arg(root.join("bmv2-testbed/switch/testdata/forward.json"));
        match run(&mut command) {
            Ok(output) => assert!(output.contains(": done"), "{deviation:?}: {output}"),
            Err(output) => panic!("{deviation:?}: {output}"),
        }
    }
}

/// The script's answers from a switch, a line each.
fn answers(site: &Path, switch: &Switch) -> Vec<(String, String)> {
    let forward = root().join("bmv2-testbed/switch/testdata/forward");
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", site)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(SHELL.environment.iter().copied())
        .arg(root().join("tests/tests/python/conformance.py"))
        .arg(&switch.address)
        .arg(forward.with_extension("p4info.txtpb"))
        .arg(forward.with_extension("json"));
    let output = run(&mut command).unwrap_or_else(|output| panic!("{output}"));
    let line = |line: &str| {
        let (question, answer) = line.split_once('\t').unwrap();
        (question.to_owned(), answer.to_owned())
    };
    output.lines().map(line).collect()
}

#[test]
fn the_embedded_switch_answers_as_bmv2_does() {
    const NAME: &str = "the_embedded_switch_answers_as_bmv2_does";
    let Some(program) = binaries::on_path("simple_switch_grpc") else {
        return sandbox::skip(NAME, "simple_switch_grpc is not on PATH");
    };
    let site = match install(SHELL.package) {
        Ok(site) => site,
        Err(reason) => return sandbox::skip(NAME, &reason),
    };
    let real = answers(&site, &Switch::bmv2(&program));
    let ours = answers(&site, &Switch::start(Some("pi")));
    assert_eq!(real.len(), ours.len());
    let known = |question: &str| DIFFERENCES.iter().any(|(known, _)| *known == question);
    let mut other = Vec::new();
    for ((question, real), (asked, ours)) in real.iter().zip(&ours) {
        assert_eq!(question, asked);
        if (real != ours) != known(question) {
            other.push(format!("{question}\n  bmv2: {real}\n  ours: {ours}"));
        }
    }
    assert!(
        other.is_empty(),
        "differs, or no longer:\n{}",
        other.join("\n")
    );
}

#[test]
fn p4runtime_shell_drives_the_switch() {
    drive("p4runtime_shell_drives_the_switch", &SHELL);
}

#[test]
fn finsy_drives_the_switch() {
    drive("finsy_drives_the_switch", &FINSY);
}
