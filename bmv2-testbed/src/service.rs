//! A program that runs in the background, its output in a file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Error, Result};

/// How often a condition is looked at while it is awaited.
const POLL: Duration = Duration::from_millis(10);

/// Waits for a condition with a deadline.
pub fn wait_for(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > within {
            return Err(Error::Deadline {
                what: what.to_owned(),
                seconds: within.as_secs(),
            });
        }
        std::thread::sleep(POLL);
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Service {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Service {
    /// Starts it with standard output and error in `directory/name.log`.
    pub fn start(name: &str, directory: &Path, mut command: Command) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).map_err(Error::file(&log))?;
        let again = file.try_clone().map_err(Error::file(&log))?;
        let child = command
            .stdout(file)
            .stderr(again)
            .spawn()
            .map_err(|source| Error::Start {
                program: command.get_program().to_string_lossy().into_owned(),
                source,
                remedy: "is it installed and built?",
            })?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until it has printed a text; fails at once when it ends before.
    pub fn wait_for_output(&mut self, text: &str, within: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.output().contains(text) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.error(format!("ended early ({status})")));
            }
            if start.elapsed() > within {
                return Err(self.error(format!(
                    "did not print {text:?} within {} s",
                    within.as_secs()
                )));
            }
            std::thread::sleep(POLL);
        }
    }

    /// An error with its last output if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            Some(status) => Err(self.error(format!("ended early ({status})"))),
            None => Ok(()),
        }
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).map_err(|error| self.error(format!("cannot be signalled: {error}")))
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if start.elapsed() > within => {
                    return Err(self.error(format!("still runs after {} s", within.as_secs())));
                }
                Ok(None) => std::thread::sleep(POLL),
                Err(error) => return Err(self.error(error.to_string())),
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits; returns its status and how long it took.
    pub fn stop(mut self, within: Duration) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(within)?;
        Ok((status, start.elapsed()))
    }

    fn error(&self, what: String) -> Error {
        let output = self.output();
        let lines: Vec<_> = output.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        Error::Service {
            name: self.name.clone(),
            what,
            log: self.log.clone(),
            tail,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already ended is fine; there is nothing else to be done about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
