//! The switches, their programs, and entities as lines.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use p4runtime::client::{Arbitration, Client, ClientConfig, PipelineAction, WriteError};
use p4runtime::named::{Named, Purpose, parse_line};
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::update::Type;
use p4runtime::p4info::P4InfoIndex;
use p4runtime::value::canonicalize_entity;
use shunt_testbed::service::{Service, wait_for};
use shunt_testbed::{Result, binaries, sandbox};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub(crate) const ADDRESS: &str = "127.0.0.1:9559";
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const COOKIE: u64 = 0xfeed_f00d;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bmv2,
    Embedded,
    /// With what `--deviate` takes.
    Deviating(&'static str),
}

impl Kind {
    fn deviates(self, how: &str) -> bool {
        matches!(self, Self::Deviating(all) if all.split(',').any(|one| one == how))
    }

    /// bmv2's server, or one that behaves so.
    pub(crate) fn is_pi(self) -> bool {
        self == Self::Bmv2 || self.deviates("pi")
    }

    /// Whether a backup becomes primary when the primary leaves.
    pub(crate) fn promotes(self) -> bool {
        self.is_pi() || self.deviates("promote")
    }
}

/// A running switch without a pipeline.
pub(crate) struct Switch {
    pub(crate) kind: Kind,
    service: Service,
    logs: TempDir,
}

impl Switch {
    fn start(kind: Kind) -> Result<Self> {
        let logs = tempfile::tempdir().unwrap();
        let service = Self::service(kind, &logs)?;
        Ok(Self {
            kind,
            service,
            logs,
        })
    }

    fn service(kind: Kind, logs: &TempDir) -> Result<Service> {
        let mut command = match kind {
            Kind::Bmv2 => Command::new("simple_switch_grpc"),
            Kind::Embedded | Kind::Deviating(_) => Command::new(binaries::find("shunt-switch")?),
        };
        if let Kind::Deviating(how) = kind {
            command.args(["--deviate", how]);
        }
        command.args(["--no-p4", "--device-id", "1"]);
        command.args(["--", "--grpc-server-addr", ADDRESS, "--cpu-port", "510"]);
        let mut service = Service::start("switch", logs.path(), command)?;
        wait_for("the switch to listen", DEADLINE, || {
            service.ended().is_some() || std::net::TcpStream::connect(ADDRESS).is_ok()
        })?;
        service.check_running()?;
        Ok(service)
    }

    /// Kills it, and starts an empty one in its place.
    pub(crate) fn restart(self) -> Result<Self> {
        let Self {
            kind,
            mut service,
            logs,
        } = self;
        service.signal(nix::sys::signal::Signal::SIGKILL)?;
        service.wait(DEADLINE)?;
        let service = Self::service(kind, &logs)?;
        Ok(Self {
            kind,
            service,
            logs,
        })
    }
}

/// A program that a switch can be given.
pub(crate) struct Program {
    pub(crate) index: P4InfoIndex,
    pub(crate) json: Vec<u8>,
}

impl Program {
    /// The project's own.
    pub(crate) fn shunt() -> Self {
        Self {
            index: P4InfoIndex::from_text(shunt_p4::P4INFO).unwrap(),
            json: shunt_p4::PIPELINE_JSON.to_vec(),
        }
    }

    /// One of the embedded switch's test programs.
    pub(crate) fn named(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let data = root.join("bmv2-testbed/switch/testdata");
        let info = std::fs::read_to_string(data.join(format!("{name}.p4info.txtpb"))).unwrap();
        Self {
            index: P4InfoIndex::from_text(&info).unwrap(),
            json: std::fs::read(data.join(format!("{name}.json"))).unwrap(),
        }
    }

    pub(crate) async fn push(&self, client: &Client) {
        let action = PipelineAction::VerifyAndCommit;
        let p4info = self.index.p4info().clone();
        let pushed = client.set_pipeline(action, p4info, self.json.clone(), COOKIE);
        pushed.await.unwrap();
    }

    /// The entity that a line means.
    pub(crate) fn entity(&self, line: &str, purpose: Purpose) -> pb::Entity {
        match parse_line(line, &self.index, purpose) {
            Ok(entity) => entity,
            Err(error) => panic!("{line}: {error}"),
        }
    }

    /// Why a line cannot be written, in the client's own words.
    pub(crate) fn refusal(&self, line: &str) -> String {
        let parsed = parse_line(line, &self.index, Purpose::Write);
        parsed.expect_err(line).to_string()
    }

    pub(crate) fn update(&self, kind: Type, line: &str) -> pb::Update {
        let purpose = match kind {
            Type::Delete => Purpose::Delete,
            _ => Purpose::Write,
        };
        pb::Update {
            r#type: kind.into(),
            entity: Some(self.entity(line, purpose)),
        }
    }

    pub(crate) fn insert(&self, line: &str) -> pb::Update {
        self.update(Type::Insert, line)
    }

    /// What a read of the line's entity gives, by name, canonical and sorted.
    pub(crate) async fn read(&self, client: &Client, line: &str) -> Vec<String> {
        let wanted = self.entity(line, Purpose::Read);
        let mut found = client.read(vec![wanted]).await.unwrap();
        for entity in &mut found {
            canonicalize_entity(entity, &self.index).unwrap();
        }
        let found = found.iter();
        let named = found.map(|entity| Named::of(entity, &self.index).unwrap().to_string());
        let mut named: Vec<_> = named.collect();
        named.sort();
        named
    }
}

pub(crate) async fn connect(election_id: u128) -> Client {
    let config = ClientConfig::new(ADDRESS, 1, election_id);
    Client::connect(config).await.unwrap()
}

/// A client that is primary, with election id 10, of a switch that runs a program.
pub(crate) async fn primary(program: &Program) -> Client {
    let client = connect(10).await;
    client.become_primary().await.unwrap();
    program.push(&client).await;
    client
}

pub(crate) async fn reaches(client: &Client, wanted: impl Fn(&Arbitration) -> bool) -> Arbitration {
    let mut watch = client.arbitration();
    let state = timeout(DEADLINE, watch.wait_for(|state| wanted(state))).await;
    state.expect("in time").unwrap().clone()
}

/// The code and words of the one update that was refused.
pub(crate) fn refused(result: std::result::Result<(), WriteError>) -> (tonic::Code, String) {
    let error = result.expect_err("it was taken");
    let mut refused = error.refused();
    let (_, one) = refused.next().unwrap_or_else(|| panic!("{error}"));
    assert!(refused.next().is_none(), "{error}");
    (p4runtime::client::code_of(one), one.message.clone())
}

/// Runs a test on a switch of its own, in a sandbox of its own.
pub(crate) fn on<F: Future<Output = Result<()>>>(
    kind: Kind,
    name: &str,
    body: impl FnOnce(Switch) -> F,
) {
    if kind == Kind::Bmv2 && binaries::on_path("simple_switch_grpc").is_none() {
        return sandbox::skip(name, "simple_switch_grpc is not on PATH");
    }
    sandbox::test(name, || {
        let switch = Switch::start(kind)?;
        Runtime::new().unwrap().block_on(body(switch))
    });
}
