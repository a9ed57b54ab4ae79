//! Other taps while the daemon runs: what is the same stays untouched, with the sessions over it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use nix::errno::Errno;

use super::leftover;
use super::requests::{Requests, done};
use super::setup::{
    KernelSetup, MAIN_TABLE, SetupError, Tap, TapConfig, add_addresses, configure, connected_route,
    create_tap, set_mac_and_mtu, shared_addresses, wanted_rules,
};
use super::{settings, socket::SocketError};

impl KernelSetup {
    /// Makes the taps what these say. One that keeps its name, its interface and its table stays;
    /// its MAC, MTU and addresses become what they should be. One that goes is gone whoever holds
    /// its device. On an error all others are done, and the same call again does the rest.
    ///
    /// # Errors
    /// [`SetupError`] of the first thing that the kernel refused.
    pub async fn become_(&mut self, configs: &[TapConfig]) -> Result<(), SetupError> {
        let requests = Requests::open()?;
        // It would put back what goes.
        self.upkeep = None;
        let before = wanted_rules(&self.configs);
        let old: Vec<(TapConfig, Tap)> = std::mem::take(&mut self.configs)
            .into_iter()
            .zip(std::mem::take(&mut self.taps))
            .collect();
        let mut result = self.change(&requests, old, configs).await;
        let after = wanted_rules(&self.configs);
        // A rule that is not added now is added by the upkeep.
        for rule in before.iter().filter(|rule| !after.contains(rule)) {
            result = result.and(rule.remove(&requests).await.map_err(SetupError::from));
        }
        for rule in after.iter().filter(|rule| !before.contains(rule)) {
            result = result.and(rule.add(&requests).await.map_err(SetupError::from));
        }
        // Whatever was refused: what there is is kept.
        self.keep(requests)?;
        result
    }

    async fn change(
        &mut self,
        requests: &Requests,
        old: Vec<(TapConfig, Tap)>,
        configs: &[TapConfig],
    ) -> Result<(), SetupError> {
        let mut result = Ok(());
        let mut new = Vec::new();
        let (stay, go): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|(config, _)| configs.iter().any(|new| is_same_tap(config, new)));
        // A name may be taken over.
        for (_, tap) in &go {
            result = result.and(leftover::remove(requests, tap.interface.ifindex).await);
        }
        let mut result = result.map_err(SetupError::from);
        drop(go);
        for config in configs {
            let found = stay.iter().find(|(old, _)| is_same_tap(old, config));
            let done = match found {
                Some((old, tap)) => {
                    let mut tap = tap.clone();
                    let done = renew(requests, old, config, tap.interface.ifindex).await;
                    tap.interface.interface = config.interface.clone();
                    self.taps.push(tap);
                    // As it was, what is to be done is found again.
                    let is = if done.is_ok() { config } else { old };
                    self.configs.push(is.clone());
                    done
                }
                None => match create_tap(config) {
                    Ok(tap) => {
                        self.warnings.extend(settings::set(&config.tap).warnings);
                        new.push((config.clone(), tap.interface.ifindex));
                        self.taps.push(tap);
                        self.configs.push(config.clone());
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            result = result.and(done);
        }
        let shared = shared_addresses(&self.configs);
        for (config, index) in new {
            let done = configure(requests, &config, index, &shared).await;
            if done.is_err() {
                // Half made is not made: the next call makes it anew.
                let is_it = |tap: &Tap| tap.interface.ifindex == index;
                if let Some(at) = self.taps.iter().position(is_it) {
                    self.taps.remove(at);
                    self.configs.remove(at);
                }
                result = result.and(leftover::remove(requests, index).await.map_err(Into::into));
            }
            result = result.and(done);
        }
        result
    }
}

fn is_same_tap(old: &TapConfig, new: &TapConfig) -> bool {
    (&old.tap, old.table, old.interface.id, old.interface.vpc)
        == (&new.tap, new.table, new.interface.id, new.interface.vpc)
}

async fn renew(
    requests: &Requests,
    old: &TapConfig,
    new: &TapConfig,
    index: u32,
) -> Result<(), SetupError> {
    let failed = |what: String| {
        move |source| SetupError::Configure {
            tap: new.tap.clone(),
            what,
            source,
        }
    };
    let link = |config: &TapConfig| (config.interface.mac, config.interface.mtu);
    if link(old) != link(new) {
        set_mac_and_mtu(requests, index, &new.interface)
            .await
            .map_err(failed("setting its MAC address and MTU".to_owned()))?;
    }
    let addresses = |config: &TapConfig| config.all_addresses().collect::<BTreeSet<IpNet>>();
    let (before, wanted) = (addresses(old), addresses(new));
    for address in before.difference(&wanted) {
        remove_address(requests, index, *address, old.table)
            .await
            .map_err(failed(format!("removing address {address}")))?;
    }
    if before != wanted {
        add_addresses(requests, new, index).await?;
    }
    Ok(())
}

/// An address and the route to its link; one that is gone is as good.
async fn remove_address(
    requests: &Requests,
    index: u32,
    address: IpNet,
    table: u32,
) -> Result<(), SocketError> {
    let is_net = address.prefix_len() < address.max_prefix_len();
    if table != MAIN_TABLE && is_net {
        let route = connected_route(index, address, table);
        let gone = requests
            .submit(RouteNetlinkMessage::DelRoute(route), 0)
            .await;
        absent_is_fine(gone, Errno::ESRCH)?;
    }
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.family = match address {
        IpNet::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpNet::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    };
    if address.addr().is_ipv4() {
        message
            .attributes
            .push(AddressAttribute::Local(address.addr()));
    }
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    let gone = done(requests.handle().address().del(message).execute()).await;
    absent_is_fine(gone, Errno::EADDRNOTAVAIL)
}

fn absent_is_fine(result: Result<(), SocketError>, absent: Errno) -> Result<(), SocketError> {
    match result {
        Err(error) if error.errno() == Some(absent) => Ok(()),
        other => other,
    }
}
