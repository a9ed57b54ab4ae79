//! The index over a whole P4Info, and the checks on the way in.

use std::sync::Arc;

use super::convert::{self, Context, convert, invalid};
use super::model::*;
use super::objects::Objects;
use super::{P4InfoError, ReferredTo, parse_p4info_text};
use crate::p4::config::v1 as pb;

/// A P4Info that has been checked (ids and names unique, references resolved,
/// widths given), with its objects by id, full name and alias. Cheap to clone.
#[derive(Clone, Debug)]
pub struct P4InfoIndex(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    info: pb::P4Info,
    tables: Objects<Table>,
    actions: Objects<Action>,
    action_profiles: Objects<ActionProfile>,
    counters: Objects<Counter>,
    direct_counters: Objects<DirectCounter>,
    meters: Objects<Meter>,
    direct_meters: Objects<DirectMeter>,
    registers: Objects<Register>,
    digests: Objects<Digest>,
    value_sets: Objects<ValueSet>,
    packet_headers: Objects<PacketHeader>,
    externs: Objects<Extern>,
}

macro_rules! lookups {
    ($($type:ident: $all:ident, $name:ident, $id:ident;)*) => {
        impl P4InfoIndex {
            $(
                /// All of this kind, in the program's order.
                pub fn $all(&self) -> &[$type] {
                    self.0.$all.items()
                }

                /// Finds one by its full name or alias.
                ///
                /// # Errors
                /// [`P4InfoError::UnknownName`], with the nearest name.
                pub fn $name(&self, name: &str) -> Result<&$type, P4InfoError> {
                    self.0.$all.by_name(name)
                }

                /// Finds one by its id.
                ///
                /// # Errors
                /// [`P4InfoError::UnknownId`].
                pub fn $id(&self, id: u32) -> Result<&$type, P4InfoError> {
                    self.0.$all.by_id(id)
                }
            )*
        }
    };
}

lookups! {
    Table: tables, table, table_by_id;
    Action: actions, action, action_by_id;
    ActionProfile: action_profiles, action_profile, action_profile_by_id;
    Counter: counters, counter, counter_by_id;
    DirectCounter: direct_counters, direct_counter, direct_counter_by_id;
    Meter: meters, meter, meter_by_id;
    DirectMeter: direct_meters, direct_meter, direct_meter_by_id;
    Register: registers, register, register_by_id;
    Digest: digests, digest, digest_by_id;
    ValueSet: value_sets, value_set, value_set_by_id;
    PacketHeader: packet_headers, packet_header, packet_header_by_id;
    Extern: externs, extern_instance, extern_by_id;
}

impl P4InfoIndex {
    /// Reads, checks and indexes a P4Info in protobuf text format.
    ///
    /// # Errors
    /// [`P4InfoError`]: what is wrong with the text or with the P4Info.
    pub fn from_text(text: &str) -> Result<Self, P4InfoError> {
        Self::new(parse_p4info_text(text)?)
    }

    /// Checks and indexes a P4Info.
    ///
    /// # Errors
    /// [`P4InfoError`]: the first thing that is wrong with it.
    pub fn new(info: pb::P4Info) -> Result<Self, P4InfoError> {
        let context = Context::new(info.type_info.as_ref());
        let inner = Inner {
            tables: convert(&info.tables, |one| convert::table(one, &context))?,
            actions: convert(&info.actions, |one| convert::action(one, &context))?,
            action_profiles: convert(&info.action_profiles, convert::action_profile)?,
            counters: convert(&info.counters, convert::counter)?,
            direct_counters: convert(&info.direct_counters, convert::direct_counter)?,
            meters: convert(&info.meters, convert::meter)?,
            direct_meters: convert(&info.direct_meters, convert::direct_meter)?,
            registers: convert(&info.registers, |one| convert::register(one, &context))?,
            digests: convert(&info.digests, |one| convert::digest(one, &context))?,
            value_sets: convert(&info.value_sets, |one| convert::value_set(one, &context))?,
            packet_headers: convert(&info.controller_packet_metadata, |one| {
                convert::packet_header(one, &context)
            })?,
            externs: Objects::new(convert::externs(&info.externs)?)?,
            info,
        };
        inner.check_references()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The P4Info itself.
    pub fn p4info(&self) -> &pb::P4Info {
        &self.0.info
    }

    /// The direct counter of a table, if it has one.
    pub fn direct_counter_of(&self, table: &Table) -> Option<&DirectCounter> {
        let of = |id: &u32| self.0.direct_counters.by_id(*id).ok();
        table.direct_resources.iter().find_map(of)
    }

    /// The direct meter of a table, if it has one.
    pub fn direct_meter_of(&self, table: &Table) -> Option<&DirectMeter> {
        let of = |id: &u32| self.0.direct_meters.by_id(*id).ok();
        table.direct_resources.iter().find_map(of)
    }
}

impl Inner {
    fn check_references(&self) -> Result<(), P4InfoError> {
        for table in self.tables.items() {
            let fault = |fault: P4InfoError| invalid(table, fault.to_string());
            for action in &table.actions {
                self.actions.by_id(action.id).map_err(fault)?;
            }
            if let Some(id) = table.const_default_action {
                self.actions.by_id(id).map_err(fault)?;
            }
            if let Some(id) = table.implementation {
                self.action_profiles.by_id(id).map_err(fault)?;
            }
            let fields = table.match_fields.iter().flat_map(|field| &field.refers_to);
            self.check_referred(fields).map_err(fault)?;
        }
        for action in self.actions.items() {
            let params = action.params.iter().flat_map(|param| &param.refers_to);
            self.check_referred(params)
                .map_err(|fault| invalid(action, fault.to_string()))?;
        }
        for counter in self.direct_counters.items() {
            self.tables
                .by_id(counter.table_id)
                .map_err(|fault| invalid(counter, fault.to_string()))?;
        }
        for meter in self.direct_meters.items() {
            self.tables
                .by_id(meter.table_id)
                .map_err(|fault| invalid(meter, fault.to_string()))?;
        }
        Ok(())
    }

    /// What `@refers_to` names has to be there.
    fn check_referred<'a>(
        &self,
        mut references: impl Iterator<Item = &'a Reference>,
    ) -> Result<(), P4InfoError> {
        references.try_for_each(|reference| match &reference.to {
            ReferredTo::Table(table) => {
                let table = self.tables.by_name(table)?;
                table.field(&reference.field).map(drop)
            }
            ReferredTo::MulticastGroups | ReferredTo::CloneSessions => Ok(()),
        })
    }
}
