//! What the switches count, by interface, reason and VPC: a few entries of each, in one Read.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use p4runtime::client::Client;
use p4runtime::p4::v1::{CounterData, CounterEntry, Entity, TableEntry, entity};
use p4runtime::p4info::P4InfoIndex;
use shunt_api::v1;
use shunt_p4::tables::{
    ClassifyPort, ClassifyPortAction, ClassifyVxlan, ClassifyVxlanAction, EgressInterface,
    P4Table as _, Punt, PuntKey,
};
use shunt_p4::{PuntReason, SwitchDrop, VpcId, drops};

use crate::config::Config;

/// A switch that takes longer is left out of this sample.
const READ_WITHIN: Duration = Duration::from_millis(900);

/// The id of the counter of drops; 0 would be every counter.
static DROPS: LazyLock<u32> = LazyLock::new(|| {
    let index = P4InfoIndex::from_text(shunt_p4::P4INFO);
    let found = index.and_then(|index| index.counter(drops::COUNTER).map(|counter| counter.id));
    found.unwrap_or_default()
});

/// What it has counted since its entries were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Frames that came in on the interfaces.
    pub(super) received: v1::Traffic,
    /// Frames for egress interfaces, those of the slow path included.
    sent: v1::Traffic,
    from_slow_path: v1::Traffic,
    /// For an egress interface, and then too big for it.
    too_big: v1::Traffic,
    pub(super) drops: BTreeMap<SwitchDrop, u64>,
    /// Received and sent.
    pub(super) vpcs: BTreeMap<VpcId, [v1::Traffic; 2]>,
}

pub(super) fn add(to: &mut v1::Traffic, more: v1::Traffic) {
    to.packets = to.packets.saturating_add(more.packets);
    to.bytes = to.bytes.saturating_add(more.bytes);
}

fn without(from: v1::Traffic, less: v1::Traffic) -> v1::Traffic {
    v1::Traffic {
        packets: from.packets.saturating_sub(less.packets),
        bytes: from.bytes.saturating_sub(less.bytes),
    }
}

fn traffic(data: Option<&CounterData>) -> v1::Traffic {
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    v1::Traffic {
        packets: data.map_or(0, |data| count(data.packet_count)),
        bytes: data.map_or(0, |data| count(data.byte_count)),
    }
}

impl Counts {
    /// Frames that left without the slow path.
    pub(super) fn forwarded(&self) -> v1::Traffic {
        without(without(self.sent, self.from_slow_path), self.too_big)
    }

    pub(super) fn merge(&mut self, other: Self) {
        add(&mut self.received, other.received);
        add(&mut self.sent, other.sent);
        add(&mut self.from_slow_path, other.from_slow_path);
        add(&mut self.too_big, other.too_big);
        for (reason, packets) in other.drops {
            *self.drops.entry(reason).or_default() += packets;
        }
        for (vpc, [received, sent]) in other.vpcs {
            let of_vpc = self.vpcs.entry(vpc).or_default();
            add(&mut of_vpc[0], received);
            add(&mut of_vpc[1], sent);
        }
    }

    fn came_in(&mut self, vpc: VpcId, count: v1::Traffic) {
        add(&mut self.vpcs.entry(vpc).or_default()[0], count);
    }

    /// Takes an entry as the switch sent it; what is none of ours counts for nothing.
    fn table_entry(&mut self, config: &Config, entry: &TableEntry) {
        let count = traffic(entry.counter_data.as_ref());
        match entry.table_id {
            _ if entry.is_default_action => {}
            ClassifyPort::ID => match ClassifyPort::from_entry(entry).map(|found| found.action) {
                Ok(ClassifyPortAction::SetInterface { vpc, .. }) => {
                    add(&mut self.received, count);
                    self.came_in(vpc, count);
                }
                Ok(ClassifyPortAction::FromSlowPath) => add(&mut self.from_slow_path, count),
                Err(_) => {}
            },
            // The underlay has them too: they came in by it.
            ClassifyVxlan::ID => {
                if let Ok(ClassifyVxlanAction::SetTunnelInterface { vpc, .. }) =
                    ClassifyVxlan::from_entry(entry).map(|found| found.action)
                {
                    self.came_in(vpc, count);
                }
            }
            EgressInterface::ID => {
                if let Ok(found) = EgressInterface::from_entry(entry) {
                    add(&mut self.sent, count);
                    let interface = config.interface(found.key.interface);
                    if let Some(vpc) = interface.map(|found| found.interface.vpc) {
                        add(&mut self.vpcs.entry(vpc).or_default()[1], count);
                    }
                }
            }
            Punt::ID => {
                let key = PuntKey::from_matches(&entry.r#match);
                if key.is_ok_and(|key| key.reason == PuntReason::Mtu) {
                    add(&mut self.too_big, count);
                }
            }
            _ => {}
        }
    }
}

/// Everything counted, or why not.
pub(super) async fn read(client: &Client, config: &Config) -> Result<Counts, String> {
    let tables = [
        ClassifyPort::ID,
        ClassifyVxlan::ID,
        EgressInterface::ID,
        Punt::ID,
    ];
    let tables = tables.map(|table_id| {
        entity::Entity::TableEntry(TableEntry {
            table_id,
            counter_data: Some(CounterData::default()),
            ..Default::default()
        })
    });
    let cells = entity::Entity::CounterEntry(CounterEntry {
        counter_id: *DROPS,
        ..Default::default()
    });
    let question = tables.into_iter().chain([cells]);
    let question = question.map(|one| Entity { entity: Some(one) }).collect();
    let answer = tokio::time::timeout(READ_WITHIN, client.read(question)).await;
    let found = match answer {
        Ok(found) => found.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("it has not answered within {READ_WITHIN:?}")),
    };
    let mut counts = Counts::default();
    for one in found {
        match one.entity {
            Some(entity::Entity::TableEntry(entry)) => counts.table_entry(config, &entry),
            Some(entity::Entity::CounterEntry(cell)) => {
                let reason = cell.index.map_or(0, |index| index.index);
                if let Some(reason) = SwitchDrop::from_index(reason) {
                    counts
                        .drops
                        .insert(reason, traffic(cell.data.as_ref()).packets);
                }
            }
            _ => {}
        }
    }
    Ok(counts)
}
