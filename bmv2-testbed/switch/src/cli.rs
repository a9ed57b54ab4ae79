//! The command line: `simple_switch_grpc`'s flags, where they mean the same.
//!
//! A flag of its own that would change nothing here is taken with a notice, so that scripts go
//! on working; one that asks for something that shunt-switch doesn't do is refused.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use shunt_switch::log::{Form, Logger, Rotation, Target as LogTarget};
use shunt_switch::{Captures, Config, DROP_PORT, Deviation, Options, Tls};

/// The port of `simple_switch_grpc`, but of this machine only.
const DEFAULT_GRPC: &str = "127.0.0.1:9559";
/// The newest JSON format that is understood.
const JSON_VERSION: &str = "2.23";

const HELP: &str = "\
Examples:
  # Two ports, the program comes by P4Runtime, packet-in and packet-out by port 510:
  shunt-switch --no-p4 -i 1@veth1 -i 2@veth2 -- --cpu-port 510

  # A program from the start, each packet's way on the console, captures in /tmp/pcap:
  shunt-switch -i 1@veth1 -i 2@veth2 --p4info prog.p4info.txtpb --log text --pcap=/tmp/pcap prog.json

  # Why were packets dropped? One JSON object a packet:
  shunt-switch --log json --log-file way.jsonl -i 1@veth1 --p4info prog.p4info.txtpb prog.json
  jq -c '.outcomes[] | select(.result == \"dropped\")' way.jsonl

Differences from simple_switch_grpc: the device id is 1 unless --device-id says otherwise
(P4Runtime forbids 0), P4Runtime is served on 127.0.0.1 only unless --grpc-server-addr says
otherwise, a JSON needs its P4Info, and target options may stand before `--` as well.
Taken without effect: --thrift-port, --nanolog, --notifications-addr (there is no Thrift and no
nanomsg here). --priority-queues only says which priorities are dropped: nothing queues.
Refused: --use-files, --packet-in, --dp-grpc-server-addr, --restore-state, --debugger,
--debugger-addr, --disable-swap, --max-mc-groups, --max-l1-entries, --max-l2-entries.";

#[derive(Clone, Debug, Parser)]
#[command(
    name = "shunt-switch",
    version,
    disable_version_flag = true,
    about = "An embedded v1model switch: runs the JSON of p4c's bmv2 backend, serves P4Runtime.",
    after_help = HELP
)]
pub(crate) struct Arguments {
    /// Attach interface IFNAME as port PORT (repeatable).
    #[arg(short = 'i', long = "interface", value_name = "PORT@IFNAME", value_parser = interface)]
    interfaces: Vec<(u32, String)>,

    /// P4Runtime's device id.
    #[arg(long, default_value_t = 1)]
    device_id: u64,

    /// Start without a program (also what happens when no JSON is given).
    #[arg(long)]
    no_p4: bool,

    /// The P4Info (text format) of the JSON.
    #[arg(long, value_name = "FILE")]
    p4info: Option<PathBuf>,

    /// The most interfaces.
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    max_port_count: usize,

    /// Print the newest JSON format that is understood, and end.
    #[arg(long)]
    json_version: bool,

