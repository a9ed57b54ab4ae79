//! The demo's network with servers behind the wan, and sockets in its hosts.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{SERVER, SwitchKind, Topology, configuration};
use shunt_testbed::{Error, Result, binaries, sandbox};

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const HTTP_PORT: u16 = 8080;
pub const UDP_PORT: u16 = 7;

/// Everything that runs.
pub struct Lab {
    pub topology: Topology,
    daemon: Mutex<Option<Service>>,
    configuration: String,
    arguments: Vec<String>,
    directory: PathBuf,
    _services: Vec<Service>,
}

/// Runs a test in a sandbox with the network up; `change` has the demo's configuration, whose
/// short time-outs are long here.
pub fn run(name: &str, change: impl Fn(String) -> String, body: impl FnOnce(&Lab) -> Result<()>) {
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&Lab::start(directory.path(), change, Vec::new())?)
    });
}

/// The same; the daemon keeps its configuration in a store.
pub fn run_with_store(name: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let store = directory.path().join("shunt.db").display().to_string();
        let arguments = vec!["--store".to_owned(), store];
        body(&Lab::start(directory.path(), |text| text, arguments)?)
    });
}

impl Lab {
    /// Starts it, with files in a directory.
    pub fn start(
        directory: &Path,
        change: impl Fn(String) -> String,
        arguments: Vec<String>,
    ) -> Result<Self> {
        let kind = SwitchKind::from_environment();
        let topology = Topology::build(directory)?;
        let mut services = vec![topology.start_switch(kind)?];
        let text = configuration(&topology.socket()).replace("\"5s\"", "\"5m\"");
        let text = change(text);
        let daemon = topology.start_daemon_with(&text, &arguments)?;
        topology.add_routes()?;
        services.extend(serve(&topology, SERVER)?);
        let lab = Self {
            topology,
            daemon: Mutex::new(Some(daemon)),
            configuration: text,
            arguments,
            directory: directory.to_owned(),
            _services: services,
        };
        lab.wait_converged()?;
        Ok(lab)
    }

    fn wait_converged(&self) -> Result<()> {
        wait_for("the daemon to report `converged`", DEADLINE, || {
            self.topology
                .shunt(&["status"])
                .is_ok_and(|status| status["converged"] == Value::Bool(true))
        })
        .map(|_| ())
    }

    /// Where files may be put.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the daemon has printed.
    pub fn log(&self) -> String {
        let daemon = self.daemon.lock().unwrap();
        daemon.as_ref().map(Service::output).unwrap_or_default()
    }

    /// Kills the daemon (SIGKILL) and starts it again; its taps outlive it, with their routes.
    pub fn restart(&self) -> Result<()> {
        drop(self.daemon.lock().unwrap().take());
        let daemon = self
            .topology
            .start_daemon_with(&self.configuration, &self.arguments)?;
        *self.daemon.lock().unwrap() = Some(daemon);
        self.wait_converged()
    }

