//! `shunt neighbors`.

use shunt_api::v1::ListNeighborsRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

/// Which neighbours.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only on this interface.
    #[arg(long)]
    interface: Option<String>,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: Arguments,
) -> Result<(), Error> {
    let request = ListNeighborsRequest {
        interface: which.interface.unwrap_or_default(),
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
