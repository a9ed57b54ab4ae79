//! The reconciler with a million entries of which one in a hundred is wrong: read all, compare,
//! put right. The switch is in a process of its own, so that the memory is the reconciler's,
//! with what it wants, what it has read, and what its allocator keeps.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use p4runtime::client::{Client, ClientConfig};
use p4runtime::p4::v1 as pb;
use pb::update::Type;
use shunt_controller::config::Switch;
use shunt_controller::switch::{Connected, Repair, Scope, SessionParts, SwitchHandle};
use shunt_p4::tables::{P4Table as _, Route4, Route4Action, Route4Key};
use shunt_p4::{InterfaceId, NetworkOp, Nexthop, NexthopId, Route, SwitchPort, VpcId};
use tokio_util::sync::CancellationToken;

use crate::report::{BenchError, Report, median};
use crate::switch_writes::server::{Server, resident_bytes};

/// Routes, all in the switch.
const ROUTES: u32 = 1_000_000;
/// One in so many is made wrong.
const WRONG_ONE_IN: u32 = 100;
/// Next hops that they lead to.
const NEXTHOPS: u32 = 64;
/// Ops of one batch: few, for batches that wait are memory too.
const BATCH: u32 = 1_000;
/// Runs of wrong entries and repair.
const RUNS: usize = 5;
/// A device id, and the switch's port to the slow path.
const DEVICE: u64 = 1;
const SLOW_PATH: u16 = 10;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

fn failed(what: &str) -> BenchError {
    BenchError::failed(what)
}

fn nexthop(number: u32) -> Result<NexthopId, BenchError> {
    NexthopId::new(1 + number % NEXTHOPS).ok_or_else(|| failed("a next hop out of range"))
}

/// The `number`th prefix of a routing table: /24s from 16.0.0.0 on, and /25s and longer ones
/// among them.
fn prefix(number: u32) -> Result<Ipv4Net, BenchError> {
    let (block, within) = (number / 4, number % 4);
    let (offset, length) = match within {
        0 => (0, 24),
        1 => (0, 25),
        2 => (128, 26),
        _ => (192, 32),
    };
    let address = 0x1000_0000 + (block << 8) + offset;
    Ipv4Net::new(address.into(), length).map_err(BenchError::failed)
}

fn ops(numbers: std::ops::Range<u32>) -> Result<Vec<NetworkOp>, BenchError> {
    let route = |number| {
        let paths = Route::Nexthops(vec![(nexthop(number)?, 1)]);
        Ok(NetworkOp::SetRoute(
            VpcId::MIN,
            IpNet::V4(prefix(number)?),
            paths,
        ))
    };
    numbers.map(route).collect()
}

fn entry(dst: Ipv4Net, nexthop: NexthopId) -> pb::TableEntry {
    let key = Route4Key {
        vpc: VpcId::MIN,
        dst,
    };
    let action = Route4Action::ToNexthop { nexthop };
    Route4 { key, action }.to_entry()
}

fn update(kind: Type, entry: pb::TableEntry) -> pb::Update {
    pb::Update {
        r#type: kind.into(),
        entity: Some(pb::Entity {
            entity: Some(pb::entity::Entity::TableEntry(entry)),
        }),
    }
}

/// One entry in a hundred: taken out, changed, or one too many, in turn.
fn wrongs() -> Result<Vec<pb::Update>, BenchError> {
    let wrong = |at: u32| {
        let number = at * WRONG_ONE_IN;
        let (dst, right) = (prefix(number)?, nexthop(number)?);
        Ok(match at % 3 {
            0 => update(Type::Delete, entry(dst, right)),
            1 => update(Type::Modify, entry(dst, nexthop(number + 1)?)),
            _ => update(Type::Insert, entry(prefix(ROUTES + number)?, right)),
        })
    };
    (0..ROUTES / WRONG_ONE_IN).map(wrong).collect()
}

/// The session, and another client that makes entries wrong behind its back.
struct Bench {
    handle: SwitchHandle,
    client: Client,
    address: String,
    stop: CancellationToken,
}

