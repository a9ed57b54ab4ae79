//! Carries every change to the workers and to the switches: what the kernel tells and what the
//! operator configures, one after another.
//!
//! Workers first: what a switch does not know yet it sends to them. A change that contradicts
//! connections waits between the two, at each switch's gate, until their entries have left that
//! switch, so that no packet takes a new route by an old translation.

use std::time::Duration;

use shunt_p4::{Encap, Interface, InterfaceId, NetworkOp, Vpc, VpcId};
use shunt_slowpath::worker::Reviewed;
use shunt_slowpath::{FibWriter, ManagerHandle};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Config, Current, InterfaceConfig};
use crate::gates::Gates;
use crate::kernel::{Batch, MirrorHandle};
use crate::switch::Switches;
use crate::taps::{Taps, tap_configs};

/// When taps that the kernel refused are tried again.
pub const TAPS_AGAIN: Duration = Duration::from_secs(5);

/// How far the workers and the switches have been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The newest revision of the configuration.
    pub revision: u64,
    /// The workers' tables that have it.
    pub generation: u64,
}

/// What it needs.
pub struct Pump {
    /// The workers' tables.
    pub fib: FibWriter,
    /// The switches.
    pub switches: Switches,
    /// The ways to them.
    pub gates: Gates,
    /// The configuration.
    pub configuration: watch::Receiver<Current>,
    /// The kernel's side of the interfaces.
    pub taps: Taps,
    /// The workers' tables that may contradict connections, the newest of them.
    pub contradicting: u64,
    /// What tells the kernel's changes.
    pub mirror: MirrorHandle,
    /// The kernel's changes.
    pub batches: mpsc::Receiver<Batch>,
    /// Counts the times that connections of the daemon before have been taken back.
    pub taken_back: watch::Receiver<u64>,
    /// Becomes true with the mirror's first load.
    pub synchronised: watch::Sender<bool>,
    /// What workers and switches have been told.
    pub applied: watch::Sender<Applied>,
    /// What the kernel refused of the taps; `None`: nothing.
    pub refused: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").finish_non_exhaustive()
    }
}

