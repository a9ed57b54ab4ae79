//! `shunt p4` on real switches: the command line's own tests run on the embedded one alone.

use std::path::Path;
use std::process::{Command, Output};

use p4runtime::client::Arbitration;
use shunt_testbed::{Result, binaries};
use tempfile::TempDir;

use tokio::time::timeout;

use crate::switch::{ADDRESS, DEADLINE, Program, Switch, connect};

/// The command line in a directory with the test program's files.
struct Shunt(TempDir);

impl Shunt {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = Program::named("forward");
        let info = p4runtime::p4info::format_p4info_text(program.index.p4info()).unwrap();
        std::fs::write(directory.path().join("forward.p4info.txtpb"), info).unwrap();
        std::fs::write(directory.path().join("forward.json"), program.json).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.0.path()).join(name)
    }

    async fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(binaries::find("shunt").unwrap());
        command
            .current_dir(self.0.path())
            .env_remove("P4RT_ADDRESS")
            .env_remove("P4RT_DEVICE_ID")
            .args(["p4", "--address", ADDRESS])
            .args(arguments.split_whitespace());
        let running = tokio::task::spawn_blocking(move || command.output().unwrap());
        running.await.unwrap()
    }

    async fn done(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn refused(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    async fn load(&self) {
        let files = "--p4info forward.p4info.txtpb --device-config forward.json --cookie 7";
        let said = self.done(&format!("pipeline set {files}")).await;
        assert!(said.starts_with("loaded"), "{said}");
        let said = self.done(&format!("pipeline set {files}")).await;
        assert!(said.starts_with("runs already"), "{said}");
    }
}

const NOTHING: &str = "0 inserted, 0 modified, 0 removed\n";

/// Written by hand, exported, taken away, brought back: the same state, and a second import finds
/// nothing to do.
pub(crate) async fn a_state_is_exported_and_brought_back(_: Switch) -> Result<()> {
    let shunt = Shunt::new();
    shunt.load().await;
    let empty = shunt.done("export").await;
    for line in [
        "insert flow src=10.0.0.2 dst=192.0.2.80 sport=1 dport=80 do send port=3 dst=02:00:00:00:00:01 --idle-timeout 30s",
        // Alone in its table: bmv2 1.15 gives a new entry the rates that a removed one had, and
        // leaves them to one that is modified without.
        "insert acl port=2 do metered --priority 5 --cir 10 --cburst 5 --pir 20 --pburst 10",
        "insert route dst=10.1.0.0/16 do use_nexthop nexthop=7",
        "insert nexthop nexthop=7 do send port=2 dst=02:00:00:00:00:07",
        "insert member ecmp_selector 5 do send port=1 dst=02:00:00:00:00:05",
        "insert group ecmp_selector 7 member=5 --max-size 8",
        "insert ecmp group=1 do group=7",
        "insert multicast 1 port=1 port=2:1",
        "insert clone 5 port=2",
        "modify default acl do drop",
        "modify counter drops 3 --packets 5 --bytes 70",
    ] {
        shunt.done(line).await;
    }
    let full = shunt.done("export --counters").await;
    assert!(
        full.contains("counter drops 3 --packets 5 --bytes 70"),
        "{full}"
    );
    std::fs::write(shunt.path("full.p4rt"), &full).unwrap();
    std::fs::write(shunt.path("empty.p4rt"), &empty).unwrap();
    assert_eq!(shunt.done("import full.p4rt").await, NOTHING);

    let prune = "import empty.p4rt --prune";
    let dry = shunt.done(&format!("{prune} --dry-run")).await;
    assert!(
        dry.ends_with("1 would be modified, 9 would be removed\n"),
        "{dry}"
    );
    assert_eq!(shunt.done("export --counters").await, full);
    let pruned = shunt.done(prune).await;
    assert!(pruned.ends_with("1 modified, 9 removed\n"), "{pruned}");
    assert_eq!(shunt.done("export").await, empty);
    assert_eq!(shunt.done(prune).await, NOTHING);

    shunt.done("import full.p4rt").await;
    assert_eq!(shunt.done("export --counters").await, full);
    assert_eq!(shunt.done("import full.p4rt").await, NOTHING);
    Ok(())
}

/// Every verb that looks, and what it says of a switch of this kind.
pub(crate) async fn a_switch_is_looked_at(switch: Switch) -> Result<()> {
    let shunt = Shunt::new();
    let said = shunt.refused("read").await;
    assert!(said.contains("runs no pipeline"), "{said}");
    shunt.load().await;
    let info = shunt.done("info").await;
    let version = if switch.kind.is_pi() {
        "api       1.3"
    } else {
        "api       1."
    };
    assert!(
        info.contains(version) && info.contains("primary   none"),
        "{info}"
    );
    let route = "insert route dst=10.1.0.0/16 do drop";
    shunt.done(route).await;
    let again = shunt.refused(route).await;
    assert!(again.contains("ALREADY_EXISTS"), "{again}");
    let read = shunt.done("read route --output jsonl").await;
    assert!(read.contains(r#""match":{"dst":"10.1.0.0/16"}"#), "{read}");
    let counters = shunt.done("counters drops").await;
    assert_eq!(counters.lines().count(), 1 + 8, "{counters}");
    shunt.done("counters flow").await;
    shunt.done("meters").await;
    shunt.done("groups").await;
    shunt.done("tables route").await;
    shunt
        .done("packet send egress_port=1 --hex 0200000000020200000000010806")
        .await;
    let watch = "watch route --initial --changes 1 --for 20s --interval 50ms";
    let watched = shunt.done(watch).await;
    assert_eq!(watched, "+ table route dst=10.1.0.0/16 do drop\n");
    Ok(())
}

/// A running controller keeps its role unless it is said that it may lose it.
pub(crate) async fn a_controller_keeps_its_role(_: Switch) -> Result<()> {
    let shunt = Shunt::new();
    shunt.load().await;
    let controller = connect(10).await;
    controller.become_primary().await.unwrap();
    let insert = "insert route dst=10.1.0.0/16 do drop";
    let said = shunt.refused(insert).await;
    assert!(said.contains("with election id 10"), "{said}");
    assert!(said.contains("--take-over"), "{said}");
    shunt.done("read route").await;
    assert_eq!(*controller.arbitration().borrow(), Arbitration::Primary);
    // Some switches give it back as soon as it is free again.
    let mut told = controller.arbitration();
    told.mark_unchanged();
    shunt.done(&format!("--take-over {insert}")).await;
    timeout(DEADLINE, told.changed())
        .await
        .expect("in time")
        .unwrap();
    Ok(())
}
