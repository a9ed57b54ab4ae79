//! The switch's side of a traced packet: the frame as it is on the wire, and its way in words.

use std::time::{SystemTime, UNIX_EPOCH};

use etherparse::PacketBuilder;
use p4runtime::p4info::P4InfoIndex;
use shunt_api::v1;
use shunt_p4::frame::ETHERTYPE;
use shunt_p4::{Encap, Interface, InterfaceId, PuntReason, ShuntHeader, SwitchDrop, VpcId, drops};
use shunt_switch::log::{Fields, KeyField, Outcome, Step};

use super::trace::{STATION, TAGS, ethertype};
use crate::config::Config;
use crate::hardware::{Walk, walk};
use crate::switch::Member;

/// The UDP port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;
/// Any port of the underlay's sender.
const ENTROPY_PORT: u16 = 0xc000;
/// Ethertypes of tags: a customer's, and a service provider's outside it (IEEE 802.1Q).
const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// Port and frame as the switch receives them. A frame that has tags is taken to have all of its
/// encapsulation; one of a tunnel to have none.
pub(super) fn on_wire(config: &Config, interface: &Interface, frame: &[u8]) -> (u16, Vec<u8>) {
    let port = interface.port.get();
    match &interface.encap {
        Encap::Vxlan {
            vni,
            underlay,
            local,
            remote,
        } => {
            let under = config.interface(*underlay).map(|found| &found.interface);
            let mac = under.map_or(interface.mac, |under| under.mac);
            // Flags: the VNI is valid.
            let header = [&[8, 0, 0, 0][..], &(vni.get() << 8).to_be_bytes()].concat();
            let payload = [&header[..], frame].concat();
            let builder = PacketBuilder::ethernet2(STATION, mac.0)
                .ipv4(remote.octets(), local.octets(), 64)
                .udp(ENTROPY_PORT, VXLAN_PORT);
            let mut outer = Vec::with_capacity(builder.size(payload.len()));
            // A frame that is too long for IP is none that arrives.
            if builder.write(&mut outer, &payload).is_err() {
                return (port, frame.to_vec());
            }
            match under {
                Some(under) => (port, tagged(&under.encap, outer)),
                None => (port, outer),
            }
        }
        encap => (port, tagged(encap, frame.to_vec())),
    }
}

fn tagged(encap: &Encap, mut frame: Vec<u8>) -> Vec<u8> {
    let has_tags = ethertype(&frame).is_some_and(|found| TAGS.contains(&found));
    if has_tags || frame.len() < 12 {
        return frame;
    }
    let tags: Vec<u8> = match encap {
        Encap::Untagged | Encap::Vxlan { .. } => Vec::new(),
        Encap::Vlan(id) => tag(CUSTOMER_TAG, id.get()).to_vec(),
        Encap::Qinq { outer, inner } => [
            tag(SERVICE_TAG, outer.get()),
            tag(CUSTOMER_TAG, inner.get()),
        ]
        .concat(),
    };
    frame.splice(12..12, tags);
    frame
}

fn tag(ethertype: u16, id: u16) -> [u8; 4] {
    let [a, b] = ethertype.to_be_bytes();
    let [c, d] = id.to_be_bytes();
    [a, b, c, d]
}

