//! `shunt p4 insert|modify|delete`.

use p4runtime::named::{Named, Purpose};
use p4runtime::order::References;
use p4runtime::p4::v1 as pb;
use p4runtime::p4::v1::update::Type;
use serde::Serialize;

use super::P4Error;
use super::connect::Connection;
use super::words::Words;
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Needs the primary role, and takes it only if no controller has it (--take-over).

Examples:
  shunt p4 insert flow4 vpc=1 src=10.0.0.2 dst=192.0.2.80 proto=6 src_port=1234 dst_port=80 do flow4_forward vpc=1
  shunt p4 insert acl src=10.0.0.0/8 dst_port=80..90 do drop --priority 10
  shunt p4 insert ecmp group=1 do 2x send port=1 do 1x send port=2    (weights 2 and 1)
  shunt p4 insert member ecmp_selector 5 do send port=1
  shunt p4 insert group ecmp_selector 7 member=5 member=3x6           (3x6: member 6, weight 3)
  shunt p4 insert multicast 1 port=1 port=2:1                         (port 2, instance 1)
  shunt p4 insert clone 5 port=510 --length 128
  shunt p4 modify default acl do drop                                 (without `do`: reset)
  shunt p4 modify counter drops 3 --packets 0 --bytes 0
  shunt p4 modify meter limits 0 --cir 1000 --cburst 100 --pir 2000 --pburst 200
  shunt p4 modify register cells 3 --value 7
  shunt p4 modify direct-counter flow4 vpc=1 … --packets 0
  shunt p4 delete flow4 vpc=1 src=10.0.0.2 dst=192.0.2.80 proto=6 src_port=1234 dst_port=80
  shunt p4 delete group ecmp_selector 7";

/// The entity, in words: a table's entry, or one of the others.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    words: Words,
}

#[derive(Serialize)]
struct Done<'a> {
    done: &'static str,
    #[serde(flatten)]
    entity: &'a Named,
}

pub(super) async fn run(
    to: &Connection,
    out: &Output,
    r#type: Type,
    what: Arguments,
) -> Result<(), P4Error> {
    let (client, index) = to.open().await?;
    let purpose = match r#type {
        Type::Delete => Purpose::Delete,
        _ => Purpose::Write,
    };
    // What cannot be said does not cost a running controller anything.
    let entity = what.words.entity(&index, purpose)?;
    let named = Named::of(&entity, &index)?;
    possible(r#type, &named)?;
    let update = pb::Update {
        r#type: r#type.into(),
        entity: Some(entity),
    };
    let writing = async {
        let written = client
            .write_ordered(&[update], &References::of(&index))
            .await;
        written.map_err(|error| P4Error::refused(&error, |_| named.to_string()))
    };
    to.as_primary(&client, writing).await?;
    let done = match r#type {
        Type::Insert => "inserted",
        Type::Delete => "deleted",
        _ => "modified",
    };
    let item = Done {
        done,
        entity: &named,
    };
    Ok(out.object(&item, || format!("{done} {named}\n"))?)
}

/// What is there for as long as the pipeline is can only be modified.
fn possible(r#type: Type, named: &Named) -> Result<(), P4Error> {
    let what = match named {
        Named::Default(_) => "a default entry",
        Named::Counter(_) | Named::DirectCounter(_) => "a counter",
        Named::Meter(_) | Named::DirectMeter(_) => "a meter",
        Named::Register(_) => "a register",
        Named::ValueSet(_) => "a value set",
        _ => return Ok(()),
    };
    match r#type {
        Type::Modify => Ok(()),
        _ => Err(P4Error::Usage(format!(
            "{what} is there as long as the pipeline: it can only be modified \
             (`shunt p4 modify {named}`)"
        ))),
    }
}
