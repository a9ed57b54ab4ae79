//! From a document to a configuration, or to everything that is wrong with it.

mod daemon;
mod interfaces;
mod nat;
mod offload;
mod static_nat;
mod switches;
mod tuning;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use shunt_p4::{TypeError, VpcId};
use shunt_slowpath::policy::Policy;

use super::document::{Document, SlowPathSection};
use super::fault::{Fault, Faults, known};
use super::model::{Config, SlowPath};

/// Linux: `IFNAMSIZ` less the terminating zero.
const DEVICE_NAME_MAX: usize = 15;
/// Longest name of anything in a document, bytes.
const NAME_MAX: usize = 64;
/// Memory of the slow path, MiB.
const MEMORY_MB: std::ops::RangeInclusive<i64> = 64..=1_048_576;
/// Its threads.
const WORKERS: std::ops::RangeInclusive<i64> = 1..=shunt_slowpath::config::MAX_WORKERS as i64;
/// CPU numbers that Linux takes.
const CPUS: std::ops::RangeInclusive<i64> = 0..=1023;
/// Connections of the slow path.
const CONNECTIONS: std::ops::RangeInclusive<i64> = 1024..=16_777_216;

/// Checks the whole document.
///
/// # Errors
/// Every fault, in the order of the document's sections.
pub fn validate(document: &Document) -> Result<Config, Vec<Fault>> {
    let mut faults = Faults::default();
    let metrics = daemon::metrics(&document.daemon, &mut faults);
    let api = daemon::api(&document.daemon, &mut faults);
    let switches = switches::switches(document, &mut faults);
    let slow_path = slow_path(document, &mut faults);
    let vpcs = interfaces::vpcs(document, &mut faults);
    let by_name = Names::new(vpcs.iter().map(|vpc| (vpc.vpc.name.as_str(), vpc.vpc.id)));
    let interfaces = interfaces::interfaces(document, &by_name, &switches, &mut faults);
    let masquerades = nat::masquerades(document, &by_name, &interfaces, &mut faults);
    let static_nats =
        static_nat::static_nats(document, &by_name, &interfaces, &masquerades, &mut faults);
    let port_forwards = nat::port_forwards(document, &by_name, &static_nats, &mut faults);
    let peerings = nat::peerings(document, &by_name, &mut faults);
    let timeouts = tuning::timeouts(&document.timeouts, &mut faults);
    let connections = slow_path.as_ref().map_or(0, |slow_path| {
        let workers = slow_path.workers.into();
        slow_path.connections.saturating_mul(workers)
    });
    let limits = tuning::limits(&document.limits, connections, &mut faults);
    let punt_meters = tuning::punt_meters(&document.limits, &mut faults);
    let offload = offload::policy(&document.offload, &mut faults);
    let vpc_named = |name: &str| {
        let found = vpcs.iter().find(|found| found.vpc.name == name)?;
        Some(found.vpc.id)
    };
    let engine = offload::engine(&document.offload, &document.vpc, vpc_named, &mut faults);

    let faults = faults.into_vec();
    let weights = vpcs.iter().map(|vpc| (vpc.vpc.id, vpc.weight)).collect();
    match (api, slow_path, timeouts, limits, offload, engine) {
        (Some(api), Some(slow_path), Some(timeouts), Some(limits), Some(offload), Some(engine))
            if faults.is_empty() =>
        {
            Ok(Config {
                api,
                metrics,
                switches: switches.into_iter().flatten().collect(),
                slow_path,
                vpcs,
                interfaces: interfaces.into_iter().map(|found| found.config).collect(),
                policy: Policy {
                    masquerades,
                    static_nat: static_nats,
                    port_forwards,
                    peerings,
                    timeouts,
                    limits,
                    offload,
                    weights,
                },
                engine,
                punt_meters,
            })
        }
        _ => Err(faults),
    }
}

fn slow_path(document: &Document, faults: &mut Faults) -> Option<SlowPath> {
    let Some(section) = &document.slow_path else {
        faults.add(
            "slow_path",
            "the section is missing: name the Linux interface towards the switch's slow-path \
             port in slow_path.device",
        );
        return None;
    };
    let memory_mb = within("slow_path.memory_mb", section.memory_mb, MEMORY_MB, faults);
    let connections = within(
        "slow_path.connections",
        section.connections,
        CONNECTIONS,
        faults,
    );
    let workers = within("slow_path.workers", section.workers, WORKERS, faults);
    let cpus = cpus(section, faults);
    Some(SlowPath {
        workers: workers?,
        cpus: cpus?,
        memory_mb: memory_mb?,
        connections: connections?,
        state_file: match &section.state_file {
            None => Some(Path::new(&document.daemon.api_socket).with_extension("state")),
            Some(path) if path.is_empty() => None,
            Some(path) => Some(path.into()),
        },
    })
}

