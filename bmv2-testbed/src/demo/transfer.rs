//! HTTP downloads by curl, their content compared byte by byte.

use std::io::Read;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::traffic::content_byte;

/// Seconds after which curl gives up on one download.
const SECONDS_MAX: &str = "60";

/// A download that runs on a thread of its own.
#[derive(Debug)]
pub(super) struct Transfer {
    received: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Transfer {
    /// Starts curl in a host; `rate` as curl's `--limit-rate`, "" for no limit.
    pub(super) fn start(
        host: &Netns,
        server: &str,
        name: &str,
        length: u64,
        rate: &str,
    ) -> Result<Self> {
        let url = format!("http://{server}/{name}/{length}");
        let mut command = host.command("curl");
        command.args([
            "--silent",
            "--show-error",
            "--fail",
            "--no-buffer",
            "--max-time",
            SECONDS_MAX,
        ]);
        if !rate.is_empty() {
            command.args(["--limit-rate", rate]);
        }
        command
            .arg(&url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::Start {
            program: "curl".into(),
            source,
            remedy: "install the package curl",
        })?;
        let received = Arc::new(AtomicU64::new(0));
        let (count, name) = (Arc::clone(&received), name.to_owned());
        let thread = std::thread::spawn(move || {
            let wrong = |what: String| Error::Other(format!("{url}: {what}"));
            let mut at = 0_u64;
            if let Some(mut out) = child.stdout.take() {
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    let got = out
                        .read(&mut buffer)
                        .map_err(|error| wrong(error.to_string()))?;
                    if got == 0 {
                        break;
                    }
                    for &byte in &buffer[..got] {
                        if byte != content_byte(&name, at) {
                            return Err(wrong(format!("byte {at} is wrong")));
                        }
                        at += 1;
                    }
                    count.store(at, Ordering::Relaxed);
                }
            }
            let output = child
                .wait_with_output()
                .map_err(|error| wrong(error.to_string()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(wrong(format!("{} after {at} bytes: {said}", output.status)));
            }
            if at != length {
                return Err(wrong(format!("{at} of {length} bytes")));
            }
            Ok(())
        });
        Ok(Self { received, thread })
    }

    /// Bytes so far, all of them right.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(super) fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end; an error unless every byte came and was right.
    pub(super) fn finish(self) -> Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::Other("a transfer's thread panicked".into())))
    }
}
