//! Configures digests, and puts lists of them on the wire.

use p4runtime::p4::v1 as pb;
use pb::digest_entry::Config;
use pb::update::Type;
use tonic::Code;

use super::fault::Fault;
use super::value::canonical;
use super::write::Writer;
use crate::info::Info;
use crate::state::digest::{DigestConfig, Digests, List, Values};
use crate::state::lock;

fn check_known(info: &Info, id: u32) -> Result<(), Fault> {
    let known = info.digests.values().any(|d| d.0 == id);
    let fault = || Fault::not_found(format!("there is no digest of id {id:#x}"));
    known.then_some(()).ok_or_else(fault)
}

fn config(wire: Option<&Config>, what: &str) -> Result<DigestConfig, Fault> {
    let wire = wire.ok_or_else(|| Fault::invalid(format!("{what}: the config is missing")))?;
    let part = |value: i64, name: &str| {
        let fault = |_| Fault::invalid(format!("{what}: {name} is negative"));
        u64::try_from(value).map_err(fault)
    };
    Ok(DigestConfig {
        max_timeout_ns: part(wire.max_timeout_ns, "max_timeout_ns")?,
        max_list_size: part(wire.max_list_size.into(), "max_list_size")? as usize,
        ack_timeout_ns: part(wire.ack_timeout_ns, "ack_timeout_ns")?,
    })
}

impl Writer<'_> {
    /// Enables, reconfigures or disables a digest.
    pub(crate) fn digest(&self, kind: Type, wire: &pb::DigestEntry) -> Result<(), Fault> {
        let id = wire.digest_id;
        check_known(&self.loaded.info, id)?;
        let what = format!("digest {id:#x}");
        let mut digests = lock(&self.loaded.state.digests);
        let old = digests.config(id);
        match (kind, old) {
            (Type::Insert, Some(_)) => {
                return Err(Fault::exists(format!("{what} is enabled already")));
            }
            (Type::Modify | Type::Delete, None) => {
                return Err(Fault::not_found(format!("{what} is not enabled")));
            }
            _ => {}
        }
        let new = match kind {
            Type::Delete => None,
            _ => Some(config(wire.config.as_ref(), &what)?),
        };
        digests.configure(id, new);
        self.log
            .note(|| move |w: &Writer<'_>| lock(&w.loaded.state.digests).configure(id, old));
        Ok(())
    }
}

/// The configurations that a read means; id 0 means all.
pub(crate) fn read_entries(
    info: &Info,
    digests: &Digests,
    wire: &pb::DigestEntry,
) -> Result<Vec<pb::DigestEntry>, Fault> {
    if wire.digest_id != 0 {
        check_known(info, wire.digest_id)?;
    }
    let wanted = |id: &u32| wire.digest_id == 0 || wire.digest_id == *id;
    let entry = |(digest_id, config): (u32, DigestConfig)| pb::DigestEntry {
        digest_id,
        config: Some(Config {
            max_timeout_ns: i64::try_from(config.max_timeout_ns).unwrap_or(i64::MAX),
            max_list_size: i32::try_from(config.max_list_size).unwrap_or(i32::MAX),
            ack_timeout_ns: i64::try_from(config.ack_timeout_ns).unwrap_or(i64::MAX),
        }),
    };
    let all = digests.configs().into_iter();
    Ok(all.filter(|c| wanted(&c.0)).map(entry).collect())
}

/// A list on the wire. A digest of one field is that field, of more a struct of them.
pub(crate) fn wire_list(list: List, timestamp: i64) -> pb::DigestList {
    let member = |value: Vec<u8>| pb::P4Data {
        data: Some(pb::p4_data::Data::Bitstring(canonical(&value))),
    };
    let data = |values: Values| {
        let mut members: Vec<_> = values.into_iter().map(member).collect();
        match members.pop() {
            Some(only) if members.is_empty() => only,
            last => {
                members.extend(last);
                let data = pb::p4_data::Data::Struct(pb::P4StructLike { members });
                pb::P4Data { data: Some(data) }
            }
        }
    };
    pb::DigestList {
        digest_id: list.digest_id,
        list_id: list.list_id,
        data: list.digests.into_iter().map(data).collect(),
        timestamp,
    }
}

/// Takes an acknowledgement.
pub(crate) fn acknowledge(
    info: &Info,
    digests: &mut Digests,
    ack: &pb::DigestListAck,
) -> Result<(), Fault> {
    check_known(info, ack.digest_id)
        .map_err(|fault| Fault::new(Code::InvalidArgument, fault.message))?;
    digests.acknowledge(ack.digest_id, ack.list_id);
    Ok(())
}
