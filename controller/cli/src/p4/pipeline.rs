//! `shunt p4 pipeline get|set|verify|commit`.

use std::path::PathBuf;

use p4runtime::client::{PipelineAction, PipelineParts};
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4info::{P4InfoIndex, format_p4info_text, parse_p4info_text};
use serde::Serialize;

use super::P4Error;
use super::connect::{Connection, file, text_file};
use crate::output::Output;

/// What `--help` says behind the options.
const HELP: &str = "\
Examples:
  shunt p4 pipeline get --out program.p4info.txtpb --device-config program.json
  shunt p4 pipeline verify --p4info program.p4info.txtpb --device-config program.json
  shunt p4 pipeline set --p4info program.p4info.txtpb --device-config program.json
  shunt p4 pipeline set --p4info … --device-config … --save && shunt p4 pipeline commit";

/// Gets, sets or verifies the pipeline.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Prints the P4Info, or writes it and the device config to files.
    Get {
        /// Where the P4Info goes, in text format; to standard output without.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the device's own form of the pipeline goes.
        #[arg(long, value_name = "FILE")]
        device_config: Option<PathBuf>,
    },
    /// Loads a pipeline; all entries are gone then. Does nothing if it runs already.
    Set {
        #[command(flatten)]
        files: Files,
        /// Save it only; `commit` puts it to work.
        #[arg(long, conflicts_with = "reconcile")]
        save: bool,
        /// Keep the entries, where the switch can.
        #[arg(long)]
        reconcile: bool,
        /// Load it also if it runs already.
        #[arg(long)]
        force: bool,
    },
    /// Has the switch check a pipeline, without loading it.
    Verify {
        #[command(flatten)]
        files: Files,
    },
    /// Puts the saved pipeline to work.
    Commit,
}

#[derive(Debug, clap::Args)]
struct Files {
    /// The P4Info, in protobuf text format.
    #[arg(long, value_name = "FILE")]
    p4info: PathBuf,
    /// The device's own form of the pipeline; for bmv2 the compiler's JSON.
    #[arg(long, value_name = "FILE")]
    device_config: PathBuf,
    /// The cookie; without, a checksum of both files.
    #[arg(long, value_name = "NUMBER", value_parser = cookie)]
    cookie: Option<u64>,
}

fn cookie(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number of 64 bits, such as 7 or 0xfeed"))
}

impl Files {
    fn load(&self) -> Result<(P4Info, Vec<u8>, u64), P4Error> {
        let text = text_file(&self.p4info)?;
        let info = parse_p4info_text(&text)?;
        // What the switch would refuse in general words is named here.
        P4InfoIndex::new(info.clone())?;
        let device_config = file(&self.device_config)?;
        let cookie = match self.cookie {
            Some(cookie) => cookie,
            None => checksum(&[text.as_bytes(), &device_config]),
        };
        Ok((info, device_config, cookie))
    }
}

/// FNV-1a: the same files, the same cookie, on every machine.
fn checksum(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[derive(Serialize)]
struct Done {
    done: &'static str,
    cookie: Option<String>,
}

pub(super) async fn run(
    to: &Connection,
    out: &Output,
    arguments: Arguments,
) -> Result<(), P4Error> {
    let done = |done: &'static str, cookie: Option<u64>| {
        let cookie = cookie.map(|cookie| format!("{cookie:#018x}"));
        let item = Done { done, cookie };
        out.object(&item, || match &item.cookie {
            Some(cookie) => format!("{done}, cookie {cookie}\n"),
            None => format!("{done}\n"),
        })
    };
    let client = to.client().await?;
    match arguments.verb {
        Verb::Get {
            out: path,
            device_config,
        } => {
            let pipeline = client.get_pipeline(PipelineParts::All).await?;
            let Some(p4info) = pipeline.p4info() else {
                return Err(P4Error::Usage("the switch runs no pipeline".to_owned()));
            };
            let text = format_p4info_text(p4info)?;
            let write = |path: &PathBuf, bytes: &[u8]| {
                std::fs::write(path, bytes).map_err(|source| P4Error::File {
                    path: path.clone(),
                    source,
                })
            };
            if let (Some(path), Some(config)) = (&device_config, &pipeline.0) {
                write(path, &config.p4_device_config)?;
            }
            match path {
                Some(path) => {
                    write(&path, text.as_bytes())?;
                    done("written", pipeline.cookie())?;
                }
                None => out.text(&(text + "\n"))?,
            }
        }
        Verb::Set {
            files,
            save,
            reconcile,
            force,
        } => {
            let (info, device_config, cookie) = files.load()?;
            let now = client.get_pipeline(PipelineParts::P4InfoAndCookie).await?;
            if !force && now.cookie() == Some(cookie) && now.p4info() == Some(&info) {
                done("runs already", Some(cookie))?;
                return Ok(());
            }
            let setting = async {
                if reconcile {
                    let kept = client
                        .reconcile_pipeline(info, device_config, cookie)
                        .await?;
                    return Ok(match kept {
                        true => "loaded, entries kept",
                        false => "loaded, entries dropped: this switch cannot keep them",
                    });
                }
                let (action, what) = match save {
                    true => (PipelineAction::VerifyAndSave, "saved"),
                    false => (PipelineAction::VerifyAndCommit, "loaded"),
                };
                client
                    .set_pipeline(action, info, device_config, cookie)
                    .await?;
                Ok(what)
            };
            let what = to.as_primary(&client, setting).await?;
            done(what, Some(cookie))?;
        }
        Verb::Verify { files } => {
            let (info, device_config, cookie) = files.load()?;
            let action = PipelineAction::Verify;
            let verifying = async {
                let verified = client.set_pipeline(action, info, device_config, cookie);
                Ok(verified.await?)
            };
            to.as_primary(&client, verifying).await?;
            done("valid", None)?;
        }
        Verb::Commit => {
            let committing = async { Ok(client.commit_pipeline().await?) };
            to.as_primary(&client, committing).await?;
            let now = client.get_pipeline(PipelineParts::CookieOnly).await?;
            done("committed", now.cookie())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_numbers_or_sums() {
        assert_eq!(cookie("0xfeed"), Ok(0xfeed));
        assert_eq!(cookie("7"), Ok(7));
        assert!(cookie("seven").is_err());
        assert_ne!(checksum(&[b"a", b"b"]), checksum(&[b"b", b"a"]));
        assert_eq!(checksum(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
    }
}
