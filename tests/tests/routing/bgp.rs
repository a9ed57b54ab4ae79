//! BIRD and FRR in the gateway's own namespace speak BGP through the tap of the wan interface:
//! 10,000 prefixes come, go with the session, come back and move to another next hop.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Error, Result, binaries, sandbox};

use crate::lab::{DEADLINE, Lab, Version, run};
use crate::probe::{Echo, Probes};
use crate::stream::Stream;

/// As many as the issue asks for.
const PREFIXES: u32 = 10_000;
/// Which of them have a host behind them that answers: first, last and some between.
const SAMPLES: [u32; 6] = [0, 1, 2_345, 5_000, 7_777, PREFIXES - 1];

impl Version {
    /// /24 each from 100.64.0.0 on, or /48 each from fd10:: on.
    fn network(self, number: u32) -> IpAddr {
        let v4 = Ipv4Addr::from(u32::from_be_bytes([100, 64, 0, 0]) + number * 256);
        let v6 = Ipv6Addr::new(0xfd10, 0, number as u16, 0, 0, 0, 0, 0);
        self.of(v4.into(), v6.into())
    }

    fn prefix(self, number: u32) -> String {
        format!("{}/{}", self.network(number), self.of(24, 48))
    }

    fn announced(self) -> BTreeSet<String> {
        (0..PREFIXES).map(|number| self.prefix(number)).collect()
    }

    fn sampled(self) -> Vec<IpAddr> {
        let host = |&number: &u32| match self.network(number) {
            IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) + 1).into(),
            IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) + 1).into(),
        };
        SAMPLES.iter().map(host).collect()
    }

    /// The gateway's address on the wan.
    fn gateway(self) -> &'static str {
        self.of("203.0.113.1", "fd00:4::1")
    }

    /// The peer.
    fn wan(self) -> &'static str {
        self.of("203.0.113.2", "fd00:4::2")
    }

    /// The router that it moves the routes to.
    fn other(self) -> &'static str {
        self.of("203.0.113.3", "fd00:4::3")
    }
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
fn peer(version: Version, nexthop: &str) -> String {
    let routes: String = (0..PREFIXES)
        .map(|number| format!("    route {} blackhole;\n", version.prefix(number)))
        .collect();
    let (channel, local, gateway) = (version.of("ipv4", "ipv6"), version.wan(), version.gateway());
    format!(
        "router id 203.0.113.2;\n\
         protocol device {{}}\n\
         protocol static announced {{\n    {channel};\n{routes}}}\n\
         protocol bgp uplink {{\n\
             local {local} as 65002;\n\
             neighbor {gateway} as 65001;\n\
             connect delay time 1;\n\
             error wait time 1, 2;\n\
             {channel} {{ import none; export filter {{ bgp_next_hop = {nexthop}; accept; }}; }};\n\
         }}\n"
    )
}

/// The gateway's: what it learns goes to the VPC's table.
fn gateway(version: Version, table: u32) -> String {
    let (channel, local, peer) = (version.of("ipv4", "ipv6"), version.gateway(), version.wan());
    format!(
        "router id 203.0.113.1;\n\
         protocol device {{}}\n\
         protocol direct {{ {channel}; interface \"sh-*\"; }}\n\
         protocol kernel {{\n\
             kernel table {table};\n\
             {channel} {{ import none; export where source = RTS_BGP; }};\n\
         }}\n\
         protocol bgp peer {{\n\
             local {local} as 65001;\n\
             neighbor {peer} as 65002;\n\
             connect delay time 1;\n\
             error wait time 1, 2;\n\
             {channel} {{ import all; export none; }};\n\
         }}\n"
    )
}

/// FRR's daemons, as Debian starts them, but with files and sockets of their own.
fn frr(version: Version, host: &Netns, directory: &Path) -> Result<[Service; 2]> {
    // In the sandbox's own /run.
    let run = Path::new("/run/frr");
    std::fs::create_dir_all(run).map_err(Error::file(run))?;
    shunt_testbed::netns::run("chown frr:frr /run/frr")?;
    let zebra = write(directory, "zebra.conf", "hostname gw\n")?;
    let neighbor = version.wan();
    let family = version.of("ipv4", "ipv6");
    let bgpd = format!(
        "router bgp 65001\n \
           bgp router-id 203.0.113.1\n \
           no bgp ebgp-requires-policy\n \
           neighbor {neighbor} remote-as 65002\n \
           neighbor {neighbor} timers connect 1\n \
           neighbor {neighbor} advertisement-interval 0\n \
           address-family {family} unicast\n  \
             neighbor {neighbor} activate\n \
           exit-address-family\n"
    );
    let bgpd = write(directory, "bgpd.conf", &bgpd)?;
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

/// Which routes: the version of IP, the kernel's table, and who puts them there.
type Source<'a> = (Version, u32, &'a str);

