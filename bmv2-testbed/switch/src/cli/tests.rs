use super::*;

fn config(arguments: &[&str]) -> Result<Config, String> {
    let all = ["shunt-switch"].iter().chain(arguments);
    let arguments = Arguments::try_parse_from(all).map_err(|e| e.to_string())?;
    arguments.config(None)
}

#[test]
fn the_flags_are_simple_switch_grpcs() {
    let config = config(&[
        "--no-p4",
        "-i",
        "1@veth1",
        "--interface",
        "2@veth2",
        "--device-id",
        "7",
        "--thrift-port",
        "9090",
        "--nanolog",
        "ipc:///tmp/x",
        "--log-console",
        "-L",
        "warn",
        "--",
        "--grpc-server-addr",
        "0.0.0.0:9559",
        "--cpu-port",
        "510",
        "--drop-port",
        "500",
        "--priority-queues",
        "8",
    ])
    .unwrap();
    assert_eq!(
        config.interfaces,
        [(1, "veth1".into()), (2, "veth2".into())]
    );
    assert_eq!(config.grpc_addr, "0.0.0.0:9559");
    assert_eq!(config.options.device_id, 7);
    assert_eq!(config.options.cpu_port, Some(510));
    assert_eq!(config.options.drop_port, 500);
    assert_eq!(config.options.priority_queues, 8);
    assert!(config.tls.is_none() && config.options.captures.is_none());
}

#[test]
fn what_is_not_done_is_refused() {
    for (arguments, part) in [
        (&["--use-files", "0"][..], "--use-files"),
        (&["--packet-in", "ipc:///x"], "nanomsg"),
        (&["--restore-state", "x"], "P4Runtime"),
        (&["--debugger"], "--log"),
        (&["--", "--disable-swap"], "--disable-swap"),
        (&["--", "--dp-grpc-server-addr", "x:1"], "veth"),
        (&["--", "--max-mc-groups", "4"], "--max-mc-groups"),
        (&["--", "--cpu-port", "0"], "0"),
        (&["--", "--cpu-port", "511"], "drop port"),
        (&["-i", "1@a", "--cpu-port", "1"], "has an interface"),
        (
            &["-i", "1@a", "-i", "2@b", "--max-port-count", "1"],
            "--max-port-count",
        ),
        (&["-i", "veth"], "PORT@IFNAME"),
        (&["--pcap=/no/such/folder"], "/no/such/folder"),
        (&["--grpc-server-cert", "x"], "--grpc-server-ssl"),
        (&["--grpc-server-ssl"], "--grpc-server-key"),
        (&["--log-flush"], "--log-file"),
        (&["--log-console", "--log-file", "x"], "cannot be used with"),
        (&["x.json"], "--p4info"),
        (&["--log", "xml"], "json"),
    ] {
        let refused = config(arguments).err().unwrap_or_default();
        assert!(refused.contains(part), "{arguments:?}: {refused}");
    }
}

#[test]
fn packets_are_logged_at_trace_and_debug() {
    let logs = |arguments: &[&str]| {
        let all = ["shunt-switch"].iter().chain(arguments);
        Arguments::try_parse_from(all)
            .unwrap()
            .logger()
            .unwrap()
            .is_some()
    };
    assert!(!logs(&[]));
    assert!(logs(&["--log-console"]) && logs(&["--log", "json"]));
    assert!(logs(&["--log-console", "-L", "debug"]));
    assert!(!logs(&["--log-console", "-L", "warn"]));
}
