//! Whole states and pipelines.

use p4runtime::p4info::parse_p4info_text;

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