/// Waits until kernel, mirror and switch have exactly these prefixes, in the mirror by way of
/// this gateway, and says when each had.
fn wait_for_routes(
    lab: &Lab,
    (version, table, protocol): Source<'_>,
    what: &str,
    gateway: &str,
    wanted: &BTreeSet<String>,
) -> Result<()> {
    let mut of_kernel = Ok(BTreeSet::new());
    let within = wait_for(&format!("{what} in the kernel"), DEADLINE, || {
        of_kernel = lab.kernel_routes(version, table, protocol);
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
        of_switch = announced_of(lab, version);
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
fn announced_of(lab: &Lab, version: Version) -> Result<BTreeSet<String>> {
    let mut routes = lab.switch_routes(version)?;
    let first = version.of("100.", "fd10:");
    let length = version.of("/24", "/48");
    routes.retain(|route| route.ends_with(length) && route.starts_with(first));
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
    source: Source<'_>,
    speaker: impl FnOnce(&Path) -> Result<Box<dyn std::any::Any>>,
) -> Result<()> {
    let topology = &lab.topology;
    let version = source.0;
    let addresses = version.sampled();
    let _echoes = [
        Echo::start(&topology.wan, &addresses)?,
        Echo::start(&lab.other, &addresses)?,
    ];
    let mut probes = Probes::start(&topology.red, &addresses)?;
    let neighbor = Bird::start(
        &topology.wan,
        &topology.directory,
        &peer(version, version.wan()),
    )?;
    let _speaker = speaker(&topology.directory)?;
    let all = version.announced();
    let measured = |what: &str, took: Duration| {
        println!("{what}: {} ms, by packets", took.as_millis());
    };
    let took = probes.until_answered_by("wan")?;
    measured("daemons started, first to last sample reachable", took);
    wait_for_routes(lab, source, "10,000 announced", version.wan(), &all)?;

    // The session flaps.
    neighbor.say("disable uplink")?;
    measured("session down to the last answer", probes.until_silent()?);
    wait_for_routes(lab, source, "withdrawn", version.wan(), &BTreeSet::new())?;
    neighbor.say("enable uplink")?;
    let took = probes.until_answered_by("wan")?;
    measured("session up again to every sample reachable", took);
    wait_for_routes(lab, source, "announced again", version.wan(), &all)?;

    // All of them move to another router on the wan, the last of them under a stream.
    let hosts = [&topology.wan, &lab.other];
    let last = addresses[addresses.len() - 1];
    let stream = Stream::start(&topology.red, &hosts, last)?;
    wait_for("the stream to flow", DEADLINE, || {
        stream.newest() > Some(100)
    })?;
    let watched = Monitor::start(lab, version)?;
    neighbor.configure(&peer(version, version.other()))?;
    let took = probes.until_answered_by("other")?;
    measured("next hop moved to every sample at the new one", took);
    // BIRD 2.0.12 as the peer may keep its last update back until its own poll times out after 3 s
    // (strace shows `poll(…, 3000)` between its last two writes): what is late then is late in the
    // kernel, as the times of the kernel's changes say.
    wait_for_routes(lab, source, "moved", version.other(), &all)?;
    println!("{}", watched.finish(version.other())?);
    let report = stream.finish()?;
    println!("moved under a stream: {report:?}");
    // Daemons replace IPv4 routes; those of IPv6 they take out of the kernel and put in anew.
    if version == Version::V4 {
        assert_eq!(report.lost.1, 0, "{report:?}");
    }
    assert!(report.arrived.len() == 2, "{report:?}");
    // Nothing is left of the way by the old one, nor of a withdrawal that came with the move.
    probes.until_answered_by("other")?;
    Ok(())
}

/// `ip monitor route` in the gateway: when the kernel heard of what.
struct Monitor(Service);

impl Monitor {
    fn start(lab: &Lab, version: Version) -> Result<Self> {
        let mut command = lab.topology.gw.command("ip");
        command.args([version.of("-4", "-6"), "-ts", "monitor", "route"]);
        Ok(Self(Service::start(
            "monitor",
            &lab.topology.directory,
            command,
        )?))
    }

    /// First and last change that led to a gateway.
    fn finish(self, gateway: &str) -> Result<String> {
        let text = self.0.output();
        self.0.stop(DEADLINE)?;
        let way = format!("via {gateway} ");
        let times: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(&way))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        Ok(format!(
            "the kernel's changes to {gateway}: from {:?} to {:?}",
            times.first(),
            times.last()
        ))
    }
}

fn bird(name: &str, version: Version) {
    const TABLE: u32 = 104;
    run(name, &["bird", "birdc"], TABLE, |lab| {
        session(lab, (version, TABLE, "bird"), |directory| {
            let text = gateway(version, TABLE);
            let bird = Bird::start(&lab.topology.gw, directory, &text)?;
            Ok(Box::new(bird))
        })
    });
}

#[test]
fn bird_routes_through_the_tap() {
    bird("bgp::bird_routes_through_the_tap", Version::V4);
}

#[test]
fn bird_routes_ipv6_through_the_tap() {
    bird("bgp::bird_routes_ipv6_through_the_tap", Version::V6);
}

/// FRR without VRF devices has one table, the main one: it is the VPC's here.
fn frr_as_speaker(name: &str, version: Version) {
    const TABLE: u32 = 254;
    if !nix::unistd::geteuid().is_root() || sandbox::is_in_user_namespace() {
        // Its daemons change to a user that such a namespace does not have.
        return sandbox::skip(name, "FRR's own user needs root");
    }
    run(name, &["bird", "birdc", "zebra", "bgpd"], TABLE, |lab| {
        session(lab, (version, TABLE, "bgp"), |directory| {
            Ok(Box::new(frr(version, &lab.topology.gw, directory)?))
        })
    });
}

#[test]
fn frr_routes_through_the_tap() {
    frr_as_speaker("bgp::frr_routes_through_the_tap", Version::V4);
}

#[test]
fn frr_routes_ipv6_through_the_tap() {
    frr_as_speaker("bgp::frr_routes_ipv6_through_the_tap", Version::V6);
}
