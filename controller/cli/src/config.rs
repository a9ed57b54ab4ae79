//! `shunt config`.

mod print;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use shunt_api::v1::change_config_request::Edit;
use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{
    ChangeConfigRequest, ConfigRemove, ConfigSet, DiffConfigRequest, GetConfigRequest,
    GetConfigResponse, ListConfigLogRequest, ValidateConfigRequest, WaitConfigRequest,
    WaitConfigResponse,
};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;

/// The first line of an exported configuration, before the revision's number.
const EXPORTED: &str = "# shunt configuration, revision ";

/// The configuration: every revision is kept, and can be shown, compared and returned to.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// The configuration, or a part of it.
    Show {
        /// A part: vpc, vpc.red, vpc.red.weight.
        path: Option<String>,
        /// An older one.
        #[arg(long, short)]
        revision: Option<u64>,
    },
    /// Everything that is wrong with a file; exit code 1 if anything is.
    Validate {
        /// TOML; - for standard input.
        file: PathBuf,
    },
    /// How two revisions differ; without numbers, what the newest one changed.
    Diff {
        /// The older one.
        from: Option<u64>,
        /// The newer one; default the newest.
        to: Option<u64>,
        /// A file in place of the newer one.
        #[arg(long, short, conflicts_with = "to")]
        file: Option<PathBuf>,
    },
    /// Make a file the configuration: all of it or nothing.
    Apply {
        /// TOML; - for standard input. One that `export` wrote has to be of the newest revision.
        file: PathBuf,
        /// Refuse unless this is the newest revision.
        #[arg(long)]
        base: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Set one value, or add a section: `vpc.red.weight 5`, `vpc.green '{ id = 3, table = 103 }'`.
    Set {
        /// Where.
        path: String,
        /// TOML; what is none is text.
        value: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove a section, or a value (its default is in force then).
    Remove {
        /// Where.
        path: String,
        /// Also remove all that refers to it.
        #[arg(long)]
        cascade: bool,
        #[command(flatten)]
        how: How,
    },
    /// Who changed what, when and why; the newest first.
    Log {
        /// At most so many.
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: u32,
        /// Only those before this revision.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        before: u64,
        /// Also what each one changed.
        #[arg(long, short)]
        changes: bool,
    },
    /// Return to an older revision; that is a new one.
    Rewind {
        /// Which.
        revision: u64,
        #[command(flatten)]
        how: How,
    },
    /// The configuration as a file that `apply` takes.
    Export {
        /// An older one.
        #[arg(long, short)]
        revision: Option<u64>,
    },
    /// Wait until workers and switches have done all that the configuration asks; exit code 4 if
    /// they have not in time.
    Wait {
        /// How long at most.
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

/// How a change is made.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// Why; kept with it.
    #[arg(long, short, default_value = "", hide_default_value = true)]
    comment: String,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Wait until workers and switches have done all of it, and nothing that contradicts it is in
    /// the switch any more; exit code 4 if they have not in time.
    #[arg(long)]
    wait: bool,
    /// How long to wait at most.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    verb: Verb,
) -> Result<ExitCode, Error> {
    match verb {
        Verb::Show { path, revision } => {
            let found = get(daemon, revision).await?;
            print::shown(out, &found, path.as_deref())?;
        }
        Verb::Export { revision } => {
            let found = get(daemon, revision).await?;
            let number = found
                .revision
                .as_ref()
                .map_or(0, |revision| revision.number);
            out.text(&format!("{EXPORTED}{number}\n{}", found.toml))?;
        }
        Verb::Validate { file } => return validate(daemon, out, &file).await,
        Verb::Diff { from, to, file } => diff(daemon, out, from, to, file).await?,
        Verb::Apply { file, base, how } => {
            let document = read(&file)?;
            let base = base.or_else(|| exported(&document));
            return change(daemon, out, Edit::Document(document), base, how).await;
        }
        Verb::Set { path, value, how } => {
            let edit = Edit::Set(ConfigSet { path, value });
            return change(daemon, out, edit, None, how).await;
        }
        Verb::Remove { path, cascade, how } => {
            let edit = Edit::Remove(ConfigRemove { path, cascade });
            return change(daemon, out, edit, None, how).await;
        }
        Verb::Rewind { revision, how } => {
            return change(daemon, out, Edit::Rewind(revision), None, how).await;
        }
        Verb::Log {
            limit,
            before,
            changes,
        } => {
            let request = ListConfigLogRequest { before, limit };
            let mut stream = daemon.list_config_log(request).await?.into_inner();
            let mut log = Vec::new();
            while let Some(revision) = stream.message().await? {
                log.push(revision);
            }
            print::log(out, &log, changes)?;
        }
        Verb::Wait { timeout } => return wait(daemon, out, 0, timeout).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(
    daemon: &mut ShuntClient<Channel>,
    revision: Option<u64>,
) -> Result<GetConfigResponse, Error> {
    let revision = revision.unwrap_or(0);
    Ok(daemon
        .get_config(GetConfigRequest { revision })
        .await?
        .into_inner())
}

/// The revision that a file was exported from.
fn exported(document: &str) -> Option<u64> {
    let first = document.lines().next()?;
    first.strip_prefix(EXPORTED)?.trim().parse().ok()
}

fn read(file: &Path) -> Result<String, Error> {
    let mut text = String::new();
    let result = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    match result {
        Ok(()) => Ok(text),
        Err(source) => Err(Error::File {
            path: file.to_owned(),
            source,
        }),
    }
}

async fn validate(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    file: &Path,
) -> Result<ExitCode, Error> {
    let document = read(file)?;
    let request = ValidateConfigRequest { document };
    let answer = daemon.validate_config(request).await?.into_inner();
    print::faults(out, &file.display().to_string(), &answer)?;
    Ok(match answer.faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn diff(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    from: Option<u64>,
    to: Option<u64>,
    file: Option<PathBuf>,
) -> Result<(), Error> {
    let document = file.as_deref().map(read).transpose()?;
    let from = match (from, &document) {
        (Some(from), _) => from,
        // Against what is in force.
        (None, Some(_)) => 0,
        // What the newest one changed.
        (None, None) => {
            let found = get(daemon, None).await?;
            match found.newest {
                0 | 1 => {
                    let first = found.revision.unwrap_or_default();
                    return print::changes(out, &first.changes);
                }
                newest => newest - 1,
            }
        }
    };
    let request = DiffConfigRequest {
        from,
        to: to.unwrap_or(0),
        document,
    };
    let answer = daemon.diff_config(request).await?.into_inner();
    print::changes(out, &answer.changes)
}

async fn change(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    edit: Edit,
    base: Option<u64>,
    how: How,
) -> Result<ExitCode, Error> {
    let before = get(daemon, None).await?.newest;
    let request = ChangeConfigRequest {
        base: base.unwrap_or(before),
        comment: how.comment,
        dry_run: how.dry_run,
        edit: Some(edit),
    };
    let made = daemon.change_config(request).await?.into_inner();
    if !how.wait || how.dry_run {
        print::made(out, &made, how.dry_run, None)?;
        return Ok(ExitCode::SUCCESS);
    }
    if out.is_text() {
        print::made(out, &made, false, None)?;
        return wait(daemon, out, made.revision, how.timeout).await;
    }
    let last = waited(daemon, out, made.revision, how.timeout).await?;
    print::made(out, &made, false, Some(last.converged))?;
    Ok(finished(&last, how.timeout))
}

async fn wait(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    revision: u64,
    patience: Duration,
) -> Result<ExitCode, Error> {
    let last = waited(daemon, out, revision, patience).await?;
    if last.converged || !out.is_text() {
        out.object(&last, || "converged\n".to_owned())?;
    }
    Ok(finished(&last, patience))
}

/// Progress goes to standard error: what was changed is the answer.
async fn waited(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    revision: u64,
    patience: Duration,
) -> Result<WaitConfigResponse, Error> {
    let request = WaitConfigRequest {
        revision,
        patience_ms: u64::try_from(patience.as_millis())
            .unwrap_or(u64::MAX)
            .max(1),
    };
    let mut told = daemon.wait_config(request).await?.into_inner();
    let mut last = WaitConfigResponse::default();
    while let Some(answer) = told.message().await? {
        if !answer.converged && out.is_text() {
            eprintln!("waiting: {}", answer.missing);
        }
        last = answer;
    }
    Ok(last)
}

fn finished(last: &WaitConfigResponse, patience: Duration) -> ExitCode {
    if last.converged {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "shunt: not converged after {}: {}",
        humantime::format_duration(patience),
        last.missing
    );
    ExitCode::from(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exported_file_says_its_revision() {
        assert_eq!(
            exported("# shunt configuration, revision 17\n[daemon]\n"),
            Some(17)
        );
        assert_eq!(
            exported("[daemon]\n# shunt configuration, revision 17\n"),
            None
        );
        assert_eq!(exported("# shunt configuration, revision x\n"), None);
        assert_eq!(exported(""), None);
    }
}
