//! P4Runtime protocol: messages, P4Info model, canonical values and an async client,
//! for any switch and any pipeline.
//!
//! | module | what it gives |
//! |---|---|
//! | [`client`] | connection, arbitration, pipeline, Write, Read, packets, digests |
//! | [`p4info`] | names for ids, with the nearest name for a misspelt one |
//! | [`value`] | canonical bytes; 10.0.0.1, 02:00:00:00:00:01, 80..90 and back |
//! | [`named`] | whole entities as lines of text and as values that serialize |
//! | [`order`] | which updates go before which |
//! | [`wire`] | updates straight to bytes, for a million a second |
//!
//! # Five minutes with a pipeline of your own
//!
//! What you need is what the P4 compiler wrote: the P4Info in text format, and the
//! device's own form (for bmv2 its JSON). Everything else goes by the names in it.
//!
//! ```no_run
//! use p4runtime::client::{
//!     Arbitration, Backoff, Client, ClientConfig, PipelineAction, PipelineParts,
//! };
//! use p4runtime::named::{Named, Purpose, parse_line};
//! use p4runtime::order::References;
//! use p4runtime::p4::v1::{Update, update::Type};
//! use p4runtime::p4info::P4InfoIndex;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // 1. Connect, and become the primary: the election id has to be the highest.
//!     let client = Client::connect(ClientConfig::new("127.0.0.1:9559", 1, 1)).await?;
//!     client.become_primary().await?;
//!
//!     // 2. Load the pipeline, unless it runs already: the cookie tells.
//!     const COOKIE: u64 = 1;
//!     let index = P4InfoIndex::from_text(&std::fs::read_to_string("program.p4info.txtpb")?)?;
//!     if client.get_pipeline(PipelineParts::CookieOnly).await?.cookie() != Some(COOKIE) {
//!         let json = std::fs::read("program.json")?;
//!         let action = PipelineAction::VerifyAndCommit;
//!         client.set_pipeline(action, index.p4info().clone(), json, COOKIE).await?;
//!     }
//!
//!     // 3. Write entries by name, those that are referred to first, whatever their order here.
//!     let mut updates = Vec::new();
//!     for line in [
//!         "route dst=10.0.0.0/8 do via nexthop=7",
//!         "nexthop id=7 do send port=3 dst=02:00:00:00:00:01",
//!         "acl src=192.0.2.0/24 dst_port=80..90 do drop --priority 10",
//!     ] {
//!         updates.push(Update {
//!             r#type: Type::Insert.into(),
//!             entity: Some(parse_line(line, &index, Purpose::Write)?),
//!         });
//!     }
//!     if let Err(error) = client.write_ordered(&updates, &References::of(&index)).await {
//!         for (at, refused) in error.refused() {
//!             eprintln!("update {at}: {}", refused.message);
//!         }
//!     }
//!
//!     // 4. Read a table back, part by part, and show it in the same words.
//!     let wanted = parse_line("route", &index, Purpose::Read)?;
//!     let mut entries = client.read_stream(vec![wanted]).await?;
//!     while let Some(part) = entries.next_part().await? {
//!         for entity in part {
//!             println!("{}", Named::of(&entity, &index)?);
//!         }
//!     }
//!
//!     // 5. Take what the switch sends, and notice when it is lost.
//!     let mut packets = client.take_packet_ins().ok_or("taken already")?;
//!     let mut arbitration = client.arbitration();
//!     loop {
//!         tokio::select! {
//!             Some(packet) = packets.recv() => println!("{} bytes", packet.payload.len()),
//!             Ok(()) = arbitration.changed() => {
//!                 let state = arbitration.borrow_and_update().clone();
//!                 if let Arbitration::Lost { reason } = state {
//!                     eprintln!("{reason}");
//!                     // It may have restarted empty: read it back before the next write.
//!                     client.reconnect_with(&mut Backoff::default()).await?;
//!                 }
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! TLS, a role, timeouts and every limit are fields of
//! [`ClientConfig`](client::ClientConfig); mutual TLS is a certificate more:
//!
//! ```
//! use std::time::Duration;
//!
//! use p4runtime::client::{ClientConfig, Tls};
//!
//! # fn example(ca: Vec<u8>, certificate: Vec<u8>, key: Vec<u8>) {
//! let mut config = ClientConfig::new("switch.example:9559", 1, 1 << 64);
//! config.role = Some("routes".to_owned());
//! config.tls = Some(Tls {
//!     ca_pem: ca,
//!     identity_pem: Some((certificate, key)),
//!     domain: None,
//! });
//! config.http2_keep_alive = Some(Duration::from_secs(10));
//! # }
//! ```
//!
//! What a line may say is in [`named`], what errors name in
//! [`ClientError`](client::ClientError) and [`NamedError`](named::NamedError), what is
//! counted in [`client::metrics`].
//!
//! # Features
//!
//! `client` (default) and `server`, the generated service, and `serde`; without any,
//! only the messages, the P4Info model and the values are built, with no transport,
//! which is what a build script wants.

#[cfg(feature = "client")]
pub mod client;
pub mod named;
pub mod order;
pub mod p4info;
mod proto;
pub mod value;
pub mod wire;

pub use proto::{FILE_DESCRIPTOR_SET, google, p4};
