//! Requests that set the kernel up, by `rtnetlink`'s handle: its answers in this module's words.

use std::future::Future;

use futures::{Stream, StreamExt as _};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket as _;
use rtnetlink::Handle;
use tokio::time::timeout;

use super::socket::{ANSWER_TIMEOUT, SocketError, refused};

/// A connection to the kernel. Its task ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    handle: Handle,
}

impl Requests {
    /// Opens one. Must be called inside a tokio runtime.
    pub(crate) fn open() -> Result<Self, SocketError> {
        let (mut connection, handle, _) = rtnetlink::new_connection()?;
        let socket = connection.socket_mut().socket_mut();
        // Explanations beside the error number; not the whole request again.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// What requests are built with.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Sends a request with flags that the builders do not offer, and waits until it is done.
    pub(crate) async fn submit(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), SocketError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let answers = self.handle.clone().request(message).map_err(translate)?;
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answered(answers.next()).await? {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(refused(&error));
            }
        }
        Ok(())
    }
}

/// Waits for a request that has one answer.
pub(crate) async fn done(
    request: impl Future<Output = Result<(), rtnetlink::Error>>,
) -> Result<(), SocketError> {
    answered(request).await?.map_err(translate)
}

/// Waits for all answers of a dump.
pub(crate) async fn collect<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, SocketError> {
    let mut answers = std::pin::pin!(answers);
    let mut all = Vec::new();
    while let Some(answer) = answered(answers.next()).await? {
        all.push(answer.map_err(translate)?);
    }
    Ok(all)
}

async fn answered<T>(answer: impl Future<Output = T>) -> Result<T, SocketError> {
    let waited = timeout(ANSWER_TIMEOUT, answer).await;
    waited.map_err(|_| SocketError::Timeout)
}

fn translate(error: rtnetlink::Error) -> SocketError {
    match error {
        rtnetlink::Error::NetlinkError(error) => refused(&error),
        rtnetlink::Error::RequestFailed => {
            SocketError::Io(std::io::Error::from(std::io::ErrorKind::BrokenPipe))
        }
        other => SocketError::Io(std::io::Error::other(other)),
    }
}
