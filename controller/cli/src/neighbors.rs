//! `shunt neighbors`.

use shunt_api::v1::ListNeighborsRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::watch::Watch;

/// Which neighbours; each option narrows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only on this interface.
    #[arg(long)]
    interface: Option<String>,
    /// Only on interfaces of this VPC.
    #[arg(long)]
    vpc: Option<String>,
    /// Only within this prefix; an address is itself.
    #[arg(long)]
    prefix: Option<String>,
    /// Only in this state of the kernel's, such as reachable or failed.
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Arguments,
) -> Result<(), Error> {
    let request = ListNeighborsRequest {
        interface: which.interface.clone().unwrap_or_default(),
        vpc: which.vpc.clone().unwrap_or_default(),
        prefix: which.prefix.clone().unwrap_or_default(),
        state: which.state.clone().unwrap_or_default(),
    };
    let mut stream = daemon.list_neighbors(request).await?.into_inner();
    let mut neighbors = Vec::new();
    while let Some(neighbor) = stream.message().await? {
        neighbors.push(neighbor);
    }
    out.list(
        &neighbors,
        &["interface", "vpc", "address", "mac", "state"],
        |neighbor| {
            vec![
                neighbor.interface.clone(),
                neighbor.vpc.clone(),
                neighbor.address.clone(),
                neighbor.mac.clone(),
                neighbor.state.clone(),
            ]
        },
    )
}
