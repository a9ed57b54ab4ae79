//! Taps that a killed daemon has left.
//!
//! They stay with their addresses, and so do the routes over them and the sessions of a routing
//! daemon: a new daemon that takes them finds the network as it was. One that does not fit the
//! configuration any more is removed, with all that hangs on it.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;

use super::requests::{Requests, collect, done};
use super::rules::{self, Rule};
use super::setup::{MAIN_TABLE, TapConfig};
use super::socket::SocketError;

/// Removes what nobody holds and the configuration has not, or has otherwise.
pub(super) async fn clear(requests: &Requests, configs: &[TapConfig]) -> Result<(), SocketError> {
    let rules = rules::ours(requests).await?;
    let configured: BTreeSet<&str> = configs.iter().map(|config| config.tap.as_str()).collect();
    let named = rules.iter().filter_map(Rule::device);
    let others: BTreeSet<&str> = named.filter(|name| !configured.contains(name)).collect();
    for name in others {
        if let Some(link) = left(requests, name).await? {
            remove(requests, link.header.index).await?;
            tracing::info!(tap = name, "removed: it is in no configuration any more");
        }
    }
    for config in configs {
        if let Some(link) = left(requests, &config.tap).await?
            && !fits(requests, &link, config, &rules).await?
        {
            remove(requests, link.header.index).await?;
            tracing::info!(tap = config.tap, "removed: it is configured otherwise now");
        }
    }
    Ok(())
}

/// Removes a link; one that is gone is as good.
pub(super) async fn remove(requests: &Requests, index: u32) -> Result<(), SocketError> {
    match done(requests.handle().link().del(index).execute()).await {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

/// The tap of that name, if there is one that no process holds.
async fn left(requests: &Requests, name: &str) -> Result<Option<LinkMessage>, SocketError> {
    let Ok(index) = nix::net::if_::if_nametoindex(name) else {
        return Ok(None);
    };
    let links = requests.handle().link().get().match_index(index).execute();
    let Ok(Some(link)) = links.into_stream().try_next().await else {
        return Ok(None);
    };
    let is_tap = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos
            .iter()
            .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Tun))),
        _ => false,
    });
    let held = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Carrier(1)));
    Ok((is_tap && !held).then_some(link))
}

/// Whether networks, MAC and table are as configured; addresses of pools that are not are removed.
/// What lacks is added later.
async fn fits(
    requests: &Requests,
    link: &LinkMessage,
    config: &TapConfig,
    rules: &[Rule],
) -> Result<bool, SocketError> {
    let mac = config.interface.mac.0;
    let same_mac = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Address(address) if *address == mac));
    let tables: BTreeSet<_> = rules
        .iter()
        .filter(|rule| rule.device() == Some(config.tap.as_str()))
        .map(Rule::table)
        .collect();
    let same_table = match config.table {
        MAIN_TABLE => tables.is_empty(),
        table => tables == BTreeSet::from([Some(table)]),
    };
    if !same_mac || !same_table {
        return Ok(false);
    }
    let addresses = requests.handle().address().get();
    let found = collect(addresses.set_link_index_filter(link.header.index).execute()).await?;
    let wanted: BTreeSet<IpNet> = config.all_addresses().collect();
    for message in found {
        match address(&message) {
            Some(net) if wanted.contains(&net) => {}
            // The kernel's own, of the link.
            Some(IpNet::V6(net)) if net.addr().is_unicast_link_local() => {}
            // Of a pool: no route hangs on it.
            Some(net) if net.prefix_len() == net.max_prefix_len() => {
                done(requests.handle().address().del(message).execute()).await?;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let address = message.attributes.iter().find_map(address)?;
    IpNet::new(address, message.header.prefix_len).ok()
}
