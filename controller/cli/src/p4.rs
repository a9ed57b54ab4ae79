//! `shunt p4`: any P4Runtime switch and pipeline by hand, without the daemon.

mod cells;
mod connect;
mod counters;
mod diff;
mod export;
mod failure;
mod groups;
mod import;
mod info;
mod meters;
mod order;
mod packet;
mod pipeline;
mod read;
mod registers;
mod seen;
mod state;
mod tables;
mod watch;
mod words;
mod write;

pub(crate) use failure::P4Error;

use crate::error::Error;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Names and formats come from the switch's own P4Info. Reading needs no role. Writing
needs the primary role, and takes it only if no controller has it; --take-over takes
it from a running one. An entity is written as one line:

  flow4 vpc=1 src=10.0.0.2 dst=192.0.2.80 proto=6 src_port=1234 dst_port=80
        do flow4_snat vpc=1 src=203.0.113.10 src_port=5000 --idle-timeout 30s

that is: a table, its key, `do`, an action and its parameters. Values: 80, 0x50,
0b101, 10.0.0.2, 2001:db8::1, 02:00:00:00:00:01; prefixes 10.0.0.0/8; masks
10.0.0.0/255.0.0.0 or '10.0.0.0&&&255.0.0.0' (quoted for the shell); ranges 80..90;
* for anything. `shunt p4 tables NAME` says what a table takes.

Examples:
  shunt p4 info
  shunt p4 tables flow4
  shunt p4 read flow4 vpc=1
  shunt p4 insert route4 vpc=1 dst=10.0.0.0/8 do to_nexthop nexthop=3
  shunt p4 export backup.p4rt && shunt p4 import backup.p4rt --dry-run
  shunt p4 --address 192.0.2.7:9559 --device-id 3 watch acl";

/// Looks at and changes any P4Runtime switch, by name, without the daemon.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: connect::Connection,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// What the switch is, which pipeline it runs, who is primary.
    Info,
    /// The pipeline: get it, set another, or have one verified.
    Pipeline(pipeline::Arguments),
    /// The pipeline's tables, or all that one of them takes.
    Tables(tables::Arguments),
    /// Entries of a table, or any other entities.
    Read(read::Arguments),
    /// Adds an entry, or another entity.
    Insert(write::Arguments),
    /// Changes an entry or another entity: all of it, not only what is given.
    Modify(write::Arguments),
    /// Removes an entry or another entity.
    Delete(write::Arguments),
    /// Counters, indexed and of tables' entries.
    Counters(counters::Arguments),
    /// Meters, indexed and of tables' entries.
    Meters(meters::Arguments),
    /// Registers.
    Registers(registers::Arguments),
    /// Members and groups of action profiles, multicast groups, clone sessions.
    Groups(groups::Arguments),
    /// Packets to and from the controller port.
    #[command(subcommand)]
    Packet(packet::Verb),
    /// Changes of a table as they happen.
    Watch(watch::Arguments),
    /// The switch's whole state as a readable file.
    Export(export::Arguments),
    /// Brings the switch to the state of a file.
    Import(import::Arguments),
}

pub(crate) async fn run(arguments: Arguments, out: &Output) -> Result<(), Error> {
    use p4runtime::p4::v1::update::Type;
    let to = &arguments.connection;
    match arguments.verb {
        Verb::Info => info::run(to, out).await?,
        Verb::Pipeline(which) => pipeline::run(to, out, which).await?,
        Verb::Tables(which) => tables::run(to, out, which).await?,
        Verb::Read(which) => read::run(to, out, which).await?,
        Verb::Insert(what) => write::run(to, out, Type::Insert, what).await?,
        Verb::Modify(what) => write::run(to, out, Type::Modify, what).await?,
        Verb::Delete(what) => write::run(to, out, Type::Delete, what).await?,
        Verb::Counters(which) => counters::run(to, out, which).await?,
        Verb::Meters(which) => meters::run(to, out, which).await?,
        Verb::Registers(which) => registers::run(to, out, which).await?,
        Verb::Groups(which) => groups::run(to, out, which).await?,
        Verb::Packet(verb) => packet::run(to, out, verb).await?,
        Verb::Watch(which) => watch::run(to, out, which).await?,
        Verb::Export(what) => export::run(to, out, what).await?,
        Verb::Import(what) => import::run(to, out, what).await?,
    }
    Ok(())
}
