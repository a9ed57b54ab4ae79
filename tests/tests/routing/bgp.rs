//! BIRD and FRR in the gateway's own namespace speak BGP through the tap of the wan interface:
//! 10,000 prefixes come, go with the session, come back and move to another next hop.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Error, Result, binaries, sandbox};

use crate::lab::{DEADLINE, Lab, run};
use crate::probe::{Echo, Probes};

/// As many as the issue asks for, /24 each from 100.64.0.0 on.
const PREFIXES: u32 = 10_000;
const FIRST: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// Which of them have a host behind them that answers: first, last and some between.
const SAMPLES: [u32; 6] = [0, 1, 2_345, 5_000, 7_777, PREFIXES - 1];

/// The peer, and the router that it moves the routes to.
const WAN: &str = "203.0.113.2";
const OTHER: &str = "203.0.113.3";

fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST + number * 256)
}

fn announced() -> BTreeSet<String> {
    (0..PREFIXES)
        .map(|number| format!("{}/24", network(number)))
        .collect()
}

fn sampled() -> Vec<Ipv4Addr> {
    let host = |&number: &u32| Ipv4Addr::from(u32::from(network(number)) + 1);
    SAMPLES.iter().map(host).collect()
}

fn write(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(Error::file(&path))?;
    Ok(path)
}

/// A BIRD in a host.
struct Bird {
    control: PathBuf,
    configuration: PathBuf,
    service: Service,
}

impl Bird {
    fn start(host: &Netns, directory: &Path, text: &str) -> Result<Self> {
        let name = format!("bird-{}", host.name());
        let configuration = write(directory, &format!("{name}.conf"), text)?;
        let control = directory.join(format!("{name}.ctl"));
        let mut command = host.command(&installed("bird"));
        command.arg("-f").arg("-c").arg(&configuration);
        command.arg("-s").arg(&control);
        command.arg("-P").arg(directory.join(format!("{name}.pid")));
        let service = Service::start(&name, directory, command)?;
        let mut bird = Self {
            control,
            configuration,
            service,
        };
        // Its socket is there before the configuration is read.
        wait_for("BIRD to answer", DEADLINE, || {
            bird.service.ended().is_some() || bird.say("show status").is_ok()
        })?;
        bird.service.check_running()?;
        Ok(bird)
    }

    /// Says something to it by `birdc`.
    fn say(&self, words: &str) -> Result<()> {
        let mut command = Command::new(installed("birdc"));
        command.arg("-s").arg(&self.control);
        command.args(words.split_whitespace());
        let output = command.output().map_err(Error::file("birdc"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::Command {
                command: format!("birdc {words}"),
                status: output.status.to_string(),
                stderr: String::from_utf8_lossy(&output.stdout).into_owned(),
            }),
        }
    }

    /// Has it read another configuration.
    fn configure(&self, text: &str) -> Result<()> {
        std::fs::write(&self.configuration, text).map_err(Error::file(&self.configuration))?;
        self.say("configure")
    }
}

fn installed(name: &str) -> String {
    let path = binaries::installed(name).unwrap_or_else(|| name.into());
    path.to_string_lossy().into_owned()
}

/// The peer: announces every prefix with this next hop.
fn peer(nexthop: &str) -> String {
    let routes: String = (0..PREFIXES)
        .map(|number| format!("    route {}/24 blackhole;\n", network(number)))
        .collect();
    format!(
        "router id 203.0.113.2;\n\
         protocol device {{}}\n\
         protocol static announced {{\n    ipv4;\n{routes}}}\n\
         protocol bgp uplink {{\n\
             local 203.0.113.2 as 65002;\n\
             neighbor 203.0.113.1 as 65001;\n\
             connect delay time 1;\n\
             error wait time 1, 2;\n\
             ipv4 {{ import none; export filter {{ bgp_next_hop = {nexthop}; accept; }}; }};\n\
         }}\n"
    )
}