impl Pump {
    /// Until the mirror ends.
    pub async fn run(mut self) {
        let mut configured = 0;
        let first = self.configuration.borrow_and_update().clone();
        let mut config = first.config;
        self.fib.set_policy(config.policy.clone());
        self.apply(configured_ops(&config)).await;
        self.applied(first.revision);
        let mut again = None;
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.configuration.changed() => {
                    let next = self.configuration.borrow_and_update().clone();
                    self.configure(&config, &next.config, &mut configured).await;
                    config = next.config;
                    self.applied(next.revision);
                }
                Ok(()) = self.taken_back.changed() => {
                    // They were judged by the rules; by the routes they are now.
                    self.fib.review();
                    self.publish();
                }
                batch = self.batches.recv() => match batch {
                    Some(batch) => self.batch(batch).await,
                    None => return,
                },
                // What the kernel refused may be possible by now.
                () = until(again), if again.is_some() => {
                    again = None;
                    self.set_taps(&config, &mut configured).await;
                }
            }
            // From the refusal on, however much happens meanwhile.
            let refused = self.refused.borrow().is_some();
            again = refused.then(|| again.unwrap_or_else(|| Instant::now() + TAPS_AGAIN));
        }
    }

    fn applied(&self, revision: u64) {
        let generation = self.fib.generation();
        self.applied.send_replace(Applied {
            revision,
            generation,
        });
    }

    async fn batch(&mut self, batch: Batch) {
        tracing::debug!(ops = batch.ops.len(), reason = ?batch.reason, "kernel batch");
        self.apply(batch.ops).await;
        if batch.complete && !self.synchronised.send_replace(true) {
            self.gates.complete().await;
        }
    }

    async fn apply(&mut self, ops: Vec<NetworkOp>) {
        if ops.is_empty() {
            return;
        }
        self.fib.apply(ops.iter().cloned());
        self.publish();
        self.gates.apply(self.contradicting, &ops).await;
    }

    /// From one configuration to another. What goes leaves first: connections by the rules, then
    /// routes, then interfaces and VPCs; what comes is there before anything leads to it.
    async fn configure(&mut self, old: &Config, new: &Config, configured: &mut u64) {
        if old.policy != new.policy {
            self.fib.set_policy(new.policy.clone());
            self.publish();
        }
        if old.engine != new.engine {
            for engine in self
                .switches
                .iter()
                .filter_map(|member| member.engine.as_ref())
            {
                // An engine that has ended is in the status.
                if engine.set_policy(new.engine.clone()).await.is_err() {
                    tracing::warn!("the offload engine has ended, and keeps its policy");
                }
            }
        }
        let stays = |found: &InterfaceConfig| {
            let of = |found: &InterfaceConfig| (found.interface.vpc, found.interface.switch);
            let now = new.interface(found.interface.id);
            now.is_some_and(|now| (of(now), &now.tap) == (of(found), &found.tap))
        };
        let gone = old.interfaces.iter().filter(|found| !stays(found));
        let gone: Vec<InterfaceId> = gone.map(|found| found.interface.id).collect();
        let gone_vpcs = old.vpcs.iter().map(|vpc| vpc.vpc.id);
        let gone_vpcs: Vec<VpcId> = gone_vpcs.filter(|id| new.vpc(*id).is_none()).collect();
        if !gone.is_empty() || !gone_vpcs.is_empty() {
            let mut less = old.clone();
            less.interfaces
                .retain(|found| !gone.contains(&found.interface.id));
            less.vpcs.retain(|vpc| !gone_vpcs.contains(&vpc.vpc.id));
            self.mirror(&less, configured).await;
            // Tunnels before what is under them.
            let (tunnels, ports): (Vec<_>, Vec<_>) = gone.into_iter().partition(|id| {
                old.interface(*id)
                    .is_some_and(|found| is_tunnel(&found.interface))
            });
            let interfaces = tunnels.into_iter().chain(ports);
            let vpcs = gone_vpcs.into_iter().map(NetworkOp::RemoveVpc);
            let ops = interfaces.map(NetworkOp::RemoveInterface).chain(vpcs);
            self.apply(ops.collect()).await;
        }
        let (meters, peerings) = (&new.punt_meters, &new.policy.peerings);
        if old.punt_meters != *meters || old.policy.peerings != *peerings {
            self.gates
                .configure(self.contradicting, meters, peerings)
                .await;
        }
        let same = configured_ops(old);
        let mut ops = configured_ops(new);
        ops.retain(|op| !same.contains(op));
        self.apply(ops).await;
        let changed_mode = |vpc: &Vpc| {
            let before = old.vpc(vpc.id);
            before.is_some_and(|before| before.vpc.stateless != vpc.stateless)
        };
        let peered_anew = old.policy.peerings != *peerings;
        self.reroute(|vpc| changed_mode(vpc) || (peered_anew && vpc.stateless))
            .await;
        if tap_configs(old) != tap_configs(new) || tables(old) != tables(new) {
            self.set_taps(new, configured).await;
        }
    }

    /// Makes the taps what they should be, and mirrors them.
    async fn set_taps(&mut self, config: &Config, configured: &mut u64) {
        let refused = self.taps.become_(&tap_configs(config)).await.err();
        if let Some(error) = &refused {
            tracing::error!(%error, "trying again in {TAPS_AGAIN:?}");
        }
        let refused = refused.map(|error| error.to_string());
        self.refused.send_replace(refused);
        self.mirror(config, configured).await;
    }

    /// Mirrors these interfaces and tables from now on, and hands on what that changes.
    async fn mirror(&mut self, config: &Config, configured: &mut u64) {
        let wanted = |id: InterfaceId| config.interface(id).is_some();
        let mut interfaces = self.taps.interfaces().await;
        interfaces.retain(|tap| wanted(tap.interface.id));
        if self
            .mirror
            .configure(interfaces, tables(config))
            .await
            .is_err()
        {
            return;
        }
        *configured += 1;
        while let Some(batch) = self.batches.recv().await {
            let seen = batch.configured;
            self.batch(batch).await;
            if seen >= *configured {
                return;
            }
        }
    }

    /// Says the routes of some VPCs to the switches again.
    async fn reroute(&mut self, which: impl Fn(&Vpc) -> bool) {
        let mut ops = Vec::new();
        // A million routes at most, and seldom.
        if let Some(fib) = self.fib.published() {
            let vpcs: Vec<VpcId> = fib
                .vpcs()
                .filter(|vpc| which(vpc))
                .map(|vpc| vpc.id)
                .collect();
            for vpc in vpcs {
                let routes = fib.routes(vpc);
                ops.extend(routes.map(|(net, route)| NetworkOp::SetRoute(vpc, net, route.clone())));
            }
        }
        if !ops.is_empty() {
            self.gates.apply(self.contradicting, &ops).await;
        }
    }

    /// Shows the workers what was queued.
    fn publish(&mut self) {
        if self.fib.publish() {
            self.contradicting = self.fib.generation();
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the configuration says of the network; underlays before the tunnels over them.
fn configured_ops(config: &Config) -> Vec<NetworkOp> {
    let vpcs = config.vpcs.iter();
    let vpcs = vpcs.map(|vpc| NetworkOp::SetVpc(vpc.vpc.clone()));
    let interfaces = || config.interfaces.iter().map(|found| &found.interface);
    let ports = interfaces().filter(|interface| !is_tunnel(interface));
    let tunnels = interfaces().filter(|interface| is_tunnel(interface));
    let interfaces = ports.chain(tunnels).cloned().map(NetworkOp::SetInterface);
    vpcs.chain(interfaces).collect()
}

const fn is_tunnel(interface: &Interface) -> bool {
    matches!(interface.encap, Encap::Vxlan { .. })
}

/// Each VPC's kernel table.
fn tables(config: &Config) -> Vec<(VpcId, u32)> {
    let vpcs = config.vpcs.iter();
    vpcs.map(|vpc| (vpc.vpc.id, vpc.table)).collect()
}

/// Whether the workers and the switches have done all that a revision asks.
#[derive(Clone, Debug)]
pub struct Convergence {
    /// What the kernel refused of the taps.
    pub refused: watch::Receiver<Option<String>>,
    /// What they have been told.
    pub applied: watch::Receiver<Applied>,
    /// The workers.
    pub slow_path: ManagerHandle,
    /// The switches.
    pub switches: Switches,
    /// The ways to them.
    pub gates: Gates,
}

impl Convergence {
    /// What is still to be done for a revision; `None`: nothing.
    pub async fn missing(&self, revision: u64) -> Option<String> {
        let applied = *self.applied.borrow();
        if applied.revision < revision {
            return Some("it is being handed to the workers and the switches".to_owned());
        }
        if let Some(refused) = &*self.refused.borrow() {
            return Some(refused.clone());
        }
        match self.slow_path.reviewed().await {
            Ok(seen) if seen.generation < applied.generation => {
                return Some("the workers still hold their connections against it".to_owned());
            }
            Ok(seen) if seen.leaving() > 0 => {
                return Some(format!(
                    "{} connections that it contradicts are still in {}",
                    seen.leaving(),
                    self.where_they_are(&seen)
                ));
            }
            Ok(_) => {}
            Err(error) => return Some(error.to_string()),
        }
        // Who has not been told is not behind for that.
        let mut behind = self.gates.closed();
        behind.extend(self.switches.behind());
        behind.sort_unstable();
        behind.dedup();
        match behind.len() {
            0 => None,
            _ if self.switches.iter().len() == 1 => {
                Some("the switch does not hold all of it yet".to_owned())
            }
            1 => Some(format!(
                "switch {} does not hold all of it yet",
                behind.join("")
            )),
            _ => Some(format!(
                "switches {} do not hold all of it yet",
                behind.join(", ")
            )),
        }
    }

    /// The switches that connections have to leave.
    fn where_they_are(&self, seen: &Reviewed) -> String {
        if self.switches.iter().len() == 1 {
            return "the switch".to_owned();
        }
        let all = self.switches.iter().zip(seen.leaving);
        let names = all.filter(|(_, leaving)| *leaving > 0);
        let names = names.map(|(member, _)| member.switch.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}
