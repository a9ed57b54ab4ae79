//! Whole states and pipelines.

use p4runtime::p4info::parse_p4info_text;
use shunt_switch::Deviation;

use crate::entries::{FLOW, SEND};
use crate::switch::{Switch, testdata};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_exported_and_imported_by_differences() {
    let mut switch = Switch::start(Some("forward")).await;
    let empty = switch.done("export").await;
    for line in [
        &format!("insert {FLOW} {SEND} --idle-timeout 30s") as &str,
        "insert acl port=2 do metered --priority 5 --cir 10 --cburst 5 --pir 20 --pburst 10",
        "insert route dst=10.1.0.0/16 do use_nexthop nexthop=7",
        "insert nexthop nexthop=7 do send port=2 dst=02:00:00:00:00:07",
        "insert member ecmp_selector 5 do send port=1 dst=02:00:00:00:00:05",
        "insert group ecmp_selector 7 member=5 --max-size 8",
        "insert ecmp group=1 do group=7",
        "insert multicast 1 port=1 port=2:1",
        "insert clone 5 port=2 --length 128",
        "modify default acl do drop",
    ] {
        switch.done(line).await;
    }
    switch.golden("export.table", "export").await;
    switch.done("export full.p4rt").await;
    switch.golden("import-same.table", "import full.p4rt").await;

    // An empty switch is brought to the same state, and stays there.
    let full = std::fs::read_to_string(switch.directory.path().join("full.p4rt")).unwrap();
    switch.file("empty.p4rt", &empty);
    switch
        .golden(
            "import-prune-dry.table",
            "import empty.p4rt --prune --dry-run",
        )
        .await;
    assert_eq!(switch.done("export").await, full);
    switch
        .golden("import-prune.table", "import empty.p4rt --prune")
        .await;
    assert_eq!(switch.done("export").await, empty);
    switch
        .golden(
            "import-dry.json",
            "import full.p4rt --dry-run --output json",
        )
        .await;
    switch.done("import full.p4rt").await;
    assert_eq!(switch.done("export").await, full);
    switch
        .golden("import-twice.table", "import full.p4rt")
        .await;

    switch.file(
        "more.p4rt",
        "# by hand\nroute dst=10.1.0.0/16 do drop\nroute dst=10.2.0.0/16 do drop\n",
    );
    switch
        .golden("import-more-dry.table", "import more.p4rt --dry-run")
        .await;
    switch.golden("import-more.table", "import more.p4rt").await;
    switch.file(
        "wrong.p4rt",
        "route dst=10.1.0.0/16 do drop\n\nroute dst=10.1.0.0/44 do drop\n",
    );
    switch
        .golden("import-wrong.table", "import wrong.p4rt")
        .await;
    switch.file(
        "twice.p4rt",
        "route dst=10.1.0.0/16 do drop\nroute dst=10.1.2.3/16 do drop\n",
    );
    switch
        .golden("import-doubled.table", "import twice.p4rt")
        .await;
    switch
        .golden("import-missing.table", "import none.p4rt")
        .await;
    switch.end();
}

/// Everything but tables' entries and groups: what a program has of it, there and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_entity_is_exported_and_imported() {
    let mut switch = Switch::start(Some("state")).await;
    for line in [
        "modify counter both 2 --packets 5 --bytes 70",
        "modify meter packet_meter 1 --cir 1 --cburst 2 --pir 3 --pburst 4",
        "modify register cells 3 --value 0x1f",
        "insert digest seen_t --max-timeout 1s --max-list 10 --ack-timeout 500ms",
        "insert acl value=7 index=1..3 do set result=1 --priority 4",
        "modify direct-counter acl value=7 index=1..3 --priority 4 --packets 9 --bytes 90",
    ] {
        switch.done(line).await;
    }
    let everything = "export --registers --counters";
    switch.golden("export-state.table", everything).await;
    switch.golden("export-without.table", "export").await;
    switch.done(&format!("{everything} full.p4rt")).await;
    let full = std::fs::read_to_string(switch.directory.path().join("full.p4rt")).unwrap();
    switch
        .golden("import-state-same.table", "import full.p4rt")
        .await;

    // Nothing left of it that can be taken away, and all of it back.
    switch.file("nothing.p4rt", "# nothing\n");
    switch
        .golden("import-state-prune.table", "import nothing.p4rt --prune")
        .await;
    switch
        .golden("import-state-pruned.table", "import nothing.p4rt --prune")
        .await;
    for line in [
        "modify counter both 2 --packets 0 --bytes 0",
        "modify register cells 3 --value 0",
    ] {
        switch.done(line).await;
    }
    switch
        .golden("import-state.table", "import full.p4rt")
        .await;
    assert_eq!(switch.done(everything).await, full);

    // A counter in its entry's line, and rates in two places.
    let entry = "acl value=7 index=1..3 do set result=1 --priority 4 --packets 10 --bytes 90";
    switch.file("counter.p4rt", entry);
    switch
        .golden("import-counter.table", "import counter.p4rt")
        .await;
    switch
        .golden("import-counter-again.table", "import counter.p4rt")
        .await;
    let rates = "--cir 1 --cburst 2 --pir 3 --pburst 4";
    let twice = format!("policed index=1 do police\ndirect-meter policed index=1 {rates}\n");
    switch.file("rates.p4rt", &twice);
    switch
        .golden("import-rates.table", "import rates.p4rt")
        .await;
    switch.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_sets_are_exported_and_imported() {
    let mut switch = Switch::start(Some("language")).await;
    switch
        .done("modify value-set pairs kind=0x800/0xff00 sub=1..3 or sub=9")
        .await;
    switch
        .done("modify value-set kinds value=5 or value=4")
        .await;
    switch.golden("export-sets.table", "export sets.p4rt").await;
    switch.golden("export-sets-file.table", "export").await;
    // The members are a set.
    switch.file("other.p4rt", "value-set kinds value=4 or value=5\n");
    switch
        .golden("import-sets-same.table", "import other.p4rt")
        .await;
    switch
        .golden("import-sets-prune.table", "import other.p4rt --prune")
        .await;
    switch.golden("import-sets.table", "import sets.p4rt").await;
    switch
        .golden("import-sets-again.table", "import sets.p4rt")
        .await;
    let named = "value-set kinds vlue=4\n";
    switch.file("wrong.p4rt", named);
    switch
        .golden("import-sets-wrong.table", "import wrong.p4rt")
        .await;
    switch.end();
}

