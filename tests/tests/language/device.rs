//! A switch with one of the test programs loaded.

use std::path::Path;
use std::time::Duration;

use p4runtime::client::{Client, ClientConfig, PipelineAction};
use p4runtime::p4::config::v1::{P4Info, Preamble};
use p4runtime::p4::v1 as pb;
use p4runtime::p4info::parse_p4info_text;
use pb::entity::Entity;
use pb::field_match::FieldMatchType;
use pb::update::Type;
use shunt_testbed::{Result, binaries, sandbox};
use tokio::runtime::Runtime;

use crate::ports::{DEADLINE, Ports, Switch};

/// Ports of the switch.
pub const PORTS: &[u16] = &[1, 2, 3, 4, 5];

pub struct Device {
    ports: Ports,
    client: Client,
    info: P4Info,
    runtime: Runtime,
    // Last: what uses the switch ends before it.
    _switch: Switch,
}

/// Runs a test, named as the test program names it, on the embedded switch and on bmv2.
pub fn on_both(name: &str, program: &str, body: impl Fn(&mut Device)) {
    if !sandbox::is_inside() {
        let embedded = |runtime: &Runtime| Switch::embedded(runtime, PORTS);
        body(&mut Device::start(program, embedded).unwrap());
        if binaries::on_path("simple_switch_grpc").is_none() {
            let why = "not compared with bmv2: simple_switch_grpc is not on PATH";
            return sandbox::skip(name, why);
        }
    }
    sandbox::test(name, || {
        let bmv2 = |runtime: &Runtime| Switch::bmv2(runtime, PORTS);
        body(&mut Device::start(program, bmv2)?);
        Ok(())
    });
}

fn testdata(program: &str, end: &str) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join(format!("bmv2-testbed/switch/testdata/{program}{end}"))
}

impl Device {
    fn start(
        program: &str,
        switch: impl FnOnce(&Runtime) -> Result<(Switch, Ports, String)>,
    ) -> Result<Self> {
        let runtime = Runtime::new().unwrap();
        let (switch, ports, address) = switch(&runtime)?;
        let json = std::fs::read(testdata(program, ".json")).unwrap();
        let info = std::fs::read_to_string(testdata(program, ".p4info.txtpb")).unwrap();
        let info = parse_p4info_text(&info).unwrap();
        let client = runtime.block_on(async {
            let client = Client::connect(ClientConfig::new(address, 1, 1)).await;
            let client = client.unwrap();
            client.become_primary().await.unwrap();
            let action = PipelineAction::VerifyAndCommit;
            let set = client.set_pipeline(action, info.clone(), json, 1).await;
            set.unwrap();
            client
        });
        Ok(Self {
            ports,
            client,
            info,
            runtime,
            _switch: switch,
        })
    }

    /// The id of the object with this alias.
    fn id(&self, alias: &str) -> u32 {
        let info = &self.info;
        let heads = |head: Option<&Preamble>| head.filter(|h| h.alias == alias).map(|h| h.id);
        let mut all = info.tables.iter().map(|o| o.preamble.as_ref());
        let found = all.find_map(heads);
        let mut all = info.actions.iter().map(|o| o.preamble.as_ref());
        let found = found.or_else(|| all.find_map(heads));
        let mut all = info.action_profiles.iter().map(|o| o.preamble.as_ref());
        let found = found.or_else(|| all.find_map(heads));
        let mut all = info.counters.iter().map(|o| o.preamble.as_ref());
        let found = found.or_else(|| all.find_map(heads));
        let mut all = info.meters.iter().map(|o| o.preamble.as_ref());
        let found = found.or_else(|| all.find_map(heads));
        let mut all = info.digests.iter().map(|o| o.preamble.as_ref());
        let found = found.or_else(|| all.find_map(heads));
        found.unwrap_or_else(|| panic!("{alias} is not in the P4Info"))
    }

    /// An action call; all arguments are one byte.
    pub fn call(&self, action: &str, args: &[u8]) -> pb::Action {
        let params = args
            .iter()
            .zip(1..)
            .map(|(value, param_id)| pb::action::Param {
                param_id,
                value: vec![*value],
            });
        pb::Action {
            action_id: self.id(action),
            params: params.collect(),
        }
    }

    /// An entry of a table: matches in the order of the key, none for a field left out.
    pub fn entry(
        &self,
        table: &str,
        matches: &[Option<FieldMatchType>],
        priority: i32,
        action: pb::table_action::Type,
    ) -> pb::TableEntry {
        let matches = matches.iter().zip(1..).filter_map(|(kind, field_id)| {
            Some(pb::FieldMatch {
                field_id,
                field_match_type: Some(kind.clone()?),
            })
        });
        pb::TableEntry {
            table_id: self.id(table),
            r#match: matches.collect(),
            priority,
            action: Some(pb::TableAction {
                r#type: Some(action),
            }),
            ..Default::default()
        }
    }