/// The workers' CPUs: no more than workers, each once.
fn cpus(section: &SlowPathSection, faults: &mut Faults) -> Option<Vec<usize>> {
    if section.cpus.len() as i64 > section.workers {
        faults.add(
            "slow_path.cpus",
            format!(
                "{} CPUs for {} workers (slow_path.workers)",
                section.cpus.len(),
                section.workers
            ),
        );
        return None;
    }
    let mut cpus = Vec::new();
    for (n, cpu) in section.cpus.iter().enumerate() {
        let path = format!("slow_path.cpus[{n}]");
        let cpu: u16 = within(path.as_str(), *cpu, CPUS, faults)?;
        let cpu = usize::from(cpu);
        if cpus.contains(&cpu) {
            faults.add(path, format!("CPU {cpu} is another worker's already"));
            return None;
        }
        cpus.push(cpu);
    }
    Some(cpus)
}

/// Names of one kind and what they stand for.
pub(super) struct Names<'a> {
    ids: HashMap<&'a str, VpcId>,
    order: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn new(pairs: impl Iterator<Item = (&'a str, VpcId)>) -> Self {
        let (mut ids, mut order) = (HashMap::new(), Vec::new());
        for (name, id) in pairs {
            ids.insert(name, id);
            order.push(name);
        }
        Self { ids, order }
    }

    /// The VPC of that name, or a fault at `path` that lists those there are.
    pub(super) fn vpc(
        &self,
        path: impl Into<String>,
        name: &str,
        faults: &mut Faults,
    ) -> Option<VpcId> {
        let id = self.ids.get(name).copied();
        if id.is_none() {
            faults.add(
                path,
                format!(
                    "no VPC named {name:?} {}",
                    known(self.order.iter().copied())
                ),
            );
        }
        id
    }
}

/// A number of a type that knows its range.
pub(super) fn number<T: TryFrom<u64, Error = TypeError>>(
    path: impl Into<String>,
    value: i64,
    faults: &mut Faults,
) -> Option<T> {
    match u64::try_from(value) {
        Ok(value) => faults.check(path, T::try_from(value)),
        Err(_) => {
            // Let the type say what it allows.
            let allowed = T::try_from(u64::MAX).err().map(|error| {
                error
                    .to_string()
                    .replace(&u64::MAX.to_string(), &value.to_string())
            });
            faults.add(
                path,
                allowed.unwrap_or_else(|| format!("{value} is negative")),
            );
            None
        }
    }
}

/// A plain number within bounds.
pub(super) fn within<T: TryFrom<i64>>(
    path: impl Into<String>,
    value: i64,
    range: std::ops::RangeInclusive<i64>,
    faults: &mut Faults,
) -> Option<T> {
    let converted = T::try_from(value).ok().filter(|_| range.contains(&value));
    if converted.is_none() {
        faults.add(
            path,
            format!(
                "{value} is out of range: {} to {}",
                range.start(),
                range.end()
            ),
        );
    }
    converted
}

/// A name that output and commands can carry.
pub(super) fn name(path: impl Into<String>, name: &str, faults: &mut Faults) {
    let good = !name.is_empty()
        && name.len() <= NAME_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !good {
        faults.add(
            path,
            format!("{name:?} is no name: 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"),
        );
    }
}

/// A name that Linux accepts for a network device.
pub(super) fn device_name(path: impl Into<String>, name: &str, faults: &mut Faults) {
    if name.len() > DEVICE_NAME_MAX {
        faults.add(
            path,
            format!(
                "{name:?} has {} characters, and Linux allows a device {DEVICE_NAME_MAX}",
                name.len()
            ),
        );
    } else if name.is_empty()
        || name == "."
        || name == ".."
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/:%,=".contains(&byte))
    {
        faults.add(path, format!("{name:?} is no name of a Linux device"));
    }
}

/// Notes what was seen before under the same key.
pub(super) struct Unique<K> {
    what: &'static str,
    seen: HashMap<K, String>,
}

impl<K: std::hash::Hash + Eq + fmt::Display> Unique<K> {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            seen: HashMap::new(),
        }
    }

    /// A fault at `path` if the key has been there.
    pub(super) fn claim(&mut self, path: String, key: K, faults: &mut Faults) {
        match self.seen.get(&key) {
            Some(first) => {
                let taken = format!("{} {key} is taken by {first}", self.what);
                faults.add(path, taken.trim_start());
            }
            None => {
                self.seen.insert(key, path);
            }
        }
    }
}
