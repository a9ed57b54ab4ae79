//! `mirror-load` and `mirror-churn`: the kernel's routes on their way through the mirror to the
//! workers' tables and, over gRPC, to an embedded switch in a process of its own.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtnetlink::RouteMessageBuilder;
use shunt_controller::config::{self, Config};
use shunt_controller::kernel::{
    Batch, KernelSetup, Mirror, MirrorConfig, MirrorHandle, RECEIVE_BUFFER_BYTES, RESYNC_INTERVAL,
    TapConfig,
};
use shunt_controller::switch::{Connected, Scope, SessionParts, SwitchHandle};
use shunt_p4::NetworkOp;
use shunt_slowpath::FibWriter;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{binaries, netns};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::prefixes::{prefixes, v4, v6};
use crate::report::{BenchError, Report};
use crate::sandboxed;
use crate::switch_writes::server::resident_bytes;

const V4_ROUTES: usize = 1_000_000;
const V6_ROUTES: usize = 200_000;
/// Routes that change.
const CHANGING: usize = 10_000;
/// Changes a second, and for how long.
const BUSY: (u32, Duration) = (21_000, Duration::from_secs(30));
const CALM: (u32, Duration) = (1_000, Duration::from_secs(10));
/// Of the changes that are watched on their way, one comes every so often.
const WATCHED_EVERY: Duration = Duration::from_millis(10);
/// Changes are handed to the kernel in portions of this time.
const PORTION: Duration = Duration::from_millis(2);
const GATEWAYS: u8 = 16;
const SEED: u64 = 5;
const ADDRESS: &str = "127.0.0.1:9559";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_micros(200);
/// Batches that wait, as the daemon has it.
const BATCHES: usize = 16;
/// The watched prefixes are in 198.18.0.0/15, which is for benchmarks (RFC 2544).
const WATCHED: u32 = 0xc612_0000;

const CONFIG: &str = r#"
[[switch]]
name = "sw1"
address = "127.0.0.1:9559"
device_id = 1
slow_path_port = 10

[slow_path]
device = "sp0"

[[vpc]]
name = "wan"
id = 1
table = 254

[[interface]]
name = "wan"
id = 1
vpc = "wan"
port = 1
mac = "02:00:00:00:00:01"
addresses = ["203.0.113.1/24", "2001:db8::1/64"]
"#;

fn gateway4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 10 + (number % usize::from(GATEWAYS)) as u8)
}

