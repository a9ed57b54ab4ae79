//! `shunt flows`.

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{ListFlowsRequest, Tuple};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Output, duration_ms};

/// Which flows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only from or to this VPC.
    #[arg(long)]
    vpc: Option<String>,
    /// Only those whose entries are in the switch (true), or are not (false).
    #[arg(long, value_name = "BOOL")]
    offloaded: Option<bool>,
    /// Only in this state, such as tcp_established.
    #[arg(long)]
    state: Option<String>,
    /// At most so many; 0 for all.
    #[arg(long, default_value_t = 0)]
    limit: u64,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: Arguments,
) -> Result<(), Error> {
    let request = ListFlowsRequest {
        vpc: which.vpc.unwrap_or_default(),
        offloaded: which.offloaded,
        state: which.state.unwrap_or_default(),
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
        "sw packets",
        "sw bytes",
    ];
    out.list(&flows, &header, |flow| {
        let software = flow.software.unwrap_or_default();
        vec![
            flow.vpc.clone(),
            flow.to_vpc.clone(),
            tuple(flow.original.as_ref(), true),
            tuple(flow.reply.as_ref(), false),
            flow.state.clone(),
            flow.offload.clone(),
            duration_ms(flow.age_ms),
            duration_ms(flow.idle_ms),
            software.packets.to_string(),
            software.bytes.to_string(),
        ]
    })
}

fn tuple(tuple: Option<&Tuple>, with_protocol: bool) -> String {
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