impl Bench {
    async fn start(address: &str) -> Result<Self, BenchError> {
        let switch = Switch {
            name: "bench".to_owned(),
            address: address.to_owned(),
            device_id: DEVICE,
            slow_path_port: SwitchPort::new(SLOW_PATH).ok_or_else(|| failed("port"))?,
            role: None,
            device: String::new(),
            take_over: true,
        };
        let connected = Connected::open(&switch, PATIENCE)
            .await
            .map_err(BenchError::failed)?;
        let client = connected.client().clone();
        let stop = CancellationToken::new();
        let parts = SessionParts {
            meters: Vec::new(),
            scope: Scope::All,
            peerings: None,
            engine: None,
            resolver: Arc::new(|_, _| {}),
            stop: stop.clone(),
        };
        let (handle, _) = SwitchHandle::start(connected, parts);
        Ok(Self {
            handle,
            client,
            address: address.to_owned(),
            stop,
        })
    }

    /// Wants everything, and waits until it is there.
    async fn fill(&self) -> Result<(), BenchError> {
        let nexthops = (0..NEXTHOPS).map(|number| {
            let to = Nexthop {
                interface: InterfaceId::MIN,
                gateway: Some(IpAddr::from([10, 0, 0, number as u8])),
                mtu: None,
            };
            Ok(NetworkOp::SetNexthop(nexthop(number)?, to))
        });
        self.handle
            .apply(nexthops.collect::<Result<_, BenchError>>()?)
            .await;
        for from in (0..ROUTES).step_by(BATCH as usize) {
            self.handle
                .apply(ops(from..(from + BATCH).min(ROUTES))?)
                .await;
        }
        self.handle.complete().await;
        let begun = Instant::now();
        while !self.handle.is_converged() {
            if begun.elapsed() > PATIENCE {
                return Err(BenchError::failed(format!("{:?}", self.handle.view())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn make_wrong(&self) -> Result<(), BenchError> {
        let id = self.client.election_id();
        let config = ClientConfig::new(&self.address, DEVICE, id);
        let other = Client::connect(config).await.map_err(BenchError::failed)?;
        other.write(wrongs()?).await.map_err(BenchError::failed)
    }

    async fn repair(&self) -> Result<Repair, BenchError> {
        let repair = self.handle.reconcile().await.map_err(BenchError::failed)?;
        let found: u64 = repair.found.iter().map(|(_, count)| count).sum();
        let wrong = u64::from(ROUTES / WRONG_ONE_IN);
        if (found, repair.left, repair.refused) == (wrong, 0, 0) {
            return Ok(repair);
        }
        Err(BenchError::failed(format!(
            "{wrong} entries were wrong, and it did {repair:?}"
        )))
    }
}

/// Forgets the highest resident memory so far.
fn forget_peak() -> Result<(), BenchError> {
    std::fs::write("/proc/self/clear_refs", "5").map_err(BenchError::failed)
}

/// The highest resident memory since, in bytes.
fn peak_bytes() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(BenchError::failed)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| failed("/proc/self/status has no VmHWM"))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The benchmark.
pub(crate) fn run(report: &mut Report) -> Result<(), BenchError> {
    let server = Server::start()?;
    let runtime = tokio::runtime::Runtime::new().map_err(BenchError::failed)?;
    runtime.block_on(measure(&server.address, report))
}

async fn measure(address: &str, report: &mut Report) -> Result<(), BenchError> {
    let before = resident_bytes(std::process::id())?;
    let begun = Instant::now();
    let bench = Bench::start(address).await?;
    bench.fill().await?;
    let filled = begun.elapsed().as_secs_f64();
    let mut totals = Vec::new();
    let (mut read, mut compared, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for _ in 0..RUNS {
        bench.make_wrong().await?;
        forget_peak()?;
        let begun = Instant::now();
        let repair = bench.repair().await?;
        totals.push(begun.elapsed().as_secs_f64());
        peak = peak_bytes()?.max(peak);
        read.push(repair.read_in.as_secs_f64());
        compared.push(repair.compared_in.as_secs_f64());
        written.push(repair.written_in.as_secs_f64());
    }
    bench.stop.cancel();
    let total = median(totals);
    report.metric("read, diff and repair 1 M entries, 1 % wrong", total, "s");
    report.metric("read", median(read), "s");
    report.metric("diff", median(compared), "s");
    report.metric("repair", median(written), "s");
    report.metric("entries a second", f64::from(ROUTES) / total, "entries/s");
    report.metric("memory at its peak (RSS)", mib(peak), "MiB");
    report.metric("memory without entries", mib(before), "MiB");
    report.metric("filling the empty switch", filled, "s");
    Ok(())
}
