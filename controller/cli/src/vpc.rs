//! `shunt vpc`.

use shunt_api::v1::ListVpcsRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

pub(crate) async fn run(daemon: &mut ShuntClient<Channel>, out: &Output) -> Result<(), Error> {
    let vpcs = daemon
        .list_vpcs(ListVpcsRequest {})
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
