//! `shunt flows`.

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{DeleteFlowsRequest, FlowFilter, ListFlowsRequest, Tuple};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Output, duration_ms};
use crate::watch::Watch;

/// Which flows.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    filter: Filter,
    /// At most so many; 0 for all.
    #[arg(long, default_value_t = 0)]
    limit: u64,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Ends connections, in hardware too, and says how many.
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
struct Delete {
    #[command(flatten)]
    filter: Filter,
    /// All of them.
    #[arg(long, conflicts_with = "Filter")]
    all: bool,
}

/// Each narrows.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only from or to this VPC.
    #[arg(long)]
    vpc: Option<String>,
    /// Only with an address in this prefix, before or after translation.
    #[arg(long)]
    prefix: Option<String>,
    /// Only with this port or echo identifier, before or after translation.
    #[arg(long)]
    port: Option<u16>,
    /// Only of this protocol: tcp, udp, icmp or icmpv6.
    #[arg(long)]
    protocol: Option<String>,
    /// Only in this state, such as tcp_established, or established.
    #[arg(long)]
    state: Option<String>,
    /// Only those whose entries are in the switch (true), or are not (false).
    #[arg(long, value_name = "BOOL")]
    offloaded: Option<bool>,
    /// Only those that are at least so old, such as 90s or 2h.
    #[arg(long, value_name = "AGE")]
    min_age: Option<humantime::Duration>,
}

impl From<&Filter> for FlowFilter {
    fn from(filter: &Filter) -> Self {
        let min_age = filter.min_age.map_or(0, |age| age.as_millis());
        Self {
            vpc: filter.vpc.clone().unwrap_or_default(),
            prefix: filter.prefix.clone().unwrap_or_default(),
            port: filter.port.map(u32::from),
            protocol: filter.protocol.clone().unwrap_or_default(),
            state: filter.state.clone().unwrap_or_default(),
            offloaded: filter.offloaded,
            min_age_ms: u64::try_from(min_age).unwrap_or(u64::MAX),
        }
    }
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Arguments,
) -> Result<(), Error> {
    if let Some(Verb::Delete(which)) = &which.verb {
        return delete(daemon, out, which).await;
    }
    let request = ListFlowsRequest {
        filter: Some((&which.filter).into()),
        limit: which.limit,
    };
    let mut stream = daemon.list_flows(request).await?.into_inner();
    let mut flows = Vec::new();
    while let Some(flow) = stream.message().await? {
        flows.push(flow);
    }
    let header = [
        "vpc",
        "to",
        "original",
        "reply",
        "state",
        "offload",
        "age",
        "idle",
        "packets",
        "bytes",
        "in hardware",
    ];
    out.list(&flows, &header, |flow| {
        let total = flow.total.unwrap_or_default();
        let hardware = flow.hardware.unwrap_or_default();
        vec![
            flow.vpc.clone(),
            flow.to_vpc.clone(),
            tuple(flow.original.as_ref(), true),
            tuple(flow.reply.as_ref(), false),
            flow.state.clone(),
            flow.offload.clone(),
            duration_ms(flow.age_ms),
            duration_ms(flow.idle_ms),
            total.packets.to_string(),
            total.bytes.to_string(),
            share(hardware.packets, total.packets),
        ]
    })
}

/// Of the packets, in percent.
fn share(part: u64, all: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(all)) {
        Some(percent) => format!("{percent} %"),
        None => "-".to_owned(),
    }
}

async fn delete(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Delete,
) -> Result<(), Error> {
    let request = DeleteFlowsRequest {
        filter: Some((&which.filter).into()),
        all: which.all,
    };
    let answer = daemon.delete_flows(request).await?.into_inner();
    out.object(&answer, || match answer.deleted {
        1 => "1 connection ended\n".to_owned(),
        n => format!("{n} connections ended\n"),
    })
}

/// Both ends: "tcp 10.0.0.2:1 -> 192.0.2.80:80".
pub(crate) fn tuple(tuple: Option<&Tuple>, with_protocol: bool) -> String {
    let Some(tuple) = tuple else {
        return String::new();
    };
    let end = |address: &str, port: u32| {
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    };
    let arrow = format!(
        "{} -> {}",
        end(&tuple.source, tuple.source_port),
        end(&tuple.destination, tuple.destination_port)
    );
    if with_protocol {
        format!("{} {arrow}", tuple.protocol)
    } else {
        arrow
    }
}