/// A switch that cannot read everything: the file says so, and the rest is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_switch_cannot_read_is_said() {
    let deviations = [Deviation::Pi, Deviation::PadBytes];
    let mut switch = Switch::deviating(Some("language"), deviations).await;
    switch.golden("export-pi.table", "export --registers").await;
    switch.file("sets.p4rt", "value-set kinds value=5\n");
    switch.golden("import-pi.table", "import sets.p4rt").await;
    switch.end();

    let mut switch = Switch::deviating(Some("forward"), deviations).await;
    for line in [
        "insert route dst=10.1.0.0/16 do use_nexthop nexthop=7",
        "insert acl port=2 do metered --priority 5 --cir 10 --cburst 5 --pir 20 --pburst 10",
        "insert multicast 1 port=1 port=2:1",
    ] {
        switch.done(line).await;
    }
    let counters = "export --counters";
    switch.golden("export-padded.table", counters).await;
    switch.done(&format!("{counters} full.p4rt")).await;
    switch
        .golden("import-padded.table", "import full.p4rt")
        .await;
    switch.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_are_loaded_verified_and_fetched() {
    let mut switch = Switch::start(None).await;
    for end in ["json", "p4info.txtpb"] {
        let name = format!("forward.{end}");
        std::fs::copy(testdata(&name), switch.directory.path().join(name)).unwrap();
    }
    let files = "--p4info forward.p4info.txtpb --device-config forward.json";
    switch.golden("pipeline-none.table", "read").await;
    switch.golden("pipeline-info-none.table", "info").await;
    switch
        .golden("pipeline-verify.table", &format!("pipeline verify {files}"))
        .await;
    switch
        .golden(
            "pipeline-set.table",
            &format!("pipeline set {files} --cookie 0xfeed"),
        )
        .await;
    switch
        .golden(
            "pipeline-same.table",
            &format!("pipeline set {files} --cookie 0xfeed"),
        )
        .await;
    switch
        .done("pipeline get --out got.p4info.txtpb --device-config got.json")
        .await;
    for (got, was) in [
        ("got.json", "forward.json"),
        ("got.p4info.txtpb", "forward.p4info.txtpb"),
    ] {
        let read = |name| std::fs::read_to_string(switch.directory.path().join(name)).unwrap();
        match got {
            "got.json" => assert_eq!(read(got), read(was)),
            _ => {
                let info = |name| parse_p4info_text(&read(name)).unwrap();
                assert_eq!(info(got), info(was));
            }
        }
    }
    switch.file("broken.json", "{ not JSON");
    switch
        .golden(
            "pipeline-broken.table",
            "pipeline set --p4info forward.p4info.txtpb --device-config broken.json --cookie 1",
        )
        .await;
    switch
        .golden(
            "pipeline-save.table",
            &format!("pipeline set {files} --cookie 7 --save"),
        )
        .await;
    switch
        .golden("pipeline-commit.table", "pipeline commit")
        .await;
    switch
        .golden(
            "pipeline-reconcile.table",
            &format!("pipeline set {files} --cookie 8 --reconcile"),
        )
        .await;
    switch.end();
}
