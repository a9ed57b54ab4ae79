//! The network.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{SERVER, SwitchKind, Topology, configuration};
use shunt_testbed::{Error, Result, binaries, sandbox};

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// A host behind the wan, over a link of 1200 bytes.
pub const FAR: &str = "198.18.0.2";
pub const HTTP_PORT: u16 = 8080;
const SMALL_MTU: u16 = 1200;
/// Which frames suffer.
const SEED: u64 = 20_250_726;

/// Everything that runs.
pub struct Lab {
    pub topology: Topology,
    pub far: Netns,
    offloads: bool,
    rough: Service,
    http: Service,
    _services: Vec<Service>,
}

/// What a command printed, whatever its exit status.
pub fn said(host: &Netns, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let mut command = host.command(words.next().unwrap_or_default());
    let output = command.args(words).output().map_err(Error::file(line))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

/// Runs a test in a sandbox with the network up, or skips it when a program is missing.
pub fn run(name: &str, offloads: bool, body: impl FnOnce(&Lab) -> Result<()>) {
    for program in ["curl", "ping", "traceroute"] {
        if binaries::installed(program).is_none() {
            let why = format!("{program} is not installed (`make test` as root installs it)");
            return sandbox::skip(name, &why);
        }
    }
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&Lab::start(directory.path(), offloads)?)
    });
}

impl Lab {
    fn start(directory: &Path, offloads: bool) -> Result<Self> {
        let kind = SwitchKind::from_environment();
        let topology = Topology::build(directory)?;
        let rough = rough_link(&topology)?;
        let far = far_host(&topology.wan)?;
        let mut services = vec![topology.start_switch(kind)?];
        // Time-outs longer than any pause here; the demo's are short.
        let mut text = configuration(&topology.socket()).replace("\"5s\"", "\"5m\"");
        if !offloads {
            text += "\n[offload]\nenabled = false\n";
        }
        services.push(topology.start_daemon_with(&text, &[])?);
        topology.add_routes()?;
        for table in [101, 104] {
            topology.gw.run(&format!(
                "ip route add 198.18.0.0/24 via 203.0.113.2 dev sh-wan onlink table {table}"
            ))?;
        }
        let program = binaries::find("shunt-testbed")?;
        let mut command = topology.wan.command(&program.to_string_lossy());
        command
            .arg("http-server")
            .arg(format!("{SERVER}:{HTTP_PORT}"));
        let mut http = Service::start("http", directory, command)?;
        http.wait_for_output("ready", DEADLINE)?;
        let lab = Self {
            topology,
            far,
            offloads,
            rough,
            http,
            _services: services,
        };
        wait_for("the daemon to report `converged`", DEADLINE, || {
            lab.topology
                .shunt(&["status"])
                .is_ok_and(|status| status["converged"] == Value::Bool(true))
        })?;
        Ok(lab)
    }

    /// The link did what the test is about.
    pub fn is_rough(&self) -> Result<()> {
        let output = self.rough.output();
        let last = output.lines().last().unwrap_or_default();
        let counts: Vec<u64> = last
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        println!("{last}");
        let [frames, lost, duplicated, reordered] = counts[..] else {
            return Err(Error::Other(format!("no counts: {output}")));
        };
        assert!(
            frames > 1000 && lost > 10 && duplicated > 10 && reordered > 10,
            "{last}"
        );
        Ok(())
    }

    /// The server saw the pool's address only, and packets went where they were to.
    pub fn is_translated(&self) -> Result<()> {
        let output = self.http.output();
        let peers: Vec<_> = output
            .lines()
            .filter(|line| line.starts_with("served"))
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        assert!(!peers.is_empty(), "{output}");
        let pool = |peer: &&str| peer.starts_with("203.0.113.10:");
        assert!(peers.iter().all(pool), "{peers:?}");
        let offload = self.topology.shunt(&["offload"])?;
        let installed = offload["connections_installed"].as_u64();
        assert_eq!(installed > Some(0), self.offloads, "{offload}");
        Ok(())
    }
}

/// Red's link goes through the rough one: its address is on the tap.
fn rough_link(topology: &Topology) -> Result<Service> {
    let red = &topology.red;
    red.run("ip addr flush dev eth0")?;
    red.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    let mut command = red.command(&binaries::find("shunt-testbed")?.to_string_lossy());
    command.args(["rough-link", "--device", "eth0", "--tap", "rough0"]);
    command.args(["--loss", "2", "--duplicate", "2", "--reorder", "3"]);
    command.arg("--seed").arg(SEED.to_string());
    let mut rough = Service::start("rough-link", &topology.directory, command)?;
    rough.wait_for_output("ready", DEADLINE)?;
    red.run("ip link set rough0 mtu 1500 up")?;
    red.run("ip addr add 10.0.0.2/24 dev rough0")?;
    red.run("ip route add default via 10.0.0.1")?;
    Ok(rough)
}

/// A host that the wan routes to, over a link with a small MTU.
fn far_host(wan: &Netns) -> Result<Netns> {
    let far = Netns::create("far")?;
    wan.run("ip link add far0 type veth peer name eth0 netns far")?;
    wan.offloads_off("far0")?;
    far.offloads_off("eth0")?;
    wan.run(&format!("ip link set far0 mtu {SMALL_MTU} up"))?;
    // Larger, so that the MSS does not tell.
    far.run("ip link set eth0 up")?;
    wan.run("ip addr add 198.18.0.1/24 dev far0")?;
    far.run(&format!("ip addr add {FAR}/24 dev eth0"))?;
    far.run("ip route add default via 198.18.0.1")?;
    wan.sysctl("net.ipv4.ip_forward", "1")?;
    Ok(far)
}