fn gateway6(number: usize) -> Ipv6Addr {
    let host = 10 + (number % usize::from(GATEWAYS)) as u16;
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

/// When the kernel was asked for a watched prefix.
type Asked = Arc<Mutex<HashMap<IpNet, Instant>>>;

/// The mirror with its consumers.
struct Lab {
    config: Config,
    kernel: KernelSetup,
    device: String,
    handle: SwitchHandle,
    /// Until the mirror is started.
    fib: Option<FibWriter>,
    switch: Service,
    runtime: Runtime,
}

impl Lab {
    fn start() -> Result<Self, BenchError> {
        let document = config::document_of(CONFIG).map_err(BenchError::failed)?;
        let config = config::validate(&document).map_err(|faults| {
            BenchError::failed(faults.iter().map(ToString::to_string).collect::<String>())
        })?;
        for line in [
            "ip link set lo up",
            "sysctl -qw net.ipv6.route.max_size=2147483647",
        ] {
            netns::run(line).map_err(BenchError::failed)?;
        }
        let program = binaries::find("shunt-switch").map_err(BenchError::failed)?;
        let mut command = Command::new(program);
        command.args(["--no-p4", "--device-id", "1", "--"]);
        command.args(["--grpc-server-addr", ADDRESS]);
        let folder = Path::new(sandboxed::FOLDER);
        let switch = Service::start("shunt-switch", folder, command).map_err(BenchError::failed)?;
        let runtime = Runtime::new().map_err(BenchError::failed)?;
        let taps: Vec<_> = config
            .interfaces
            .iter()
            .map(|found| TapConfig {
                interface: found.interface.clone(),
                tap: found.tap.clone(),
                table: config.vpc(found.interface.vpc).map_or(0, |vpc| vpc.table),
                extra_addresses: Vec::new(),
            })
            .collect();
        let kernel = runtime.block_on(KernelSetup::create(&taps));
        let kernel = kernel.map_err(BenchError::failed)?;
        let device = taps.first().map_or("", |tap| &tap.tap).to_owned();
        for number in 0..usize::from(GATEWAYS) {
            let (v4, v6) = (gateway4(number), gateway6(number));
            for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                netns::run(&format!(
                    "ip neigh replace {address} lladdr 02:00:00:00:01:{number:02x} nud permanent dev {device}"
                ))
                .map_err(BenchError::failed)?;
            }
        }
        let handle = runtime.block_on(async {
            let connected = Connected::open(&config.switches[0], PATIENCE).await;
            let parts = SessionParts {
                meters: config.punt_meters.clone(),
                scope: Scope::All,
                peerings: None,
                engine: None,
                resolver: Arc::new(|_, _| {}),
                stop: CancellationToken::new(),
            };
            let (handle, _) = SwitchHandle::start(connected.map_err(BenchError::failed)?, parts);
            Ok::<_, BenchError>(handle)
        })?;
        let (mut fib, _readers) = FibWriter::new();
        let vpcs = config.vpcs.iter();
        let vpcs = vpcs.map(|vpc| NetworkOp::SetVpc(vpc.vpc.clone()));
        let interfaces = config.interfaces.iter();
        let interfaces = interfaces.map(|i| NetworkOp::SetInterface(i.interface.clone()));
        let ops: Vec<_> = vpcs.chain(interfaces).collect();
        fib.apply(ops.clone());
        fib.publish();
        runtime.block_on(handle.apply(ops));
        Ok(Self {
            config,
            kernel,
            device,
            handle,
            fib: Some(fib),
            switch,
            runtime,
        })
    }

    /// Starts the mirror, and hands its batches on as the daemon does. The times until the switch
    /// has acknowledged watched prefixes go to `watched`.
    fn mirror(
        &mut self,
        asked: Asked,
        watched: mpsc::UnboundedSender<Duration>,
    ) -> Result<MirrorHandle, BenchError> {
        let mut fib = self
            .fib
            .take()
            .ok_or_else(|| BenchError::failed("started twice"))?;
        let config = MirrorConfig {
            interfaces: self
                .kernel
                .taps()
                .iter()
                .map(|t| t.interface.clone())
                .collect(),
            tables: self
                .config
                .vpcs
                .iter()
                .map(|vpc| (vpc.vpc.id, vpc.table))
                .collect(),
            receive_buffer: RECEIVE_BUFFER_BYTES,
            resync_interval: RESYNC_INTERVAL,
        };
        let (batches_in, mut batches) = mpsc::channel::<Batch>(BATCHES);
        let mirror = self.runtime.block_on(Mirror::start(config, batches_in));
        let mirror = mirror.map_err(BenchError::failed)?;
        let handle = self.handle.clone();
        self.runtime.spawn(async move {
            // The configuration was the first.
            let (mut submitted, mut complete) = (1, false);
            while let Some(batch) = batches.recv().await {
                if !batch.ops.is_empty() {
                    fib.apply(batch.ops.iter().cloned());
                    fib.publish();
                    let mut found = Vec::new();
                    {
                        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                        for op in &batch.ops {
                            if let NetworkOp::SetRoute(_, prefix, _) = op
                                && let Some(at) = asked.remove(prefix)
                            {
                                found.push(at);
                            }
                        }
                    }
                    handle.apply(batch.ops).await;
                    submitted += 1;
                    if !found.is_empty() {
                        tokio::spawn(acknowledged(
                            handle.clone(),
                            submitted,
                            found,
                            watched.clone(),
                        ));
                    }
                }
                if batch.complete && !std::mem::replace(&mut complete, true) {
                    handle.complete().await;
                }
            }
        });
        Ok(mirror)
    }

    /// Waits until the switch holds everything.
    fn converged(&mut self) -> Result<(), BenchError> {
        let Self { switch, handle, .. } = self;
        wait_for("the switch to hold everything", PATIENCE, || {
            switch.ended().is_some() || handle.is_converged()
        })
        .map_err(BenchError::failed)?;
        switch.check_running().map_err(BenchError::failed)
    }

    /// A process that takes lines for `ip -batch`.
    fn ip(&self) -> Result<Child, BenchError> {
        Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(BenchError::failed)
    }
}