    /// Print the version.
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// Capture each port's frames to IFNAME_in.pcap and IFNAME_out.pcap in FOLDER.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true,
        default_missing_value = ".", help_heading = "Watching packets")]
    pcap: Option<PathBuf>,

    /// Log each packet's way through the program and why it went where it went: `text`, or one
    /// JSON object a line.
    #[arg(long, value_name = "FORM", help_heading = "Watching packets")]
    log: Option<LogForm>,

    /// Depart from the P4Runtime specification as real servers do (repeatable).
    #[arg(long, value_enum, value_name = "HOW", value_delimiter = ',')]
    deviate: Vec<Deviation>,

    /// Log to standard output (as --log text, if that does not stand beside it).
    #[arg(long, conflicts_with = "log_file", help_heading = "Watching packets")]
    log_console: bool,

    /// Log to FILE.
    #[arg(long, value_name = "FILE", help_heading = "Watching packets")]
    log_file: Option<PathBuf>,

    /// Write each packet to the log file at once.
    #[arg(long, requires = "log_file", help_heading = "Watching packets")]
    log_flush: bool,

    /// Set the log file aside (as FILE.1) before it grows beyond that.
    #[arg(long, value_name = "BYTES", requires = "log_file", help_heading = "Watching packets",
        value_parser = clap::value_parser!(u64).range(1..))]
    log_file_max_size: Option<u64>,

    /// Log files that are kept besides the one written.
    #[arg(
        long,
        value_name = "COUNT",
        requires = "log_file",
        help_heading = "Watching packets"
    )]
    log_file_max_files: Option<u32>,

    /// What is logged: packets at trace and debug only; the switch's own messages, on standard
    /// error, from this level on [default: packets, and messages from info on].
    #[arg(
        short = 'L',
        long,
        value_name = "LEVEL",
        help_heading = "Watching packets"
    )]
    log_level: Option<Level>,

    /// Show the first BYTES bytes of each frame in the log.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        help_heading = "Watching packets"
    )]
    dump_packet_data: usize,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    other: Other,

    /// The JSON to start with.
    #[arg(value_name = "JSON")]
    json: Option<PathBuf>,

    /// Target options, as simple_switch_grpc takes them.
    #[arg(last = true, value_name = "TARGET OPTIONS")]
    after: Vec<String>,
}

/// simple_switch_grpc's target options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Target options")]
struct Target {
    /// The egress port that means "drop" [default: 511].
    #[arg(long, value_name = "PORT")]
    drop_port: Option<u32>,

    /// The port whose frames go to the controller as packet-ins.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u32).range(1..))]
    cpu_port: Option<u32>,

    /// Where to serve P4Runtime [default: 127.0.0.1:9559].
    #[arg(long, value_name = "HOST:PORT")]
    grpc_server_addr: Option<String>,

    /// Serve P4Runtime over TLS only.
    #[arg(long)]
    grpc_server_ssl: bool,

    /// The server's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    grpc_server_cert: Option<PathBuf>,

    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    grpc_server_key: Option<PathBuf>,

    /// The authority that signs clients' certificates (PEM).
    #[arg(long, value_name = "FILE")]
    grpc_server_cacert: Option<PathBuf>,

    /// Demand a certificate of clients.
    #[arg(long)]
    grpc_server_with_client_auth: bool,

    /// Queues of each port; a packet of a priority beyond them is dropped [default: 1].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=8))]
    priority_queues: Option<u32>,

    #[arg(long, hide = true)]
    dp_grpc_server_addr: Option<String>,
    #[arg(long, hide = true)]
    disable_swap: bool,
    #[arg(long, hide = true)]
    max_mc_groups: Option<u32>,
    #[arg(long, hide = true)]
    max_l1_entries: Option<u32>,
    #[arg(long, hide = true)]
    max_l2_entries: Option<u32>,
}

/// Flags of simple_switch_grpc that have no meaning here.
#[derive(Clone, Debug, Default, clap::Args)]
struct Other {
    #[arg(long, hide = true)]
    thrift_port: Option<u32>,
    #[arg(long, hide = true)]
    nanolog: Option<String>,
    #[arg(long, hide = true)]
    notifications_addr: Option<String>,
    #[arg(long, hide = true)]
    use_files: Option<u32>,
    #[arg(long, hide = true)]
    packet_in: Option<String>,
    #[arg(long, hide = true)]
    restore_state: Option<PathBuf>,
    #[arg(long, hide = true)]
    debugger: bool,
    #[arg(long, hide = true)]
    debugger_addr: Option<String>,
}

#[derive(Debug, Parser)]
#[command(name = "--", no_binary_name = true, disable_help_flag = true)]
struct After {
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Off,
}

