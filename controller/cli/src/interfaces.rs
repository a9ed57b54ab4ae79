//! `shunt interfaces`.

use shunt_api::v1::ListInterfacesRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

pub(crate) async fn run(daemon: &mut ShuntClient<Channel>, out: &Output) -> Result<(), Error> {
    let interfaces = daemon
        .list_interfaces(ListInterfacesRequest {})
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