/// The gateway's: what it learns goes to the VPC's table.
fn gateway(table: u32) -> String {
    format!(
        "router id 203.0.113.1;\n\
         protocol device {{}}\n\
         protocol direct {{ ipv4; interface \"sh-*\"; }}\n\
         protocol kernel {{\n\
             kernel table {table};\n\
             ipv4 {{ import none; export where source = RTS_BGP; }};\n\
         }}\n\
         protocol bgp peer {{\n\
             local 203.0.113.1 as 65001;\n\
             neighbor 203.0.113.2 as 65002;\n\
             connect delay time 1;\n\
             error wait time 1, 2;\n\
             ipv4 {{ import all; export none; }};\n\
         }}\n"
    )
}

/// FRR's daemons, as Debian starts them, but with files and sockets of their own.
fn frr(host: &Netns, directory: &Path) -> Result<[Service; 2]> {
    // In the sandbox's own /run.
    let run = Path::new("/run/frr");
    std::fs::create_dir_all(run).map_err(Error::file(run))?;
    shunt_testbed::netns::run("chown frr:frr /run/frr")?;
    let zebra = write(directory, "zebra.conf", "hostname gw\n")?;
    let bgpd = write(
        directory,
        "bgpd.conf",
        "router bgp 65001\n \
           bgp router-id 203.0.113.1\n \
           no bgp ebgp-requires-policy\n \
           neighbor 203.0.113.2 remote-as 65002\n \
           neighbor 203.0.113.2 timers connect 1\n \
           neighbor 203.0.113.2 advertisement-interval 0\n",
    )?;
    // They give up root and must still read their configuration.
    let open = format!("chmod 0755 {}", directory.display());
    shunt_testbed::netns::run(&open)?;
    let start = |name: &str, configuration: &Path| {
        let mut command = host.command(&installed(name));
        command.arg("-f").arg(configuration);
        command.args(["-A", "127.0.0.1", "--log", "stdout"]);
        Service::start(name, directory, command)
    };
    let mut zebra = start("zebra", &zebra)?;
    wait_for("zebra's socket", DEADLINE, || {
        zebra.ended().is_some() || run.join("zserv.api").exists()
    })?;
    zebra.check_running()?;
    Ok([zebra, start("bgpd", &bgpd)?])
}

/// Waits until kernel, mirror and switch have exactly these prefixes, in the mirror by way of
/// this gateway, and says when each had.
fn wait_for_routes(
    lab: &Lab,
    (table, protocol): (u32, &str),
    what: &str,
    gateway: &str,
    wanted: &BTreeSet<String>,
) -> Result<()> {
    let mut of_kernel = Ok(BTreeSet::new());
    let within = wait_for(&format!("{what} in the kernel"), DEADLINE, || {
        of_kernel = lab.kernel_routes(table, protocol);
        !matches!(&of_kernel, Ok(now) if now != wanted)
    });
    let kernel = within.inspect_err(|_| explain(&of_kernel, wanted))?;
    let mut of_mirror = Ok(BTreeSet::new());
    let within = wait_for(&format!("{what} in the mirror"), DEADLINE, || {
        of_mirror = lab.mirror_routes(protocol, gateway);
        !matches!(&of_mirror, Ok(now) if now != wanted)
    });
    let mirror = within.inspect_err(|_| explain(&of_mirror, wanted))?;
    let mut of_switch = Ok(BTreeSet::new());
    let within = wait_for(&format!("{what} in the switch"), DEADLINE, || {
        of_switch = announced_of(lab);
        !matches!(&of_switch, Ok(now) if now != wanted)
    });
    let switch = within.inspect_err(|_| explain(&of_switch, wanted))?;
    for read in [of_kernel, of_mirror, of_switch] {
        assert!(read? == *wanted);
    }
    println!(
        "{what}: seen in the kernel after {} ms, then in the mirror after {} ms, then in the \
         switch after {} ms",
        kernel.as_millis(),
        mirror.as_millis(),
        switch.as_millis()
    );
    lab.wait_converged()?;
    Ok(())
}

