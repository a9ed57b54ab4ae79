//! The network.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::topology::{SERVER, SERVER6, SwitchKind, Topology, configuration, with_ipv6};
use shunt_testbed::{Error, Result, binaries, sandbox};

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(90);
pub const HTTP_PORT: u16 = 8080;
/// Which frames suffer.
const SEED: u64 = 20_250_726;

/// The addresses of one family.
#[derive(Clone, Copy)]
pub struct Net {
    pub server: &'static str,
    /// A host behind the wan, over a link of `small_mtu` bytes.
    pub far: &'static str,
    far_router: &'static str,
    far_network: &'static str,
    pub small_mtu: u16,
    /// The gateway as red sees it, and the wan as it does.
    pub gateway: &'static str,
    pub wan: &'static str,
    /// The pool's address as it is written before a port.
    pool: &'static str,
    pub ipv6: bool,
}

pub const IPV4: Net = Net {
    server: SERVER,
    far: "198.18.0.2",
    far_router: "198.18.0.1",
    far_network: "198.18.0.0/24",
    small_mtu: 1200,
    gateway: "10.0.0.1",
    wan: "203.0.113.2",
    pool: "203.0.113.10:",
    ipv6: false,
};

pub const IPV6: Net = Net {
    server: SERVER6,
    far: "2001:db8:fa::2",
    far_router: "2001:db8:fa::1",
    far_network: "2001:db8:fa::/64",
    // No less is allowed than 1280 (RFC 8200 section 5).
    small_mtu: 1300,
    gateway: "2001:db8:1::1",
    wan: "2001:db8:9::2",
    pool: "[2001:db8:9::10]:",
    ipv6: true,
};

/// What the gateway is like.
#[derive(Clone, Copy)]
pub struct Kind {
    pub net: Net,
    pub workers: u16,
    /// Connections are offered to the switch.
    pub offloads: bool,
}

/// Everything that runs.
pub struct Lab {
    pub topology: Topology,
    pub far: Netns,
    pub net: Net,
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
pub fn run(name: &str, kind: Kind, body: impl FnOnce(&Lab) -> Result<()>) {
    for program in ["curl", "ping", "traceroute"] {
        if binaries::installed(program).is_none() {
            let why = format!("{program} is not installed (`make test` as root installs it)");
            return sandbox::skip(name, &why);
        }
    }
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&Lab::start(directory.path(), kind)?)
    });
}

impl Net {
    /// A socket of one of its addresses.
    pub fn at(&self, address: &str, port: u16) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), port)
    }
}

impl Lab {
    fn start(directory: &Path, kind: Kind) -> Result<Self> {
        let Kind {
            net,
            workers,
            offloads,
        } = kind;
        let topology = Topology::build(directory)?;
        let rough = rough_link(&topology)?;
        let far = far_host(&topology.wan, &net)?;
        let mut services = vec![topology.start_switch(SwitchKind::from_environment())?];
        // Time-outs longer than any pause here; the demo's are short.
        let mut text = configuration(&topology.socket()).replace("\"5s\"", "\"5m\"");
        let size = "connections = 65536";
        text = text.replace(size, &format!("{size}\nworkers = {workers}"));
        if !offloads {
            text += "\n[offload]\nenabled = false\n";
        }
        if net.ipv6 {
            text = with_ipv6(&text);
        }
        services.push(topology.start_daemon_with(&text, &[])?);
        topology.add_routes()?;
        if net.ipv6 {
            topology.add_ipv6("rough0")?;
        }
        for table in [101, 104] {
            topology.gw.run(&format!(
                "ip route add {} via {} dev sh-wan onlink table {table}",
                net.far_network, net.wan
            ))?;
        }
        let program = binaries::find("shunt-testbed")?;
        let mut command = topology.wan.command(&program.to_string_lossy());
        command
            .arg("http-server")
            .arg(net.at(net.server, HTTP_PORT).to_string());
        let mut http = Service::start("http", directory, command)?;
        http.wait_for_output("ready", DEADLINE)?;
        let lab = Self {
            topology,
            far,
            net,
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
        let pool = |peer: &&str| peer.starts_with(self.net.pool);
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
fn far_host(wan: &Netns, net: &Net) -> Result<Netns> {
    let far = Netns::create("far")?;
    wan.run("ip link add far0 type veth peer name eth0 netns far")?;
    wan.offloads_off("far0")?;
    far.offloads_off("eth0")?;
    for (host, device) in [(wan, "far0"), (&far, "eth0")] {
        host.sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "0")?;
    }
    wan.run(&format!("ip link set far0 mtu {} up", net.small_mtu))?;
    // Larger, so that the MSS does not tell.
    far.run("ip link set eth0 up")?;
    let (_, length) = net.far_network.split_once('/').unwrap_or_default();
    let nodad = if net.ipv6 { "nodad" } else { "" };
    for (host, address, device) in [(wan, net.far_router, "far0"), (&far, net.far, "eth0")] {
        host.run(&format!(
            "ip addr add {address}/{length} dev {device} {nodad}"
        ))?;
    }
    far.run(&format!("ip route add default via {}", net.far_router))?;
    wan.sysctl("net.ipv4.ip_forward", "1")?;
    wan.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(far)
}