/// Waits until the switch has acknowledged this many batches.
async fn acknowledged(
    handle: SwitchHandle,
    batches: u64,
    asked: Vec<Instant>,
    watched: mpsc::UnboundedSender<Duration>,
) {
    while handle.view().applied < batches {
        tokio::time::sleep(POLL).await;
    }
    for at in asked {
        let _ = watched.send(at.elapsed());
    }
}

fn ended(mut child: Child) -> Result<(), BenchError> {
    drop(child.stdin.take());
    let status = child.wait().map_err(BenchError::failed)?;
    match status.success() {
        true => Ok(()),
        false => Err(BenchError::failed(format!("ip -batch: {status}"))),
    }
}

fn peak_bytes() -> Result<f64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(BenchError::failed)?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0)
        .ok_or_else(|| BenchError::failed("/proc/self/status has no VmHWM"))
}

/// `mirror-load`.
pub(crate) fn load(report: &mut Report) -> Result<(), BenchError> {
    sandboxed::run("mirror-load", report, |report| {
        let mut lab = Lab::start()?;
        let random = &mut StdRng::seed_from_u64(SEED);
        let mut ip = lab.ip()?;
        {
            let pipe = ip
                .stdin
                .as_mut()
                .ok_or_else(|| BenchError::failed("no pipe"))?;
            let mut pipe = std::io::BufWriter::new(pipe);
            let all = [
                prefixes(random, V4_ROUTES, v4)?,
                prefixes(random, V6_ROUTES, v6)?,
            ];
            for (number, prefix) in all.iter().flatten().enumerate() {
                let gateway: IpAddr = match prefix {
                    IpNet::V4(_) => gateway4(number).into(),
                    IpNet::V6(_) => gateway6(number).into(),
                };
                writeln!(pipe, "route add {prefix} via {gateway} dev {}", lab.device)
                    .map_err(BenchError::failed)?;
            }
        }
        ended(ip)?;
        let (before, count) = (resident_bytes(std::process::id())?, V4_ROUTES + V6_ROUTES);
        let (watched, _) = mpsc::unbounded_channel();
        let start = Instant::now();
        let mirror = lab.mirror(Asked::default(), watched)?;
        let dumped = start.elapsed();
        let loaded = || mirror.stats().routes >= count as u64;
        wait_for("the mirror to have every route", PATIENCE, loaded).map_err(BenchError::failed)?;
        lab.converged()?;
        let took = start.elapsed();
        let routes = count as f64;
        report.metric(
            "routes, kernel to switch and workers",
            routes / took.as_secs_f64(),
            "routes/s",
        );
        report.metric("time", took.as_secs_f64(), "s");
        report.metric(
            "of it, the kernel's dump, read and sorted",
            dumped.as_secs_f64(),
            "s",
        );
        report.metric(
            "peak memory of mirror, workers' tables and session",
            peak_bytes()? / 1e6,
            "MB",
        );
        report.metric(
            "of it, before the mirror started",
            before as f64 / 1e6,
            "MB",
        );
        report.metric(
            "memory of the switch",
            resident_bytes(lab.switch.id())? as f64 / 1e6,
            "MB",
        );
        lab.runtime.block_on(mirror.shutdown());
        Ok(())
    })
}

