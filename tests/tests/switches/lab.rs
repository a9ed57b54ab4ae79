//! The network.
//!
//! ```text
//!   reda  10.0.0.2 ───────── port 1 ┐            ┌ port 1 ───────── 10.0.1.2 redb
//!   wana  198.51.100.2 ───── port 2 │ a        b │ port 2 ────── 203.0.113.2 wanb
//!   redb  (another link) ─── port 3 │            │
//!                           port 10 ┘            └ port 10
//!                                 spa ─ shuntd ─ spb
//! ```

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Error, Result, binaries, sandbox, topology};

/// Far more than anything here takes: what does not happen by then does not happen.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Where every host echoes.
const PORT: u16 = 7;

pub const REDA: &str = "10.0.0.2";
pub const WANA: &str = "198.51.100.2";
pub const REDB: &str = "10.0.1.2";
pub const WANB: &str = "203.0.113.2";

pub struct Lab {
    pub reda: Netns,
    pub wana: Netns,
    pub redb: Netns,
    pub wanb: Netns,
    gw: Netns,
    directory: PathBuf,
    // Stopped in this order.
    pub daemon: Option<Service>,
    pub a: Option<Service>,
    pub b: Option<Service>,
}

/// A connection to a host that echoes.
pub struct Connection(TcpStream);

impl Connection {
    /// So many questions, each answered before the next.
    pub fn exchange(&mut self, times: usize) -> Result<()> {
        for n in 0..times {
            let question = [n as u8; 100];
            let mut answer = [!(n as u8); 100];
            self.0
                .write_all(&question)
                .and_then(|()| self.0.read_exact(&mut answer))
                .map_err(Error::file("a connection"))?;
            assert_eq!(question, answer);
        }
        Ok(())
    }

    pub fn port(&self) -> u64 {
        self.0.local_addr().unwrap().port().into()
    }
}

/// Runs a test with the network up.
pub fn run(name: &str, body: impl FnOnce(&mut Lab) -> Result<()>) {
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        body(&mut Lab::start(directory.path())?)
    });
}

impl Lab {
    fn start(directory: &Path) -> Result<Self> {
        let mut lab = Self {
            reda: Netns::create("reda")?,
            wana: Netns::create("wana")?,
            redb: Netns::create("redb")?,
            wanb: Netns::create("wanb")?,
            gw: Netns::create("gw")?,
            directory: directory.to_owned(),
            daemon: None,
            a: None,
            b: None,
        };
        for (host, port, address, gateway) in [
            (&lab.reda, "a1", REDA, "10.0.0.1"),
            (&lab.wana, "a2", WANA, "198.51.100.1"),
            (&lab.redb, "b1", REDB, "10.0.1.1"),
            (&lab.wanb, "b2", WANB, "203.0.113.1"),
        ] {
            lab.gw.run(&format!(
                "ip link add {port} type veth peer name eth0 netns {}",
                host.name()
            ))?;
            host.offloads_off("eth0")?;
            host.run("ip link set eth0 up")?;
            host.run(&format!("ip addr add {address}/24 dev eth0"))?;
            host.run(&format!("ip route add default via {gateway}"))?;
            lab.port(port)?;
            echo(host)?;
        }
        lab.gw
            .run("ip link add a3 type veth peer name eth1 netns redb")?;
        lab.redb.offloads_off("eth1")?;
        lab.port("a3")?;
        for (port, device) in [("a10", "spa"), ("b10", "spb")] {
            lab.gw
                .run(&format!("ip link add {port} type veth peer name {device}"))?;
            lab.port(port)?;
            lab.port(device)?;
        }
        lab.start_a()?;
        lab.b = Some(lab.switch("b", 2, &[1, 2, 10], "127.0.0.1:9560")?);
        lab.start_daemon()?;
        for (net, device) in [
            ("198.51.100.0/24", "sh-wan-a"),
            ("203.0.113.0/24", "sh-wan-b"),
        ] {
            lab.gw
                .run(&format!("ip route add {net} dev {device} table 101"))?;
        }
        lab.converges()?;
        Ok(lab)
    }

