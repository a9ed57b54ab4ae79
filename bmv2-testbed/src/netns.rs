//! Hosts: network namespaces inside the sandbox, and commands in them.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// A host.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with loopback up. It goes when the sandbox goes.
    pub fn create(name: &str) -> Result<Self> {
        run(&format!("ip netns add {name}"))?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.run("ip link set lo up")?;
        // Strict reverse-path filters would drop what arrives by another VPC's interface, and
        // duplicate address detection would delay IPv6 by a second.
        netns.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        netns.sysctl("net.ipv4.conf.default.rp_filter", "0")?;
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        Ok(netns)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .arg("--")
            .arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command (words separated by spaces) and waits for its success.
    pub fn run(&self, line: &str) -> Result<()> {
        self.output(line).map(drop)
    }

    /// Runs a command and returns what it printed.
    pub fn output(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        let mut command = self.command(program);
        command.args(words);
        let output = finish(&mut command, line)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs code on a thread that is in the host: sockets that it opens are the host's.
    pub fn inside<T: Send>(&self, code: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = std::fs::File::open(&path).map_err(Error::file(&path))?;
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                    .map_err(|error| Error::Other(format!("setns {path}: {error}")))?;
                code()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::Other("a thread panicked".into())))
        })
    }

    /// Sets a kernel parameter in the host.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let mut command = self.command("sysctl");
        command.arg("-qw").arg(format!("{key}={value}"));
        finish(&mut command, &format!("sysctl -qw {key}={value}")).map(drop)
    }

    /// Gives an interface unfinished-checksum-free packets: without this, packets of a local
    /// stack reach a user-space switch with checksums that hardware would have filled in.
    pub fn offloads_off(&self, interface: &str) -> Result<()> {
        self.run(&format!(
            "ethtool -K {interface} rx off tx off sg off tso off gso off gro off"
        ))
    }
}

/// Runs a command in the sandbox's first namespace.
pub fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    finish(&mut command, line).map(drop)
}

fn finish(command: &mut Command, line: &str) -> Result<Output> {
    let output = command.output().map_err(|source| Error::Start {
        program: line.to_owned(),
        source,
        remedy: "install iproute2, ethtool, procps and util-linux (`make demo` does it as root)",
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Command {
        command: line.to_owned(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
