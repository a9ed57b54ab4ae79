//! `shunt top`.
//!
//! ```text
//!   daemon ── a sample a second ──▶ feed ──▶ Rates ──▶ App ── 30 frames a second ──▶ terminal
//!                                                      ▲
//!                                     keys, signals ───┘
//! ```
//!
//! Frames are drawn from what is here: how many there are is nothing to the daemon.

mod app;
mod draw;
mod feed;
mod panes;
mod rates;
mod terminal;
mod text;
mod words;

use std::time::Duration;

use shunt_api::v1::{TopSample, WatchTopRequest};

use crate::error::Error;
use crate::output::{Format, Output};
use feed::{Connect, Event, Feed};
use rates::Rates;

/// What `--help` says behind the options.
const HELP: &str = "\
Keys: Tab, 1-5 panes; s what is sorted by, r the other way round; Space pauses; z counts from now
on; < > the stage of latencies; q quits.

Examples:
  shunt top
  shunt top --once
  shunt top --interval 5s --output jsonl";

/// What is watched, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// Prints the rates of one interval and ends.
    #[arg(long)]
    once: bool,
    /// What rates are taken over, at least 1s.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Flows that are shown, at most.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    flows: u32,
}

pub(crate) async fn run(
    connect: impl Connect,
    out: &Output,
    which: Arguments,
) -> Result<(), Error> {
    let request = WatchTopRequest {
        interval_ms: u32::try_from(which.interval.as_millis()).unwrap_or(u32::MAX),
        flows: which.flows,
    };
    let on_screen = out.format() == Format::Table && !which.once;
    if on_screen && !out.is_terminal() {
        return Err(Error::Usage(
            "standard output is no terminal: `shunt top --once` prints once, `--output jsonl` a \
             line every interval"
                .to_owned(),
        ));
    }
    // The first connection fails as that of any other command.
    let feed = Feed::start(connect, request).await?;
    if on_screen {
        terminal::run(feed, which.interval).await
    } else {
        print(feed, out, which.once).await
    }
}

/// Prints the rates of every interval, or of one.
async fn print(mut feed: Feed, out: &Output, once: bool) -> Result<(), Error> {
    let mut before: Option<Box<TopSample>> = None;
    loop {
        match feed.next().await {
            Event::Sample(sample) => {
                let rates = before
                    .as_ref()
                    .and_then(|before| Rates::between(before, &sample));
                before = Some(sample);
                let Some(rates) = rates else { continue };
                out.object(&rates, || text::text(&rates, out))?;
                if once {
                    return Ok(());
                }
            }
            Event::Lost(error) => return Err(*error),
        }
    }
}
