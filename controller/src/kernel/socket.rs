//! A netlink socket: requests with their answers, dumps, notifications.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DoneBuffer, DoneMessage, ErrorBuffer, ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkSerializable, Parseable as _,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;

use super::wire::{self, Frame, attributes, frames};

/// The kernel's largest datagram to user space is 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;
/// The kernel answers requests while they are sent; this long means that it will not.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What went wrong with a socket or a request.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket itself.
    #[error("netlink socket: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused; with its own words where it has some.
    #[error("{}{}", .errno.desc(), .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The error's number.
        errno: Errno,
        /// The kernel's explanation (extended acknowledgement).
        text: Option<String>,
    },
    /// Messages were lost: more arrived than the receive buffer holds.
    #[error("netlink receive buffer overrun")]
    Overrun,
    /// A message that cannot be read.
    #[error("unreadable netlink message")]
    Malformed,
    /// No answer.
    #[error("the kernel did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
}

impl SocketError {
    /// The kernel's error number, if it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpEnd {
    Complete,
    /// Something changed meanwhile (`NLM_F_DUMP_INTR`): parts may be missing or double.
    Interrupted,
}

/// A netlink route socket.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    /// What waiting found: a datagram in the buffer, or an error.
    held: Option<Result<(), SocketError>>,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens one. Must be called inside a tokio runtime.
    pub(crate) fn open() -> Result<Self, SocketError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Explanations beside the error number; not the whole request again.
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // The replacement is unsafe, for types whose descriptor changes under the reactor; this
        // one owns its descriptor and is never exchanged.
        #[allow(deprecated)]
        let socket = AsyncFd::new(socket)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            held: None,
            sequence: 0,
        })
    }

    /// Opens one that hears of these groups (`RTNLGRP_*`), with a receive buffer of that many
    /// bytes where the kernel permits it, else as large as it does.
    pub(crate) fn subscribe(groups: &[u32], buffer_bytes: usize) -> Result<Self, SocketError> {
        let this = Self::open()?;
        let socket = this.socket.get_ref();
        if setsockopt(socket, sockopt::RcvBufForce, &buffer_bytes).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &buffer_bytes).map_err(io::Error::from)?;
        }
        for &group in groups {
            socket.add_membership(group)?;
        }
        Ok(this)
    }

    /// Bytes of the receive buffer, as the kernel accounts them.
    pub(crate) fn receive_buffer(&self) -> usize {
        self.socket.get_ref().get_rx_buf_sz().unwrap_or(0)
    }

    /// Waits until there is something to receive. May be dropped at any time.
    pub(crate) async fn readable(&mut self) -> Result<(), SocketError> {
        while self.held.is_none() {
            let mut guard = self.socket.readable().await?;
            match receive(guard.get_inner(), &mut self.buffer) {
                Ok(false) => guard.clear_ready(),
                Ok(true) => self.held = Some(Ok(())),
                Err(error) => self.held = Some(Err(error)),
            }
        }
        Ok(())
    }

    /// The next datagram's messages, if one is there.
    pub(crate) fn try_receive(
        &mut self,
    ) -> Result<Option<impl Iterator<Item = Result<Frame<'_>, ()>>>, SocketError> {
        let there = match self.held.take() {
            Some(held) => held.map(|()| true),
            None => receive(self.socket.get_ref(), &mut self.buffer),
        };
        Ok(there?.then(|| frames(&self.buffer)))
    }

    async fn datagram(&mut self) -> Result<(), SocketError> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.readable())
            .await
            .map_err(|_| SocketError::Timeout)??;
        self.held.take().unwrap_or(Ok(()))
    }

    fn send(&mut self, message: impl NetlinkSerializable, flags: u16) -> Result<u32, SocketError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let bytes = wire::request(message, flags, self.sequence);
        self.socket.get_ref().send(&bytes, 0)?;
        Ok(self.sequence)
    }

    /// Sends a request with these flags (`NLM_F_*`) and waits for the acknowledgement.
    pub(crate) async fn request(
        &mut self,
        message: impl NetlinkSerializable,
        flags: u16,
    ) -> Result<(), SocketError> {
        let sequence = self.send(message, flags | NLM_F_ACK)?;
        loop {
            self.datagram().await?;
            for frame in frames(&self.buffer) {
                let frame = frame.map_err(|()| SocketError::Malformed)?;
                if frame.sequence == sequence && frame.kind == NLMSG_ERROR {
                    return acknowledgement(&frame);
                }
            }
        }
    }

    /// Asks for a dump and hands each message of the answer on.
    pub(crate) async fn dump(
        &mut self,
        message: impl NetlinkSerializable,
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<DumpEnd, SocketError> {
        let sequence = self.send(message, NLM_F_DUMP)?;
        let mut end = DumpEnd::Complete;
        loop {
            self.datagram().await?;
            for frame in frames(&self.buffer) {
                let frame = frame.map_err(|()| SocketError::Malformed)?;
                if frame.sequence != sequence {
                    continue;
                }
                if frame.flags & NLM_F_DUMP_INTR != 0 {
                    end = DumpEnd::Interrupted;
                }
                match frame.kind {
                    NLMSG_DONE => return done(&frame).map(|()| end),
                    NLMSG_ERROR => return acknowledgement(&frame).map(|()| end),
                    NLMSG_OVERRUN => return Err(SocketError::Overrun),
                    _ => each(&frame),
                }
            }
            // A long dump leaves room for others on this thread.
            tokio::task::consume_budget().await;
        }
    }
}

/// Receives one datagram into the buffer; `false`: there is none.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> Result<bool, SocketError> {
    loop {
        buffer.clear();
        match socket.recv(buffer, MsgFlags::MSG_TRUNC.bits()) {
            Ok(len) if len > buffer.len() => return Err(SocketError::Malformed),
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                return Err(SocketError::Overrun);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the number that ends a dump.
fn done(frame: &Frame<'_>) -> Result<(), SocketError> {
    if frame.payload.is_empty() {
        return Ok(());
    }
    let done = DoneBuffer::new_checked(&frame.payload)
        .and_then(|buffer| DoneMessage::parse(&buffer))
        .map_err(|_| SocketError::Malformed)?;
    match done.code {
        0 => Ok(()),
        code => Err(refusal(code, &done.extended_ack)),
    }
}

/// Reads an acknowledgement, or the error in its place.
fn acknowledgement(frame: &Frame<'_>) -> Result<(), SocketError> {
    let error = ErrorBuffer::new_checked(&frame.payload)
        .and_then(|buffer| ErrorMessage::parse(&buffer))
        .map_err(|_| SocketError::Malformed)?;
    match error.code {
        None => Ok(()),
        Some(_) => Err(refused(&error)),
    }
}

/// The error of an answer.
pub(crate) fn refused(error: &ErrorMessage) -> SocketError {
    // The request's header comes back, then attributes.
    let behind = error.header.get(wire::HEADER_LEN..).unwrap_or(&[]);
    refusal(error.raw_code(), behind)
}

/// The error of a negative number, with the kernel's explanation among the attributes.
fn refusal(code: i32, extended: &[u8]) -> SocketError {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let text = attributes(extended)
        .find(|&(kind, _)| kind == NLMSGERR_ATTR_MSG)
        .map(|(_, value)| {
            String::from_utf8_lossy(value)
                .trim_end_matches('\0')
                .to_owned()
        });
    SocketError::Refused {
        errno: Errno::from_raw(code.saturating_neg()),
        text,
    }
}
