//! The gateway's own numbers as Prometheus reads them: slow path, NAT, kernel mirror, switches,
//! configuration. Written from snapshots, as the engine's are, when somebody asks.

use std::fmt::{Display, Write as _};

use shunt_api::v1::NatPool;
use shunt_p4::PuntReason;
use shunt_slowpath::{DropReason, SlowPathStats, State};

use crate::config::Config;
use crate::kernel::MirrorStats;
use crate::switch::{SwitchState, SwitchView};

/// Everything, as of one moment. What did not answer is left out.
pub(super) struct Snapshot<'a> {
    pub(super) config: &'a Config,
    pub(super) revision: u64,
    /// Workers, kernel and switches do all that the newest revision asks.
    pub(super) converged: bool,
    /// Seconds.
    pub(super) uptime: f64,
    pub(super) slow_path: Option<&'a SlowPathStats>,
    pub(super) pools: &'a [NatPool],
    pub(super) mirror: MirrorStats,
    pub(super) synchronised: bool,
    pub(super) switches: &'a [(String, SwitchView)],
}

/// One metric after another.
struct Page<'a>(&'a mut String);

impl Page<'_> {
    /// One metric with its samples: labels (`a="b",c="d"`, or none) and value.
    fn metric<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
        self.0.push('\n');
    }

    fn gauge<V: Display>(&mut self, name: &str, help: &str, value: V) {
        self.metric(name, "gauge", help, [(String::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help, [(String::new(), value)]);
    }
}

fn label(name: &str, value: impl Display) -> String {
    format!("{name}=\"{value}\"")
}

/// Appends all of it in Prometheus's text format.
pub(super) fn write(text: &mut String, seen: &Snapshot<'_>) {
    let mut page = Page(text);
    page.metric(
        "shunt_info",
        "gauge",
        "Always 1; the daemon's version.",
        [(label("version", env!("CARGO_PKG_VERSION")), 1)],
    );
    page.gauge(
        "shunt_uptime_seconds",
        "Since the daemon was ready to start its parts.",
        seen.uptime,
    );
    page.gauge(
        "shunt_config_revision",
        "The newest revision of the configuration.",
        seen.revision,
    );
    page.gauge(
        "shunt_converged",
        "1 while workers, kernel and switches do all that the configuration and the kernel ask.",
        u8::from(seen.converged),
    );
    switches(&mut page, seen.switches);
    mirror(&mut page, &seen.mirror, seen.synchronised);
    if let Some(stats) = seen.slow_path {
        slow_path(&mut page, seen.config, stats);
    }
    nat(&mut page, seen.pools);
}

fn switches(page: &mut Page<'_>, all: &[(String, SwitchView)]) {
    let each = |of: fn(&SwitchView) -> u64| {
        let samples = all.iter();
        samples.map(move |(name, view)| (label("switch", name), of(view)))
    };
    page.metric(
        "shunt_switch_ready",
        "gauge",
        "1 while changes are written to the switch as they come.",
        each(|view| u64::from(view.state == SwitchState::Ready)),
    );
    page.metric(
        "shunt_switch_state",
        "gauge",
        "1 for the state that the session is in: connecting, backup, pushing, waiting, repairing, \
         ready.",
        all.iter().map(|(name, view)| {
            let state = label("state", view.state.as_str());
            (format!("{},{state}", label("switch", name)), 1)
        }),
    );
    page.metric(
        "shunt_switch_entries",
        "gauge",
        "Entries on the switch by table, without the flow tables.",
        all.iter().flat_map(|(name, view)| {
            let tables = view.tables.iter();
            tables.map(move |(table, entries)| {
                let labels = format!("{},{}", label("switch", name), label("table", table));
                (labels, *entries)
            })
        }),
    );
    page.metric(
        "shunt_switch_entries_wanted",
        "gauge",
        "Entries that the switch is to have, without the flow tables.",
        each(|view| view.entries),
    );
    page.metric(
        "shunt_switch_entries_pending",
        "gauge",
        "Those of them that are not yet as wanted.",
        each(|view| view.pending),
    );
    page.metric(
        "shunt_switch_entries_refused",
        "gauge",
        "Those of them that the switch has refused; they are tried again.",
        each(|view| view.refused),
    );
    page.metric(
        "shunt_switch_sessions_total",
        "counter",
        "Sessions begun: one more is a connection lost.",
        each(|view| view.sessions),
    );
}

fn mirror(page: &mut Page<'_>, stats: &MirrorStats, synchronised: bool) {
    page.gauge(
        "shunt_mirror_synchronised",
        "1 once the kernel's routes have been loaded.",
        u8::from(synchronised),
    );
    for (name, help, value) in [
        ("shunt_mirror_routes", "Prefixes mirrored.", stats.routes),
        (
            "shunt_mirror_nexthops",
            "Next hops mirrored.",
            stats.nexthops,
        ),
        (
            "shunt_mirror_neighbors",
            "Neighbours mirrored.",
            stats.neighbors,
        ),
        (
            "shunt_mirror_receive_buffer_bytes",
            "The netlink socket's receive buffer.",
            stats.receive_buffer,
        ),
    ] {
        page.gauge(name, help, value);
    }
    page.metric(
        "shunt_mirror_unreachable",
        "gauge",
        "Prefixes that are unreachable, by why: every path is \"down\", it leads through a device \
         that is \"foreign\" to shunt, or asks for what is \"unsupported\".",
        [
            (label("why", "down"), stats.down),
            (label("why", "foreign"), stats.foreign),
            (label("why", "unsupported"), stats.unsupported),
        ],
    );
    for (name, help, value) in [
        (
            "shunt_mirror_events_total",
            "The kernel's notifications.",
            stats.events,
        ),
        (
            "shunt_mirror_batches_total",
            "Batches of changes given to workers and switches.",
            stats.batches,
        ),
        ("shunt_mirror_changes_total", "Changes in them.", stats.ops),
        (
            "shunt_mirror_overruns_total",
            "Times that the kernel had more to tell than the receive buffer holds; everything is \
             dumped then.",
            stats.overruns,
        ),
        (
            "shunt_mirror_malformed_total",
            "Unreadable messages.",
            stats.malformed,
        ),
        (
            "shunt_mirror_dumps_total",
            "Dumps of one kind each.",
            stats.dumps,
        ),
        (
            "shunt_mirror_dump_failures_total",
            "Dumps that failed.",
            stats.dump_failures,
        ),
        (
            "shunt_mirror_resyncs_total",
            "Comparisons of everything because it was time.",
            stats.resyncs,
        ),
        (
            "shunt_mirror_corrections_total",
            "Differences that dumps after the first have found.",
            stats.corrections,
        ),
        (
            "shunt_mirror_resolve_requests_total",
            "Neighbours that the kernel was asked to resolve.",
            stats.resolve_sent,
        ),
    ] {
        page.counter(name, help, value);
    }
    page.gauge(
        "shunt_mirror_last_dump_seconds",
        "How long the last round of dumps took.",
        stats.last_dump_us as f64 / 1e6,
    );
}

fn slow_path(page: &mut Page<'_>, config: &Config, stats: &SlowPathStats) {
    let counters = &stats.counters;
    let ways = [
        ("from_switch", counters.received),
        ("to_switch", counters.sent),
        ("to_kernel", counters.exceptions_up),
        ("from_kernel", counters.exceptions_down),
    ];
    let of = |value: fn(&shunt_slowpath::stats::Traffic) -> u64| {
        ways.map(|(way, traffic)| (label("way", way), value(&traffic)))
    };
    page.metric(
        "shunt_slowpath_packets_total",
        "counter",
        "Frames by way: from_switch, to_switch, to_kernel, from_kernel.",
        of(|traffic| traffic.packets),
    );
    page.metric(
        "shunt_slowpath_bytes_total",
        "counter",
        "Their bytes, with the header of the slow-path port.",
        of(|traffic| traffic.bytes),
    );
    page.metric(
        "shunt_slowpath_punts_total",
        "counter",
        "Frames from the switch by its reason.",
        PuntReason::ALL
            .iter()
            .map(|reason| (label("reason", reason.as_str()), counters.punted(*reason))),
    );
    page.metric(
        "shunt_slowpath_drops_total",
        "counter",
        "Packets not forwarded, by reason and VPC; without a VPC, those whose VPC was not known.",
        drops(config, stats),
    );
    page.metric(
        "shunt_slowpath_connections",
        "gauge",
        "Connections by state, in hardware or not.",
        State::ALL
            .iter()
            .map(|state| (label("state", state.as_str()), stats.in_state(*state))),
    );
    page.gauge(
        "shunt_slowpath_connections_max",
        "Connections that fit.",
        stats.capacity,
    );
    page.gauge(
        "shunt_slowpath_connections_offloaded",
        "Connections whose both entries are in the switch.",
        stats.census.offloaded,
    );
    for (name, help, value) in [
        (
            "shunt_slowpath_connections_created_total",
            "Connections begun.",
            counters.connections_created,
        ),
        (
            "shunt_slowpath_connections_ended_total",
            "Connections ended.",
            counters.connections_ended,
        ),
        (
            "shunt_slowpath_connections_revoked_total",
            "Those that a change of configuration or routes has ended.",
            counters.connections_revoked,
        ),
        (
            "shunt_slowpath_handed_over_total",
            "Frames handed to the worker that they belong to.",
            counters.handed_over,
        ),
        (
            "shunt_slowpath_hairpinned_total",
            "Packets from inside to inside whose way two connections share, of different workers.",
            counters.hairpinned,
        ),
        (
            "shunt_slowpath_held_total",
            "Packets that waited for a neighbour.",
            counters.held,
        ),
        (
            "shunt_slowpath_cut_total",
            "Packets cut into fragments.",
            counters.cut,
        ),
        (
            "shunt_slowpath_icmp_errors_total",
            "ICMP errors sent.",
            counters.icmp_errors,
        ),
        (
            "shunt_slowpath_icmp_errors_limited_total",
            "ICMP errors not sent because of limits.icmp_errors_per_second.",
            counters.icmp_limited,
        ),
        (
            "shunt_slowpath_offload_across_switches_total",
            "Offers to hardware that were not made, because packets of the connection come from one \
             switch and leave to another.",
            counters.offload_across,
        ),
        (
            "shunt_slowpath_offload_hairpin_total",
            "Offers to hardware that were not made, because two workers share the connection's way \
             between hosts inside.",
            counters.offload_hairpin,
        ),
        (
            "shunt_slowpath_offload_queue_full_total",
            "Commands that the queue to the offload engine had no room for.",
            counters.offload_queue_full,
        ),
    ] {
        page.counter(name, help, value);
    }
    let ports = config.switches.iter().zip(&stats.ports);
    page.metric(
        "shunt_slowpath_port_lost_total",
        "counter",
        "Frames that the slow path's device towards a switch lost: rx_missed (nobody took them), \
         rx_errors, tx_errors.",
        ports.flat_map(|(switch, port)| {
            let port = port.unwrap_or_default();
            let lost = [
                ("rx_missed", port.rx_missed),
                ("rx_errors", port.rx_errors),
                ("tx_errors", port.tx_errors),
            ];
            lost.map(|(why, count)| {
                let labels = [label("switch", &switch.name), label("why", why)];
                (labels.join(","), count)
            })
        }),
    );
}

fn drops(config: &Config, stats: &SlowPathStats) -> Vec<(String, u64)> {
    let counters = &stats.counters;
    let mut samples = Vec::new();
    for reason in DropReason::ALL {
        let mut known = 0;
        let why = label("reason", reason.as_str());
        for vpc in counters.vpcs_with_drops() {
            let count = counters.dropped_in(vpc, *reason);
            known += count;
            if count > 0 {
                let vpc = label("vpc", config.vpc_name(vpc));
                samples.push((format!("{why},{vpc}"), count));
            }
        }
        let unknown = counters.dropped(*reason).saturating_sub(known);
        samples.push((format!("{why},{}", label("vpc", "")), unknown));
    }
    samples
}

fn nat(page: &mut Page<'_>, pools: &[NatPool]) {
    let each = |of: fn(&NatPool) -> u64| {
        pools.iter().map(move |pool| {
            let family = if pool.addresses.contains(':') {
                "ipv6"
            } else {
                "ipv4"
            };
            let labels = [
                label("rule", &pool.rule),
                label("protocol", &pool.protocol),
                label("family", family),
            ];
            (labels.join(","), of(pool))
        })
    };
    page.metric(
        "shunt_nat_leased",
        "gauge",
        "Outside ports that a masquerade has leased, by rule, protocol and family.",
        each(|pool| pool.leased),
    );
    page.metric(
        "shunt_nat_capacity",
        "gauge",
        "Outside ports that its pool has.",
        each(|pool| pool.capacity),
    );
    page.metric(
        "shunt_nat_refused_total",
        "counter",
        "Connections for which no port was left.",
        each(|pool| pool.refused),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{tests::good, validate};

    /// Names with their types, as a page says them.
    pub(crate) fn page() -> String {
        let config = validate(&good()).unwrap();
        let mut stats = SlowPathStats {
            ports: vec![None],
            ..SlowPathStats::default()
        };
        let red = config.vpcs[0].vpc.id;
        stats.counters.drop(DropReason::Unreachable, Some(red));
        stats.counters.drop(DropReason::Unreachable, None);
        let pool = NatPool {
            rule: "out".into(),
            protocol: "udp".into(),
            addresses: "203.0.113.1".into(),
            leased: 3,
            capacity: 9,
            ..NatPool::default()
        };
        let view = SwitchView {
            state: SwitchState::Ready,
            tables: vec![("route4", 7)],
            ..SwitchView::default()
        };
        let mut text = String::new();
        write(
            &mut text,
            &Snapshot {
                config: &config,
                revision: 5,
                converged: true,
                uptime: 1.5,
                slow_path: Some(&stats),
                pools: &[pool],
                mirror: MirrorStats::default(),
                synchronised: true,
                switches: &[("sw1".into(), view)],
            },
        );
        text
    }

    #[test]
    fn a_page_says_everything_once_and_with_its_labels() {
        let text = page();
        let typed = |line: &&str| line.starts_with("# TYPE ");
        let mut names: Vec<&str> = text.lines().filter(typed).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        for line in names {
            let (name, kind) = line["# TYPE ".len()..].split_once(' ').unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let sampled = text.lines().any(|line| line.starts_with(name));
            assert!(sampled, "{name}");
        }
        for line in [
            "shunt_converged 1",
            "shunt_config_revision 5",
            "shunt_switch_state{switch=\"sw1\",state=\"ready\"} 1",
            "shunt_switch_entries{switch=\"sw1\",table=\"route4\"} 7",
            "shunt_slowpath_drops_total{reason=\"unreachable\",vpc=\"red\"} 1",
            "shunt_slowpath_drops_total{reason=\"unreachable\",vpc=\"\"} 1",
            "shunt_nat_leased{rule=\"out\",protocol=\"udp\",family=\"ipv4\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    /// What the package's dashboard and alerts ask for is served.
    #[test]
    fn dashboard_and_alerts_ask_for_what_there_is() {
        let mut known = page();
        let engines = [("sw1".to_owned(), shunt_offload::OffloadStats::default())];
        super::super::offload::write(&mut known, &engines);
        for (file, text) in [
            ("grafana.json", include_str!("../../packaging/grafana.json")),
            ("alerts.yml", include_str!("../../packaging/alerts.yml")),
        ] {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = text.split(|c| !is_name(c));
            let asked: Vec<&str> = words.filter(|word| word.starts_with("shunt_")).collect();
            assert!(asked.len() > 10, "{file}");
            for name in asked {
                let of = name.trim_end_matches("_bucket");
                assert!(known.contains(&format!("# TYPE {of} ")), "{file}: {name}");
            }
        }
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../packaging/grafana.json")).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 8);
    }
}