/// One rate of changes: how many were made a second, and the sorted times of the watched ones.
fn change(
    lab: &Lab,
    (rate, time): (u32, Duration),
    changing: &[IpNet],
    asked: &Asked,
    times: &mut mpsc::UnboundedReceiver<Duration>,
    first: u32,
) -> Result<(f64, Vec<Duration>), BenchError> {
    let random = &mut StdRng::seed_from_u64(SEED);
    let mut ip = lab.ip()?;
    let interface = lab
        .kernel
        .taps()
        .first()
        .map_or(0, |tap| tap.interface.ifindex);
    let number = (time.as_micros() / WATCHED_EVERY.as_micros()) as u32;
    let watcher = lab
        .runtime
        .spawn(watch(first, number, interface, Arc::clone(asked)));
    let start = Instant::now();
    let mut made = 0_u64;
    {
        let pipe = ip
            .stdin
            .as_mut()
            .ok_or_else(|| BenchError::failed("no pipe"))?;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            let mut lines = String::new();
            while made < due {
                let at = random.random_range(0..changing.len());
                let prefix = changing.get(at).copied().unwrap_or_default();
                let gateway = gateway4(random.random_range(0..usize::from(GATEWAYS)));
                lines += &format!("route replace {prefix} via {gateway} dev {}\n", lab.device);
                made += 1;
            }
            pipe.write_all(lines.as_bytes())
                .map_err(BenchError::failed)?;
            std::thread::sleep(PORTION);
        }
    }
    ended(ip)?;
    let rate = made as f64 / start.elapsed().as_secs_f64();
    let sent = lab
        .runtime
        .block_on(watcher)
        .map_err(BenchError::failed)??;
    let mut found = Vec::new();
    let limit = Instant::now() + PATIENCE;
    while found.len() < sent && Instant::now() < limit {
        match times.try_recv() {
            Ok(time) => found.push(time),
            Err(_) => std::thread::sleep(POLL),
        }
    }
    if found.len() < sent {
        let lost = format!("{} of {sent} watched changes arrived", found.len());
        return Err(BenchError::failed(lost));
    }
    found.sort_unstable();
    Ok((rate, found))
}

/// Adds watched routes one after the other; returns how many.
async fn watch(first: u32, number: u32, interface: u32, asked: Asked) -> Result<usize, BenchError> {
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(BenchError::failed)?;
    let connection = tokio::spawn(connection);
    let mut pace = tokio::time::interval(WATCHED_EVERY);
    for number in first..first + number {
        pace.tick().await;
        let address = Ipv4Addr::from_bits(WATCHED + number);
        let prefix = IpNet::V4(Ipv4Net::from(address));
        let now = Instant::now();
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(prefix, now);
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .gateway(gateway4(0))
            .output_interface(interface)
            .build();
        netlink
            .route()
            .add(route)
            .execute()
            .await
            .map_err(BenchError::failed)?;
    }
    connection.abort();
    Ok(number as usize)
}

fn share(times: &[Duration], thousandth: usize) -> f64 {
    let at = (times.len() * thousandth / 1000).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// `mirror-churn`.
pub(crate) fn churn(report: &mut Report) -> Result<(), BenchError> {
    sandboxed::run("mirror-churn", report, |report| {
        let mut lab = Lab::start()?;
        let random = &mut StdRng::seed_from_u64(SEED);
        let changing = prefixes(random, CHANGING, v4)?;
        let mut ip = lab.ip()?;
        {
            let pipe = ip
                .stdin
                .as_mut()
                .ok_or_else(|| BenchError::failed("no pipe"))?;
            for prefix in &changing {
                let gateway = gateway4(0);
                writeln!(pipe, "route add {prefix} via {gateway} dev {}", lab.device)
                    .map_err(BenchError::failed)?;
            }
        }
        ended(ip)?;
        let asked = Asked::default();
        let (watched, mut times) = mpsc::unbounded_channel();
        let mirror = lab.mirror(Arc::clone(&asked), watched)?;
        let loaded = || mirror.stats().routes >= CHANGING as u64;
        wait_for("the mirror to have every route", PATIENCE, loaded).map_err(BenchError::failed)?;
        lab.converged()?;
        let (busy, slow) = change(&lab, BUSY, &changing, &asked, &mut times, 0)?;
        lab.converged()?;
        let overruns = mirror.stats().overruns;
        let first = slow.len() as u32;
        let (calm, fast) = change(&lab, CALM, &changing, &asked, &mut times, first)?;
        report.metric("changes sustained", busy, "changes/s");
        report.metric("overruns", overruns as f64, "overruns");
        report.metric("p50 at that rate", share(&slow, 500), "µs");
        report.metric("p99 at that rate", share(&slow, 990), "µs");
        report.metric("changes when calm", calm, "changes/s");
        report.metric("p50 when calm", share(&fast, 500), "µs");
        report.metric("p99 when calm", share(&fast, 990), "µs");
        lab.runtime.block_on(mirror.shutdown());
        Ok(())
    })
}