fn interface(text: &str) -> Result<(u32, String), String> {
    let (port, name) = text
        .split_once('@')
        .ok_or_else(|| "expected PORT@IFNAME, as in 1@veth1".to_owned())?;
    let port = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port number"))?;
    if name.is_empty() {
        return Err("the interface's name is missing".into());
    }
    Ok((port, name.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

impl Target {
    /// These options with what stands behind `--`, which counts more.
    fn with(self, after: Self) -> Self {
        Self {
            drop_port: after.drop_port.or(self.drop_port),
            cpu_port: after.cpu_port.or(self.cpu_port),
            grpc_server_addr: after.grpc_server_addr.or(self.grpc_server_addr),
            grpc_server_ssl: after.grpc_server_ssl | self.grpc_server_ssl,
            grpc_server_cert: after.grpc_server_cert.or(self.grpc_server_cert),
            grpc_server_key: after.grpc_server_key.or(self.grpc_server_key),
            grpc_server_cacert: after.grpc_server_cacert.or(self.grpc_server_cacert),
            grpc_server_with_client_auth: after.grpc_server_with_client_auth
                | self.grpc_server_with_client_auth,
            priority_queues: after.priority_queues.or(self.priority_queues),
            dp_grpc_server_addr: after.dp_grpc_server_addr.or(self.dp_grpc_server_addr),
            disable_swap: after.disable_swap | self.disable_swap,
            max_mc_groups: after.max_mc_groups.or(self.max_mc_groups),
            max_l1_entries: after.max_l1_entries.or(self.max_l1_entries),
            max_l2_entries: after.max_l2_entries.or(self.max_l2_entries),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, String> {
        if !self.grpc_server_ssl {
            let given = self.grpc_server_cert.is_some()
                || self.grpc_server_key.is_some()
                || self.grpc_server_cacert.is_some()
                || self.grpc_server_with_client_auth;
            return match given {
                true => Err("certificates are only used with --grpc-server-ssl".into()),
                false => Ok(None),
            };
        }
        let (Some(certificate), Some(key)) = (&self.grpc_server_cert, &self.grpc_server_key) else {
            return Err(
                "--grpc-server-ssl needs --grpc-server-cert and --grpc-server-key".to_owned(),
            );
        };
        let authority = match (self.grpc_server_with_client_auth, &self.grpc_server_cacert) {
            (false, _) => None,
            (true, Some(path)) => Some(read(path)?),
            (true, None) => {
                return Err(
                    "--grpc-server-with-client-auth needs --grpc-server-cacert FILE".to_owned(),
                );
            }
        };
        Ok(Some(Tls {
            certificate: read(certificate)?,
            key: read(key)?,
            client_authority: authority,
        }))
    }

    /// Refuses what this switch does not do.
    fn check(&self) -> Result<(), String> {
        let refused = [
            (
                self.dp_grpc_server_addr.is_some(),
                "--dp-grpc-server-addr: frames go through interfaces (-i) only; use a veth pair",
            ),
            (
                self.disable_swap,
                "--disable-swap: P4Runtime can always replace the program",
            ),
            (
                self.max_mc_groups
                    .or(self.max_l1_entries)
                    .or(self.max_l2_entries)
                    .is_some(),
                "--max-mc-groups, --max-l1-entries, --max-l2-entries: the limits are fixed",
            ),
        ];
        first(&refused)
    }
}

fn first(refused: &[(bool, &str)]) -> Result<(), String> {
    match refused.iter().find(|r| r.0) {
        Some((_, why)) => Err(format!("not supported: {why}")),
        None => Ok(()),
    }
}

impl Other {
    fn check(&self) -> Result<(), String> {
        first(&[
            (
                self.use_files.is_some(),
                "--use-files: frames go through interfaces (-i) only; replay a capture into a \
                 veth pair, and see --pcap for what comes out",
            ),
            (
                self.packet_in.is_some(),
                "--packet-in: there is no nanomsg here; use interfaces (-i)",
            ),
            (
                self.restore_state.is_some(),
                "--restore-state: entries come by P4Runtime",
            ),
            (
                self.debugger || self.debugger_addr.is_some(),
                "--debugger: see --log for each packet's way",
            ),
        ])
    }
}

impl Arguments {
    /// Reads the command line; prints help, version or errors and ends where it has to.
    pub(crate) fn read() -> Self {
        let arguments = Self::parse();
        if arguments.json_version {
            println!("{JSON_VERSION}");
            std::process::exit(0);
        }
        arguments
    }

    /// Directives for the switch's own messages.
    pub(crate) fn level(&self) -> &'static str {
        match self.log_level {
            Some(Level::Trace) => "shunt_switch=trace,info",
            Some(Level::Debug) => "shunt_switch=debug,info",
            None | Some(Level::Info) => "info",
            Some(Level::Warn) => "warn",
            Some(Level::Error) => "error",
            Some(Level::Off) => "off",
        }
    }

    /// What is taken although it has no effect.
    pub(crate) fn notices(&self) -> Vec<&'static str> {
        let all = [
            (
                self.other.thrift_port.is_some(),
                "--thrift-port has no effect: there is no Thrift server",
            ),
            (
                self.other.nanolog.is_some(),
                "--nanolog has no effect: see --log",
            ),
            (
                self.other.notifications_addr.is_some(),
                "--notifications-addr has no effect: notifications come by P4Runtime",
            ),
        ];
        all.iter().filter(|n| n.0).map(|n| n.1).collect()
    }

    /// Whether standard output carries nothing but JSON.
    pub(crate) fn is_stdout_json(&self) -> bool {
        self.log == Some(LogForm::Json) && self.log_file.is_none()
    }

    /// Starts the packet log, if one is asked for.
    pub(crate) fn logger(&self) -> Result<Option<Logger>, String> {
        let wanted = self.log.is_some() || self.log_console || self.log_file.is_some();
        // As in simple_switch, where packets are logged at these levels.
        let wanted = wanted && self.log_level.is_none_or(|level| level <= Level::Debug);
        if !wanted {
            return Ok(None);
        }
        let form = match self.log {
            Some(LogForm::Json) => Form::Json,
            _ => Form::Text,
        };
        let target = match &self.log_file {
            None => LogTarget::Console,
            Some(path) => {
                let usual = Rotation::default();
                LogTarget::File {
                    path: path.clone(),
                    rotation: Rotation {
                        max_bytes: self.log_file_max_size.unwrap_or(usual.max_bytes),
                        max_files: self.log_file_max_files.unwrap_or(usual.max_files),
                    },
                    flush: self.log_flush,
                }
            }
        };
        Logger::start(target, form, self.dump_packet_data)
            .map(Some)
            .map_err(|e| e.to_string())
    }

    /// What the switch is started with.
    pub(crate) fn config(self, logger: Option<&Logger>) -> Result<Config, String> {
        let after = After::try_parse_from(&self.after)
            .map_err(|e| format!("target options: {e}"))?
            .target;
        let target = self.target.with(after);
        target.check()?;
        self.other.check()?;
        if self.interfaces.len() > self.max_port_count {
            return Err(format!(
                "{} interfaces are more than --max-port-count {}",
                self.interfaces.len(),
                self.max_port_count
            ));
        }
        let drop_port = target.drop_port.unwrap_or(DROP_PORT);
        if let Some(cpu_port) = target.cpu_port
            && (cpu_port == drop_port || self.interfaces.iter().any(|i| i.0 == cpu_port))
        {
            return Err(format!(
                "--cpu-port {cpu_port} is also the drop port (--drop-port) or has an interface (-i)"
            ));
        }
        let program = match (&self.json, &self.p4info) {
            _ if self.no_p4 => None,
            (None, None) => None,
            (Some(json), Some(p4info)) => {
                let text = String::from_utf8(read(p4info)?)
                    .map_err(|_| format!("{} is not text", p4info.display()))?;
                let info = p4runtime::p4info::parse_p4info_text(&text)
                    .map_err(|e| format!("{}: {e}", p4info.display()))?;
                Some((read(json)?, info))
            }
            (Some(_), None) => return Err("a JSON needs its P4Info too (--p4info FILE)".into()),
            (None, Some(_)) => return Err("--p4info needs the JSON too".into()),
        };
        let captures = self.pcap.as_deref().map(Captures::open).transpose();
        Ok(Config {
            tls: target.tls()?,
            grpc_addr: target
                .grpc_server_addr
                .unwrap_or_else(|| DEFAULT_GRPC.to_owned()),
            interfaces: self.interfaces,
            options: Options {
                device_id: self.device_id,
                drop_port,
                deviations: self.deviate.iter().copied().collect(),
                priority_queues: target.priority_queues.unwrap_or(1),
                cpu_port: target.cpu_port,
                trace: logger.map(Logger::sink),
                captures: captures.map_err(|e| e.to_string())?,
                ..Options::default()
            },
            program,
        })
    }
}

#[cfg(test)]
mod tests;
