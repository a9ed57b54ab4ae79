//! Entries and other entities: written, read, refused.

use crate::switch::Switch;

pub(crate) const FLOW: &str = "flow src=10.0.0.2 dst=192.0.2.80 sport=1234 dport=80";
pub(crate) const SEND: &str = "do send port=3 dst=02:00:00:00:00:01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_written_read_and_refused_by_name() {
    let mut switch = Switch::start(Some("forward")).await;
    for format in ["table", "json", "jsonl"] {
        switch
            .golden(
                &format!("info.{format}"),
                &format!("info --output {format}"),
            )
            .await;
        switch
            .golden(
                &format!("tables.{format}"),
                &format!("tables --output {format}"),
            )
            .await;
    }
    switch.golden("tables-acl.table", "tables acl").await;
    switch.golden("tables-unknown.table", "tables rout").await;

    switch
        .golden(
            "insert.table",
            &format!("insert {FLOW} {SEND} --idle-timeout 30s"),
        )
        .await;
    switch.golden("insert.json", "insert acl port=1 src=10.0.0.0/8 dst_port=80..90 do punt reason=3 --priority 10 --output json").await;
    switch
        .golden(
            "insert-lpm.table",
            "insert route dst=10.1.0.0/16 do use_nexthop nexthop=7",
        )
        .await;
    switch
        .golden("insert-again.table", &format!("insert {FLOW} {SEND}"))
        .await;
    switch
        .golden(
            "modify.table",
            &format!("modify {FLOW} do send port=4 dst=02:00:00:00:00:02"),
        )
        .await;
    switch
        .golden(
            "modify-missing.table",
            "modify route dst=10.9.0.0/16 do drop",
        )
        .await;

    for (name, arguments) in [
        ("error-field.table", "insert flow srce=10.0.0.2"),
        (
            "error-range.table",
            "insert flow src=10.0.0.2 dst=192.0.2.80 sport=70000 dport=80",
        ),
        (
            "error-address.table",
            "insert flow src=10.0.0 dst=192.0.2.80 sport=7 dport=80",
        ),
        (
            "error-missing.table",
            "insert flow src=10.0.0.2 dst=192.0.2.80 sport=7 do drop",
        ),
        (
            "error-action.table",
            "insert route dst=10.0.0.0/8 do use_nexthp nexthop=1",
        ),
        (
            "error-param.table",
            "insert route dst=10.0.0.0/8 do use_nexthop",
        ),
        ("error-prefix.table", "insert route dst=10.0.0.0/33 do drop"),
        ("error-priority.table", "insert acl src=10.0.0.0/8 do drop"),
        ("error-arrow.table", "insert route dst=10.0.0.0/8 -"),
        (
            "error-option.table",
            "insert route dst=10.0.0.0/8 do drop --priorty 1",
        ),
        ("error-fixed.table", "insert counter drops 1 --packets 1"),
        ("error-const.table", "insert classes tos=1 do drop"),
        ("error-cell.table", "counters drops 8"),
        (
            "error-negative.table",
            "modify counter drops 1 --packets -1",
        ),
        (
            "error-largest.table",
            "insert acl src=10.0.0.0/8 do drop --priority 2147483648",
        ),
        (
            "error-member.table",
            "insert group ecmp_selector 7 member=x",
        ),
        ("error-profile.table", "groups ecmp_selecter"),
        ("error-none.table", "insert digest learn"),
        ("error-few.table", "counters flew"),
        ("error-verb.table", "wach flow"),
        ("error-interval.table", "watch flow --interval 5"),
    ] {
        switch.golden(name, arguments).await;
    }

    switch.done("insert flow src=10.0.0.3 dst=192.0.2.80 sport=1 dport=443 do send port=1 dst=2:0:0:0:0:3").await;
    for format in ["table", "json", "jsonl"] {
        switch
            .golden(
                &format!("read.{format}"),
                &format!("read flow --output {format}"),
            )
            .await;
    }
    switch.golden("read-all.table", "read").await;
    switch
        .golden("read-filter.table", "read flow dport=443 --counters --idle")
        .await;
    switch
        .golden("read-key.table", &format!("read {FLOW}"))
        .await;
    switch
        .golden("read-default.table", "read default route")
        .await;
    let one = switch.done("read flow --limit 1 --output jsonl").await;
    assert_eq!(one.lines().count(), 1);
    switch
        .golden(
            "default.table",
            "modify default route do use_nexthop nexthop=1",
        )
        .await;
    switch
        .golden("default-reset.table", "modify default route")
        .await;
    switch
        .golden(
            "delete.table",
            "delete flow src=10.0.0.3 dst=192.0.2.80 sport=1 dport=443",
        )
        .await;
    switch
        .golden(
            "delete-again.table",
            "delete flow src=10.0.0.3 dst=192.0.2.80 sport=1 dport=443",
        )
        .await;
    switch.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_meters_groups_and_replication() {
    let mut switch = Switch::start(Some("forward")).await;
    for line in [
        &format!("insert {FLOW} {SEND}") as &str,
        "insert acl port=2 do metered --priority 5 --cir 10 --cburst 5 --pir 20 --pburst 10",
        "modify counter drops 3 --packets 5 --bytes 70",
        "insert member ecmp_selector 5 do send port=1 dst=02:00:00:00:00:05",
        "insert member ecmp_selector 6 do drop",
        "insert group ecmp_selector 7 member=5 member=3x6 --max-size 8",
        "insert ecmp group=1 do group=7",
        "insert multicast 1 port=1 port=2:1",
        "insert clone 5 port=2 --length 128",
    ] {
        switch.done(line).await;
    }
    for format in ["table", "json"] {
        switch
            .golden(
                &format!("counters.{format}"),
                &format!("counters drops --nonzero --output {format}"),
            )
            .await;
        switch
            .golden(
                &format!("meters.{format}"),
                &format!("meters --output {format}"),
            )
            .await;
        switch
            .golden(
                &format!("groups.{format}"),
                &format!("groups --output {format}"),
            )
            .await;
    }
    switch
        .golden("counters-direct.table", "counters flow")
        .await;
    switch
        .golden("counters-cell.table", "counters drops 3")
        .await;
    switch
        .golden("counters-unknown.table", "counters drop")
        .await;
    switch
        .golden("groups-profile.table", "groups ecmp_selector")
        .await;
    switch
        .golden("read-meters.table", "read acl --meters")
        .await;
    switch
        .golden(
            "group-unknown-member.table",
            "insert group ecmp_selector 8 member=9",
        )
        .await;

    // A profile has members and groups, or action sets in the entries, not both.
    let mut sets = Switch::start(Some("forward")).await;
    sets.done("insert ecmp group=2 do 2x send port=1 dst=02:00:00:00:00:01 do 1x send port=2 dst=02:00:00:00:00:02").await;
    sets.golden("read-ecmp.table", "read ecmp").await;
    switch.faults.append(&mut sets.faults);

    let mut constructs = Switch::start(Some("constructs")).await;
    constructs
        .done("modify register cells 3 --value 0x1f")
        .await;
    constructs
        .done("modify meter limits 2 --cir 1 --cburst 2 --pir 3 --pburst 4")
        .await;
    constructs
        .golden("registers.table", "registers cells 3")
        .await;
    constructs
        .golden("registers.json", "registers cells 3 --output json")
        .await;
    constructs
        .golden(
            "registers-range.table",
            "modify register cells 3 --value 4294967296",
        )
        .await;
    constructs
        .golden("meters-cell.table", "meters limits 2")
        .await;
    constructs
        .golden(
            "digest.table",
            "insert digest digest_t --max-timeout 1s --max-list 10",
        )
        .await;
    switch.faults.append(&mut constructs.faults);
    switch.end();
}
