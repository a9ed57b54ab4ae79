//! Who is primary, asked without becoming it (P4Runtime 5).

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::limits::{ELECTION_DELAYS, ELECTION_TRIES_MAX};
use super::{Arbitration, Backoff, Client, ClientError, number, session};
use crate::p4::v1 as pb;
use crate::p4::v1::stream_message_response::Update;

const RPC: &str = "StreamChannel";

/// How the election of a role stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// The primary's election id; `None`: the role has no primary.
    pub primary: Option<u128>,
    /// The highest election id that the switch has seen. Whoever wants to be
    /// primary has to come with it or a higher one, also when the last primary
    /// is gone: a switch that keeps to the specification promotes nobody.
    pub highest: Option<u128>,
}

impl Client {
    /// Asks who is the primary of the configured role. It opens a stream of its
    /// own, without an election id, which never makes a primary, and closes it.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::DuplicateElectionId`] from a server that takes
    /// no election id for the id 0, if that is in use.
    pub async fn election(&self) -> Result<Election, ClientError> {
        let (first, longest) = ELECTION_DELAYS;
        let seed = u64::from(std::process::id());
        let mut backoff = Backoff::new(first, longest, seed).with_tries_max(ELECTION_TRIES_MAX);
        loop {
            let answer = self.ask().await;
            let Err(ClientError::DuplicateElectionId { .. }) = answer else {
                return answer;
            };
            // Somebody else may be asking at this moment.
            match backoff.next_delay() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return answer,
            }
        }
    }

    async fn ask(&self) -> Result<Election, ClientError> {
        let mut request = session::arbitration_request(&self.0.config, 0);
        if let Some(pb::stream_message_request::Update::Arbitration(update)) = &mut request.update {
            update.election_id = None;
        }
        // The sender is held until the answer is there: its end is the stream's.
        let (outgoing, requests) = mpsc::channel(1);
        let _ = outgoing.try_send(request); // it is empty
        let mut stub = self.stub();
        let answer = async {
            let requests = ReceiverStream::new(requests);
            let mut incoming = stub.stream_channel(requests).await?.into_inner();
            loop {
                match incoming.message().await?.map(|message| message.update) {
                    Some(Some(Update::Arbitration(update))) => return Ok(Some(update)),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        };
        let config = &self.0.config;
        let mut call = self.call(RPC);
        let answer = call.within(config, config.rpc_timeout, answer).await?;
        drop(outgoing);
        let update = answer.map_err(|status| {
            // What the server takes an election id for that is not there.
            ClientError::from_status(RPC, config, 0, &Arbitration::Pending, &status)
        })?;
        call.end();
        let update = update.ok_or_else(|| ClientError::Protocol {
            rpc: RPC,
            fault: "it closed the stream without an answer to the arbitration".to_owned(),
        })?;
        let highest = update.election_id.as_ref().map(number);
        let code = update.status.as_ref().map_or(0, |status| status.code);
        Ok(Election {
            // OK: a server that takes an unset id for the lowest one, and has no other client.
            primary: highest.filter(|_| !matches!(Code::from_i32(code), Code::Ok | Code::NotFound)),
            highest,
        })
    }
}
