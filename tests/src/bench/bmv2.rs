//! bmv2's `simple_switch_grpc` beside ours, where it is on PATH.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shunt_testbed::binaries;

use crate::report::BenchError;

const PROGRAM: &str = "simple_switch_grpc";
/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// A running bmv2 without a program; ends when dropped.
pub(crate) struct Bmv2 {
    child: Child,
    /// Where P4Runtime is served.
    pub(crate) address: String,
}

/// Whether it can be started; says so if not.
pub(crate) fn is_there() -> bool {
    let there = binaries::on_path(PROGRAM).is_some();
    if !there {
        println!("bmv2: skipped: {PROGRAM} is not on PATH");
    }
    there
}

impl Bmv2 {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(BenchError::failed)?;
        let address = free.local_addr().map_err(BenchError::failed)?.to_string();
        drop(free);
        let child = Command::new(PROGRAM)
            .args(["--no-p4", "--device-id", "1", "--log-level", "off", "--"])
            .args(["--grpc-server-addr", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(BenchError::failed)?;
        let mut started = Self { child, address };
        let start = Instant::now();
        while std::net::TcpStream::connect(&started.address).is_err() {
            let ended = started.child.try_wait().map_err(BenchError::failed)?;
            if ended.is_some() || start.elapsed() > START {
                return Err(BenchError::failed(format!("{PROGRAM} does not listen")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    /// Its process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bmv2 {
    fn drop(&mut self) {
        // Already ended is fine; there is nothing else to be done about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
