//! `shunt log`.

use shunt_api::v1::SetLogLevelRequest;
use shunt_api::v1::shunt_client::ShuntClient;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

/// A level, or none.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// error, warn, info, debug or trace; or by module: info,shunt_controller::switch=debug. It
    /// lasts until the daemon ends.
    level: Option<String>,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    what: Arguments,
) -> Result<(), Error> {
    let level = what.level.unwrap_or_default();
    let answer = daemon.set_log_level(SetLogLevelRequest { level }).await?;
    let answer = answer.into_inner();
    out.object(&answer, || format!("{}\n", answer.level))
}