    /// A wire of the switch or of the slow path: nobody in the kernel answers on it.
    fn port(&self, device: &str) -> Result<()> {
        self.gw
            .sysctl(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1")?;
        self.gw
            .sysctl(&format!("net.ipv4.conf.{device}.arp_ignore"), "8")?;
        self.gw.offloads_off(device)?;
        self.gw.run(&format!("ip link set {device} mtu 1600 up"))
    }

    pub fn start_a(&mut self) -> Result<()> {
        self.a = Some(self.switch("a", 1, &[1, 2, 3, 10], "127.0.0.1:9559")?);
        Ok(())
    }

    fn switch(
        &self,
        name: &str,
        device_id: u64,
        ports: &[u16],
        address: &'static str,
    ) -> Result<Service> {
        let bmv2 = std::env::var("SWITCH").as_deref() == Ok("bmv2");
        let program = match bmv2 {
            true => binaries::on_path("simple_switch_grpc")
                .ok_or_else(|| Error::Other("simple_switch_grpc is not on PATH".into()))?,
            false => binaries::find("shunt-switch")?,
        };
        let mut command = self.gw.command(&program.to_string_lossy());
        for port in ports {
            command.arg("-i").arg(format!("{port}@{name}{port}"));
        }
        command.args(["--device-id", &device_id.to_string(), "--no-p4"]);
        if bmv2 {
            command.args(["--log-console", "-L", "warn"]);
        }
        command.args(["--", "--grpc-server-addr", address]);
        let mut switch = Service::start(name, &self.directory, command)?;
        let listens = || self.gw.inside(|| Ok(TcpStream::connect(address).is_ok()));
        wait_for("the switch to listen", DEADLINE, || {
            switch.ended().is_some() || listens().unwrap_or(false)
        })?;
        switch.check_running()?;
        Ok(switch)
    }

    pub fn start_daemon(&mut self) -> Result<()> {
        let path = self.directory.join("shunt.toml");
        let text = include_str!("lab.toml");
        let text = text.replace("{socket}", &self.socket().to_string_lossy());
        fs::write(&path, text).map_err(Error::file(&path))?;
        let program = binaries::find("shuntd")?;
        let mut command = self.gw.command(&program.to_string_lossy());
        command.arg("--config").arg(path);
        let mut daemon = Service::start("shuntd", &self.directory, command)?;
        wait_for("the daemon to answer", DEADLINE, || {
            daemon.ended().is_some() || self.shunt(&["version"]).is_ok()
        })?;
        daemon.check_running()?;
        self.daemon = Some(daemon);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("shuntd.sock")
    }

    /// Asks the daemon; the answer is JSON.
    pub fn shunt(&self, arguments: &[&str]) -> Result<Value> {
        // 4: what is shown is not as it should be.
        topology::ask(&self.socket(), arguments, &[0, 4])
    }

    pub fn converges(&self) -> Result<()> {
        let mut last = Value::Null;
        wait_for("`converged`", DEADLINE, || {
            last = self.shunt(&["status"]).unwrap_or_default();
            last["converged"] == Value::Bool(true)
        })
        .map(drop)
        .map_err(|error| Error::Other(format!("{error}: {}", last["problems"])))
    }

    pub fn connect(&self, from: &Netns, to: &str) -> Result<Connection> {
        let address: SocketAddr = format!("{to}:{PORT}").parse().unwrap();
        let stream = from.inside(|| {
            let stream = TcpStream::connect_timeout(&address, DEADLINE);
            stream.map_err(Error::file("a connection"))
        })?;
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(DEADLINE)).map_err(Error::file("a connection"))?;
        }
        Ok(Connection(stream))
    }

    /// What the daemon says of a connection, by its opener's port.
    pub fn flow(&self, connection: &Connection) -> Result<Value> {
        let flows = self.shunt(&["flows"])?;
        let flows = flows.as_array().cloned().unwrap_or_default();
        let found = flows
            .into_iter()
            .find(|flow| flow["original"]["source_port"] == connection.port());
        Ok(found.unwrap_or_default())
    }

    /// Waits until a connection is in that switch, and its packets go past software.
    pub fn is_offloaded(&self, connection: &mut Connection, switch: &str) -> Result<()> {
        let mut last = Value::Null;
        wait_for("the offload", DEADLINE, || {
            // A connection that was refused is offered again at a packet of its own.
            let asked = connection.exchange(1);
            last = self.flow(connection).unwrap_or_default();
            asked.is_ok() && last["offload"] == "hardware"
        })
        .map_err(|error| Error::Other(format!("{error}: {last}")))?;
        assert_eq!(last["switch"], switch, "{last}");
        let software = |flow: &Value| flow["software"]["packets"].as_u64();
        // Packets that were on their way to the slow path have been there by now.
        connection.exchange(2)?;
        let before = self.flow(connection)?;
        connection.exchange(20)?;
        let after = self.flow(connection)?;
        assert_eq!(software(&before), software(&after), "{before} {after}");
        let total = |flow: &Value| flow["total"]["packets"].as_u64();
        assert!(total(&after) >= total(&before).map(|n| n + 40), "{after}");
        Ok(())
    }

    /// The engine of a switch.
    pub fn engine(&self, name: &str) -> Result<Value> {
        let offload = self.shunt(&["offload"])?;
        let switches = offload["switches"].as_array().cloned().unwrap_or_default();
        let found = switches.into_iter().find(|one| one["switch"] == name);
        Ok(found.unwrap_or_default())
    }

    pub fn wait_engine(&self, name: &str, field: &str, wanted: u64) -> Result<()> {
        let mut last = Value::Null;
        wait_for(
            &format!("{field} of {name} to be {wanted}"),
            DEADLINE,
            || {
                last = self.engine(name).unwrap_or_default();
                last[field] == wanted
            },
        )
        .map(drop)
        .map_err(|error| Error::Other(format!("{error}: {last}")))
    }

    /// `ip route …` of the gateway.
    pub fn route(&self, what: &str) -> Result<()> {
        self.gw.run(&format!("ip route {what}"))
    }

    /// Waits until a switch has as many IPv4 routes as the daemon mirrors.
    pub fn has_all_routes(&self, name: &str) -> Result<()> {
        let mut last = (None, None);
        wait_for("all routes", DEADLINE, || {
            let status = self.shunt(&["status"]).unwrap_or_default();
            let mut switches = status["switches"].as_array().into_iter().flatten();
            let switch = switches.find(|one| one["name"] == name);
            last = (
                switch.and_then(|switch| entries(switch, "route4")),
                self.shunt(&["routes"]).ok().as_ref().and_then(ipv4_routes),
            );
            last.0.is_some() && last.0 == last.1
        })
        .map(drop)
        .map_err(|error| Error::Other(format!("{error}: {last:?}")))
    }

    pub fn leases(&self) -> Result<u64> {
        let status = self.shunt(&["status"])?;
        Ok(status["slow_path"]["nat_leases"].as_u64().unwrap_or(0))
    }
}

/// Entries of a table on a switch.
fn entries(switch: &Value, table: &str) -> Option<u64> {
    let tables = switch["tables"].as_array()?;
    let found = tables.iter().find(|found| found["table"] == table)?;
    found["entries"].as_u64()
}

fn ipv4_routes(all: &Value) -> Option<u64> {
    let ipv4 = |route: &&Value| {
        let prefix = route["prefix"].as_str();
        prefix.is_some_and(|prefix| !prefix.contains(':'))
    };
    Some(all.as_array()?.iter().filter(ipv4).count() as u64)
}

/// Answers whoever connects with what they say, for as long as the test runs.
fn echo(host: &Netns) -> Result<()> {
    let listener =
        host.inside(|| TcpListener::bind(("0.0.0.0", PORT)).map_err(Error::file("a TCP socket")))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(|stream| stream.ok()) {
            std::thread::spawn(move || {
                let Ok(mut back) = stream.try_clone() else {
                    return;
                };
                let mut stream = stream;
                let _ = std::io::copy(&mut stream, &mut back);
            });
        }
    });
    Ok(())
}