    /// Inserts an entry with an action of its own.
    pub fn insert(
        &mut self,
        table: &str,
        matches: &[Option<FieldMatchType>],
        priority: i32,
        (action, args): (&str, &[u8]),
    ) -> pb::TableEntry {
        let action = pb::table_action::Type::Action(self.call(action, args));
        let entry = self.entry(table, matches, priority, action);
        self.write(Type::Insert, Entity::TableEntry(entry.clone()));
        entry
    }

    /// Sets a table's default action.
    pub fn set_default(&mut self, table: &str, action: &str, args: &[u8]) {
        let action = pb::table_action::Type::Action(self.call(action, args));
        let entry = self.entry(table, &[], 0, action);
        let entry = pb::TableEntry {
            is_default_action: true,
            ..entry
        };
        self.write(Type::Modify, Entity::TableEntry(entry));
    }

    /// The id of an action profile, counter, meter or digest.
    pub fn resource(&self, alias: &str) -> u32 {
        self.id(alias)
    }

    pub fn write(&mut self, kind: Type, entity: Entity) {
        let update = pb::Update {
            r#type: kind.into(),
            entity: Some(pb::Entity {
                entity: Some(entity),
            }),
        };
        if let Err(error) = self.runtime.block_on(self.client.write([update])) {
            let refused: Vec<_> = error.refused().collect();
            panic!("{kind:?}: {error}: {refused:?}");
        }
    }

    pub fn read(&mut self, entity: Entity) -> Vec<Entity> {
        let entity = pb::Entity {
            entity: Some(entity),
        };
        let read = self.runtime.block_on(self.client.read(vec![entity]));
        read.unwrap()
            .into_iter()
            .map(|e| e.entity.unwrap())
            .collect()
    }

    /// The next digest's members, each as the values of its structure.
    pub fn next_digest(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut digests = self.client.take_digests().unwrap();
        let next = async { tokio::time::timeout(DEADLINE, digests.recv()).await };
        let list = self.runtime.block_on(next).unwrap().unwrap();
        let bits = |data: &pb::P4Data| match data.data.as_ref().unwrap() {
            pb::p4_data::Data::Bitstring(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        let members = list
            .data
            .iter()
            .map(|data| match data.data.as_ref().unwrap() {
                pb::p4_data::Data::Struct(data) => data.members.iter().map(bits).collect(),
                other => panic!("{other:?}"),
            });
        members.collect()
    }

    pub fn send(&mut self, port: u16, bytes: &[u8]) {
        self.ports.send(port, bytes);
    }

    /// The next frame that left by a port.
    #[track_caller]
    pub fn next(&mut self, port: u16) -> Vec<u8> {
        let frame = self.ports.receive(port, DEADLINE);
        frame.unwrap_or_else(|| panic!("nothing came to port {port}"))
    }

    /// Nothing more has left by these ports. Frames sent to `port` before this go the same way, so
    /// a last one that comes out there shows that they are through.
    #[track_caller]
    pub fn expect_nothing(&mut self, ports: &[u16]) {
        for port in ports {
            if let Some(frame) = self.ports.receive(*port, Duration::ZERO) {
                panic!("nobody expected, at port {port}: {frame:02x?}");
            }
        }
    }
}

pub fn exact(value: &[u8]) -> Option<FieldMatchType> {
    let value = value.to_vec();
    Some(FieldMatchType::Exact(pb::field_match::Exact { value }))
}

pub fn lpm(value: &[u8], prefix_len: i32) -> Option<FieldMatchType> {
    let value = value.to_vec();
    Some(FieldMatchType::Lpm(pb::field_match::Lpm {
        value,
        prefix_len,
    }))
}

pub fn ternary(value: &[u8], mask: &[u8]) -> Option<FieldMatchType> {
    let (value, mask) = (value.to_vec(), mask.to_vec());
    Some(FieldMatchType::Ternary(pb::field_match::Ternary {
        value,
        mask,
    }))
}

pub fn range(low: u8, high: u8) -> Option<FieldMatchType> {
    let (low, high) = (vec![low], vec![high]);
    Some(FieldMatchType::Range(pb::field_match::Range { low, high }))
}

pub fn optional(value: u8) -> Option<FieldMatchType> {
    let value = vec![value];
    Some(FieldMatchType::Optional(pb::field_match::Optional {
        value,
    }))
}
