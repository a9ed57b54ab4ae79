//! `shunt interfaces`.

use shunt_api::v1::ListInterfacesRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::watch::Watch;

/// Which interfaces; each option narrows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this one.
    name: Option<String>,
    /// Only of this VPC.
    #[arg(long)]
    vpc: Option<String>,
    /// Only of this switch.
    #[arg(long)]
    switch: Option<String>,
    /// Only those that are up, or are not: up or down.
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
    let request = ListInterfacesRequest {
        interface: which.name.clone().unwrap_or_default(),
        vpc: which.vpc.clone().unwrap_or_default(),
        switch: which.switch.clone().unwrap_or_default(),
        state: which.state.clone().unwrap_or_default(),
    };
    let interfaces = daemon
        .list_interfaces(request)
        .await?
        .into_inner()
        .interfaces;
    let header = [
        "name",
        "id",
        "vpc",
        "switch",
        "port",
        "encap",
        "mac",
        "mtu",
        "addresses",
        "tap",
        "state",
    ];
    out.list(&interfaces, &header, |interface| {
        vec![
            interface.name.clone(),
            interface.id.to_string(),
            interface.vpc.clone(),
            interface.switch.clone(),
            interface.port.to_string(),
            interface.encap.clone(),
            interface.mac.clone(),
            interface.mtu.to_string(),
            interface.addresses.join(", "),
            interface.tap.clone(),
            interface.state.clone(),
        ]
    })
}