/// The switch's routes that can only be the peer's.
fn announced_of(lab: &Lab) -> Result<BTreeSet<String>> {
    let mut routes = lab.switch_routes()?;
    routes.retain(|route| route.ends_with("/24") && route.starts_with("100."));
    Ok(routes)
}

fn explain(found: &Result<BTreeSet<String>>, wanted: &BTreeSet<String>) {
    let Ok(found) = found else { return };
    let first = |set: BTreeSet<_>| set.into_iter().take(5).cloned().collect::<Vec<String>>();
    println!(
        "{} instead of {}; missing {:?}, too many {:?}",
        found.len(),
        wanted.len(),
        first(wanted.difference(found).collect()),
        first(found.difference(wanted).collect())
    );
}

/// A session with the peer in the wan, whichever daemon speaks for the gateway.
fn session(
    lab: &Lab,
    source: (u32, &str),
    speaker: impl FnOnce(&Path) -> Result<Box<dyn std::any::Any>>,
) -> Result<()> {
    let topology = &lab.topology;
    let addresses = sampled();
    let _echoes = [
        Echo::start(&topology.wan, &addresses)?,
        Echo::start(&lab.other, &addresses)?,
    ];
    let mut probes = Probes::start(&topology.red, &addresses)?;
    let neighbor = Bird::start(&topology.wan, &topology.directory, &peer(WAN))?;
    let _speaker = speaker(&topology.directory)?;
    let all = announced();
    let measured = |what: &str, took: Duration| {
        println!("{what}: {} ms, by packets", took.as_millis());
    };
    let took = probes.until_answered_by("wan")?;
    measured("daemons started, first to last sample reachable", took);
    wait_for_routes(lab, source, "10,000 announced", WAN, &all)?;

    // The session flaps.
    neighbor.say("disable uplink")?;
    measured("session down to the last answer", probes.until_silent()?);
    wait_for_routes(lab, source, "withdrawn", WAN, &BTreeSet::new())?;
    neighbor.say("enable uplink")?;
    let took = probes.until_answered_by("wan")?;
    measured("session up again to every sample reachable", took);
    wait_for_routes(lab, source, "announced again", WAN, &all)?;

    // All of them move to another router on the wan.
    neighbor.configure(&peer(OTHER))?;
    let took = probes.until_answered_by("other")?;
    measured("next hop moved to every sample at the new one", took);
    wait_for_routes(lab, source, "moved", OTHER, &all)?;
    // Nothing is left of the way by the old one, nor of a withdrawal that came with the move.
    probes.until_answered_by("other")?;
    Ok(())
}

#[test]
fn bird_routes_through_the_tap() {
    const TABLE: u32 = 104;
    let name = "bgp::bird_routes_through_the_tap";
    run(name, &["bird", "birdc"], TABLE, |lab| {
        session(lab, (TABLE, "bird"), |directory| {
            let bird = Bird::start(&lab.topology.gw, directory, &gateway(TABLE))?;
            Ok(Box::new(bird))
        })
    });
}

/// FRR without VRF devices has one table, the main one: it is the VPC's here.
#[test]
fn frr_routes_through_the_tap() {
    const TABLE: u32 = 254;
    let name = "bgp::frr_routes_through_the_tap";
    if !nix::unistd::geteuid().is_root() || sandbox::is_in_user_namespace() {
        // Its daemons change to a user that such a namespace does not have.
        return sandbox::skip(name, "FRR's own user needs root");
    }
    run(name, &["bird", "birdc", "zebra", "bgpd"], TABLE, |lab| {
        session(lab, (TABLE, "bgp"), |directory| {
            Ok(Box::new(frr(&lab.topology.gw, directory)?))
        })
    });
}