    /// What a command prints (JSON, where it has the choice).
    pub fn run_shunt(&self, words: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(binaries::find("shunt")?);
        command.arg("--socket").arg(self.topology.socket());
        let output = command
            .args(["--output", "json"])
            .args(words)
            .output()
            .map_err(Error::file("shunt"))?;
        if !output.status.success() {
            return Err(Error::Other(format!(
                "`shunt {}` ({}): {}",
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A command's answer; a listing's as its items.
    pub fn shunt(&self, line: &str) -> Result<Vec<Value>> {
        let answer = self
            .topology
            .shunt(&line.split_whitespace().collect::<Vec<_>>())?;
        Ok(match answer {
            Value::Array(items) => items,
            other => vec![other],
        })
    }

    /// What a command that has to fail says.
    pub fn refused(&self, line: &str) -> String {
        match self.shunt(line) {
            Ok(answer) => panic!("`shunt {line}` should have failed: {answer:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// What the status says is degraded.
    pub fn problems(&self) -> Result<Vec<String>> {
        // Problems are an exit status of their own; what is printed counts.
        let mut command = std::process::Command::new(binaries::find("shunt")?);
        command.arg("--socket").arg(self.topology.socket());
        let output = command
            .args(["--output", "json", "status"])
            .output()
            .map_err(Error::file("shunt"))?;
        let status: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Other(format!("shunt status: {error}")))?;
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        let text = |problem: &Value| problem.as_str().map(str::to_owned);
        Ok(problems.iter().filter_map(text).collect())
    }

    /// Packets that the slow path dropped for a reason.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let status = self.topology.shunt(&["status"])?;
        let drops = status["slow_path"]["drops"].as_array();
        Ok(drops
            .into_iter()
            .flatten()
            .find(|count| count["name"] == reason)
            .and_then(|count| count["value"].as_u64())
            .unwrap_or(0))
    }

    /// Waits until a listing has so many items.
    pub fn wait_count(&self, line: &str, count: usize) -> Result<()> {
        let mut last = Vec::new();
        wait_for(&format!("`shunt {line}` to list {count}"), DEADLINE, || {
            last = self.shunt(line).unwrap_or_default();
            last.len() == count
        })
        .map(|_| ())
        .map_err(|error| Error::Other(format!("{error}; it lists {last:#?}")))
    }
}

/// Starts the servers of the wan, at an address.
pub fn serve(topology: &Topology, server: &str) -> Result<Vec<Service>> {
    let mut services = Vec::new();
    for (task, port) in [("http-server", HTTP_PORT), ("udp-echo", UDP_PORT)] {
        let program = binaries::find("shunt-testbed")?;
        let mut command = topology.wan.command(&program.to_string_lossy());
        let at = SocketAddr::new(server.parse().unwrap(), port);
        command.arg(task).arg(at.to_string());
        let mut service = Service::start(task, &topology.directory, command)?;
        service.wait_for_output("ready", DEADLINE)?;
        services.push(service);
    }
    Ok(services)
}

/// A socket of a host that has had an answer from the echo server.
pub fn udp(host: &Netns) -> Result<UdpSocket> {
    udp_to(host, SERVER)
}

/// The same with the server at another address.
pub fn udp_to(host: &Netns, server: &str) -> Result<UdpSocket> {
    let any = if server.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = host.inside(|| {
        let socket = UdpSocket::bind(any).map_err(Error::file("a UDP socket"))?;
        socket
            .connect((server, UDP_PORT))
            .map_err(Error::file("a UDP socket"))?;
        Ok(socket)
    })?;
    ask(&socket)?;
    Ok(socket)
}

/// Has the echo server answer; a lost datagram is sent again.
pub fn ask(socket: &UdpSocket) -> Result<()> {
    let failed = Error::file("a UDP socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .map_err(failed)?;
    let mut buffer = [0; 64];
    wait_for("an answer to a datagram", DEADLINE, || {
        let sent = socket.send(b"hello").is_ok();
        sent && matches!(socket.recv(&mut buffer), Ok(5))
    })
    .map(|_| ())
}

/// A connection of a host to the web server, open and kept so.
pub fn tcp(host: &Netns) -> Result<TcpStream> {
    tcp_to(host, SERVER)
}

/// The same with the server at another address.
pub fn tcp_to(host: &Netns, server: &str) -> Result<TcpStream> {
    let server = SocketAddr::new(server.parse().unwrap(), HTTP_PORT);
    let failed = Error::file("a TCP socket");
    let mut stream = host.inside(|| {
        TcpStream::connect_timeout(&server, DEADLINE).map_err(Error::file("a TCP socket"))
    })?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
    get(&mut stream)?;
    Ok(stream)
}

/// Asks for ten bytes and waits for them, the connection kept open.
pub fn get(stream: &mut TcpStream) -> Result<()> {
    let request = "GET /x/10 HTTP/1.1\r\nhost: x\r\n\r\n";
    let failed = Error::file("a TCP socket");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let n = stream
            .read(&mut buffer)
            .map_err(Error::file("a TCP socket"))?;
        answer.extend_from_slice(&buffer[..n]);
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        match head {
            Some(at) if answer.len() >= at + 14 => return Ok(()),
            _ if n == 0 => return Err(Error::Other("the server closed".into())),
            _ => {}
        }
    }
}
