//! `shunt routes`.

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{ListRoutesRequest, Route};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

/// Which routes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only of this VPC.
    #[arg(long)]
    vpc: Option<String>,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: Arguments,
) -> Result<(), Error> {
    let request = ListRoutesRequest {
        vpc: which.vpc.unwrap_or_default(),
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
