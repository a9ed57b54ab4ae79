//! The embedded switch in this process, and programs that run beside it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use p4runtime::client::{Client, ClientConfig};
use p4runtime::p4info::parse_p4info_text;
use shunt_switch::{Config, Deviation, Handle, ManualClock, Options, Tls};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../bmv2-testbed/switch/testdata")
        .join(name)
}

/// A switch in this process, with a program or without.
pub(crate) struct Switch {
    pub(crate) handle: Handle,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) faults: Vec<String>,
}

impl Switch {
    pub(crate) async fn start(program: Option<&str>) -> Self {
        Self::deviating(program, []).await
    }

    /// One that departs from the specification.
    pub(crate) async fn deviating(
        program: Option<&str>,
        how: impl IntoIterator<Item = Deviation>,
    ) -> Self {
        Self::with(program, how, None).await
    }

    /// One that is reached by TLS only.
    pub(crate) async fn over_tls(program: Option<&str>, tls: Tls) -> Self {
        Self::with(program, [], Some(tls)).await
    }

    async fn with(
        program: Option<&str>,
        how: impl IntoIterator<Item = Deviation>,
        tls: Option<Tls>,
    ) -> Self {
        let program = program.map(|name| {
            let json = std::fs::read(testdata(&format!("{name}.json"))).unwrap();
            let info = std::fs::read_to_string(testdata(&format!("{name}.p4info.txtpb"))).unwrap();
            (json, parse_p4info_text(&info).unwrap())
        });
        let config = Config {
            options: Options {
                cpu_port: Some(510),
                // Time stands still: ages are stable.
                clock: Arc::new(ManualClock::default()),
                deviations: how.into_iter().collect(),
                ..Options::default()
            },
            program,
            tls,
            ..Config::default()
        };
        Self {
            handle: shunt_switch::run(config).await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.handle.addr().to_string()
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shunt"));
        command
            .current_dir(self.directory.path())
            .env_remove("P4RT_ADDRESS")
            .env_remove("P4RT_DEVICE_ID")
            .args(["p4", "--address", &self.address()])
            .args(arguments.split_whitespace());
        command
    }

    pub(crate) async fn shunt(&self, arguments: &str) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Runs a command and compares with the file of that name, or writes it.
    pub(crate) async fn golden(&mut self, name: &str, arguments: &str) {
        let output = self.shunt(arguments).await;
        let said = format!(
            "$ shunt p4 {arguments}\n{}{}# exit {}\n",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output.status.code().unwrap()
        )
        .replace(&self.address(), "ADDRESS");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/p4")
            .join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, said).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expected {
            self.faults
                .push(format!("{name}\n--- expected\n{expected}--- got\n{said}"));
        }
    }

    /// What must work on the way to the next.
    pub(crate) async fn done(&self, arguments: &str) -> String {
        let output = self.shunt(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    pub(crate) fn end(self) {
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }

    pub(crate) async fn controller(&self, election_id: u128) -> Client {
        let config = ClientConfig::new(self.address(), 1, election_id);
        let client = Client::connect(config).await.unwrap();
        client.become_primary().await.unwrap();
        client
    }
}

/// A program that goes on printing lines.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let _ = sender.send(line.unwrap()); // the test may have ended
            }
        });
        Self { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        tokio::task::block_in_place(|| self.lines.recv_timeout(DEADLINE).unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Whether it has ended by itself, and well.
    pub(crate) fn ended(mut self) {
        let status = tokio::task::block_in_place(|| self.child.wait().unwrap());
        assert!(status.success(), "{status}");
    }
}
