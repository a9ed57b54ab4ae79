//! `shunt routes`.

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{ListRoutesRequest, Route};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::watch::Watch;

/// Which routes; each option narrows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only of this VPC.
    #[arg(long)]
    vpc: Option<String>,
    /// Only with a path over this interface.
    #[arg(long)]
    interface: Option<String>,
    /// Only within this prefix.
    #[arg(long)]
    prefix: Option<String>,
    /// Only those that cover this address; the longest is the one that counts.
    #[arg(long, value_name = "ADDRESS")]
    covers: Option<String>,
    /// Only of this kind: unicast, local, blackhole or unreachable.
    #[arg(long)]
    kind: Option<String>,
    /// Only from this source, such as bird or static.
    #[arg(long)]
    protocol: Option<String>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Arguments,
) -> Result<(), Error> {
    let request = ListRoutesRequest {
        vpc: which.vpc.clone().unwrap_or_default(),
        interface: which.interface.clone().unwrap_or_default(),
        prefix: which.prefix.clone().unwrap_or_default(),
        covers: which.covers.clone().unwrap_or_default(),
        kind: which.kind.clone().unwrap_or_default(),
        protocol: which.protocol.clone().unwrap_or_default(),
    };
    let mut stream = daemon.list_routes(request).await?.into_inner();
    let mut routes = Vec::new();
    while let Some(route) = stream.message().await? {
        routes.push(route);
    }
    out.list(
        &routes,
        &["vpc", "prefix", "kind", "next hops", "protocol", "metric"],
        |route| {
            vec![
                route.vpc.clone(),
                route.prefix.clone(),
                route.kind.clone(),
                paths(route),
                route.protocol.clone(),
                route.metric.to_string(),
            ]
        },
    )
}

fn paths(route: &Route) -> String {
    let several = route.paths.len() > 1;
    let words: Vec<_> = route
        .paths
        .iter()
        .map(|path| {
            let via = if path.gateway.is_empty() {
                String::new()
            } else {
                format!("via {} ", path.gateway)
            };
            let weight = if several {
                format!(" weight {}", path.weight)
            } else {
                String::new()
            };
            format!("{via}dev {}{weight}", path.interface)
        })
        .collect();
    let mut text = words.join(", ");
    if route.mtu > 0 {
        text.push_str(&format!(" mtu {}", route.mtu));
    }
    text
}
