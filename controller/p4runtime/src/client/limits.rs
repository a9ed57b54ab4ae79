//! Every limit of the client, and why it is what it is.

use std::time::Duration;

/// Updates in one Write, by default.
pub const BATCH_UPDATES_MAX: usize = 2048;
/// Encoded bytes of one Write, by default: gRPC servers take 4 MiB unless told
/// otherwise; 64 KiB of that are left for the request's own fields.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Bytes of one message from the server, by default. PI sends a wildcard read
/// as one message: 4 million entries of 128 bytes.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of headers and trailers for each update of a Write, by default. The
/// specification advises 100 (P4Runtime 12.3); base64 and the texts that real
/// servers write take more.
pub const TRAILER_BYTES_PER_UPDATE: usize = 512;
/// Bytes of headers and trailers without any update.
pub const TRAILER_BYTES_BASE: usize = 8192;
/// Entities that one collected Read may return, by default.
pub const READ_ENTITIES_MAX: usize = 8 * 1024 * 1024;

/// Waiting for a TCP connection, by default.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waiting for the answer to an RPC, by default.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(30);
/// Waiting for a pipeline to be loaded, by default; hardware takes its time.
pub const PIPELINE_TIMEOUT: Duration = Duration::from_secs(120);
/// Silence before TCP probes the peer, by default.
pub const TCP_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Between two probes.
pub const TCP_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Probes without an answer before the connection counts as dead.
pub const TCP_KEEP_ALIVE_RETRIES: u32 = 3;

/// Waiting for the switch to close its side of a stream that is left.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Tries to ask who is primary while somebody else asks: to a server that takes no
/// election id for the id 0, two who ask have the same one.
pub const ELECTION_TRIES_MAX: u32 = 10;
/// The first and the longest delay between them.
pub const ELECTION_DELAYS: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_millis(200));

/// Messages waiting to leave on the stream.
pub const STREAM_OUT_QUEUE: usize = 1024;
/// Packets in that nobody has taken yet, by default.
pub const PACKET_IN_QUEUE: usize = 4096;
/// Digest lists that nobody has taken yet, by default.
pub const DIGEST_QUEUE: usize = 1024;
/// Idle-timeout notifications that nobody has taken yet, by default.
pub const IDLE_TIMEOUT_QUEUE: usize = 4096;
/// Stream errors that nobody has taken yet, by default.
pub const STREAM_ERROR_QUEUE: usize = 64;

/// The first delay of a default [`Backoff`](super::Backoff).
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest delay of a default [`Backoff`](super::Backoff).
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// Rounds in a row in which everything written again comes back `ABORTED`, before
/// it is given up. Each other round decides an update at least, and so there are no
/// more of them than updates.
pub const ABORTED_ROUNDS_WITHOUT_PROGRESS_MAX: u32 = 3;