/// What the switch does with a frame, and what it sends to the slow path of it.
pub(super) async fn trace(
    config: &Config,
    member: &Member,
    port: u16,
    frame: &[u8],
) -> (v1::HardwareTrace, Option<Vec<u8>>) {
    let mut told = v1::HardwareTrace {
        switch: member.switch.name.clone(),
        ..Default::default()
    };
    let index = match P4InfoIndex::from_text(shunt_p4::P4INFO) {
        Ok(index) => index,
        Err(error) => {
            told.error = error.to_string();
            return (told, None);
        }
    };
    let pipeline = (shunt_p4::PIPELINE_JSON, &index);
    let walk = match walk(member.handle.client(), pipeline, port.into(), frame).await {
        Ok(walk) => walk,
        Err(error) => {
            told.error = error.to_string();
            return (told, None);
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    told.read_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    told.entries_read = walk.entries as u64;
    told.tables = tables(config, &index, &walk);
    let slow_path = member.switch.slow_path_port.get();
    let punted = verdict(&walk, slow_path.into(), &mut told);
    (told, punted)
}

/// Where it ends. A frame for the slow path is what that gets.
fn verdict(walk: &Walk, slow_path: u32, told: &mut v1::HardwareTrace) -> Option<Vec<u8>> {
    let left = |outcome: &&Outcome| outcome.port.is_some();
    let Some(outcome) = walk.record.outcomes.iter().find(left) else {
        told.verdict = "dropped".to_owned();
        let dropped = dropped(walk).map(|reason| reason.as_str().to_owned());
        told.reason = dropped.unwrap_or_else(|| {
            let outcome = walk.record.outcomes.first();
            outcome
                .map(|found| found.reason.clone())
                .unwrap_or_default()
        });
        return None;
    };
    told.port = outcome.port;
    told.frame = Walk::frame(outcome);
    if outcome.port == Some(slow_path) && ethertype(&told.frame) == Some(ETHERTYPE) {
        told.verdict = "slow_path".to_owned();
        let header = ShuntHeader::parse(&told.frame);
        let reason = header.and_then(|header| PuntReason::from_u8(header.reason));
        told.reason = reason.map_or("", PuntReason::as_str).to_owned();
        return Some(told.frame.clone());
    }
    told.verdict = "forwarded".to_owned();
    // The last look-up by interface is the one that it leaves by.
    let tables = told.tables.iter().rev();
    let mut keys = tables.flat_map(|table| &table.key);
    let egress = keys.find(|field| field.name == "interface");
    told.egress = egress.map(|field| field.value.clone()).unwrap_or_default();
    None
}

/// The cell of the counter of drops that counted it.
fn dropped(walk: &Walk) -> Option<SwitchDrop> {
    let steps = walk.record.passes.iter().flat_map(|pass| &pass.steps);
    let mut cells = steps.filter_map(|step| match step {
        Step::Array { array, index, .. } => Some((array, index)),
        _ => None,
    });
    cells.find_map(|(array, index)| {
        let name = array.rsplit('.').next()?;
        let index = i64::try_from(*index).ok()?;
        (name == drops::COUNTER).then(|| SwitchDrop::from_index(index))?
    })
}

fn tables(config: &Config, index: &P4InfoIndex, walk: &Walk) -> Vec<v1::HardwareTable> {
    let mut all: Vec<v1::HardwareTable> = Vec::new();
    // An action belongs to the look-up before it, if that has none yet.
    let mut open = false;
    for step in walk.record.passes.iter().flat_map(|pass| &pass.steps) {
        match step {
            Step::Table {
                table,
                key,
                result,
                priority,
                member,
                group,
                ..
            } => {
                let alias = index.table(table).map(|found| found.alias.clone());
                let differs = |field: &&KeyField| {
                    field
                        .entry
                        .as_ref()
                        .is_some_and(|entry| *entry != field.value)
                };
                all.push(v1::HardwareTable {
                    table: alias.unwrap_or_else(|_| table.clone()),
                    key: key
                        .iter()
                        .map(|f| field(config, &f.name, &f.value))
                        .collect(),
                    result: (*result).to_owned(),
                    r#match: key
                        .iter()
                        .filter(differs)
                        .map(|f| field(config, &f.name, f.entry.as_deref().unwrap_or("*")))
                        .collect(),
                    priority: *priority,
                    group: *group,
                    member: *member,
                    action: None,
                });
                open = true;
            }
            Step::Action { action, arguments } if std::mem::take(&mut open) => {
                if let Some(last) = all.last_mut() {
                    last.action = Some(called(config, index, action, arguments));
                }
            }
            Step::NoAction | Step::Condition { .. } | Step::Statement { .. } => open = false,
            _ => {}
        }
    }
    all
}

fn called(
    config: &Config,
    index: &P4InfoIndex,
    action: &str,
    arguments: &Fields,
) -> v1::EntryAction {
    let alias = index.action(action).map(|found| found.alias.clone());
    let params = arguments.0.iter();
    v1::EntryAction {
        name: alias.unwrap_or_else(|_| action.to_owned()),
        params: params
            .map(|(name, value)| field(config, name, value))
            .collect(),
        weight: 0,
    }
}

/// VPCs and interfaces by their configured names.
fn field(config: &Config, name: &str, value: &str) -> v1::Field {
    let number = value.parse::<u16>().ok();
    let named = match name {
        "vpc" => number.and_then(VpcId::new).map(|id| config.vpc_name(id)),
        "interface" => {
            let id = number.and_then(InterfaceId::new);
            id.map(|id| config.interface_name(id))
        }
        _ => None,
    };
    v1::Field {
        name: name.to_owned(),
        value: named.unwrap_or_else(|| value.to_owned()),
    }
}
