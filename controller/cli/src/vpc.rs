//! `shunt vpc`.

use shunt_api::v1::ListVpcsRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::watch::Watch;

/// Which VPCs.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this one.
    name: Option<String>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Arguments,
) -> Result<(), Error> {
    let vpc = which.name.clone().unwrap_or_default();
    let vpcs = daemon
        .list_vpcs(ListVpcsRequest { vpc })
        .await?
        .into_inner()
        .vpcs;
    out.list(
        &vpcs,
        &["name", "id", "table", "tracking", "routes", "interfaces"],
        |vpc| {
            vec![
                vpc.name.clone(),
                vpc.id.to_string(),
                vpc.table.to_string(),
                if vpc.stateless {
                    "stateless"
                } else {
                    "stateful"
                }
                .into(),
                vpc.routes.to_string(),
                vpc.interfaces.join(", "),
            ]
        },
    )
}
