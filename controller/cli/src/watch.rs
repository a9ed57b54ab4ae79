//! `--watch`: a command again and again, the same for every noun that shows state.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shunt_api::v1::shunt_client::ShuntClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::{Format, Output};

/// Seconds between two looks: the least and the most.
const SECONDS: (f64, f64) = (0.1, 86_400.0);
/// Clears the screen and begins at its top (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Whether to go on.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Watch {
    /// Looks again every so many seconds (2 unless given) until Ctrl-C, which is exit code 0. On
    /// a terminal the screen is drawn anew; with `--output jsonl` each look is one object,
    /// `{"time_ms": …, "answer": …}`, or "error" in place of "answer".
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = SECONDS;
    match text.parse::<f64>() {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("write seconds, {least} to {most}")),
    }
}

impl Watch {
    /// Runs a command once, or until a signal. The first time it fails as it does without; later
    /// on errors are shown, and a daemon that has gone is asked again.
    pub(crate) async fn run<A>(
        self,
        connect: impl Fn() -> A,
        out: &Output,
        mut show: impl AsyncFnMut(&mut ShuntClient<Channel>, &Output) -> Result<ExitCode, Error>,
    ) -> Result<ExitCode, Error>
    where
        A: Future<Output = Result<ShuntClient<Channel>, Error>>,
    {
        let mut daemon = connect().await?;
        let Some(every) = self.watch else {
            return show(&mut daemon, out).await;
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watching = async {
            let mut first = true;
            loop {
                ticks.tick().await;
                let page = out.page();
                let mut looked = show(&mut daemon, &page).await.map(|_| ());
                if looked.is_err() && !first {
                    // It may be another daemon by now.
                    looked = match connect().await {
                        Ok(anew) => {
                            daemon = anew;
                            let _ = page.taken();
                            show(&mut daemon, &page).await.map(|_| ())
                        }
                        Err(error) => Err(error),
                    };
                }
                match looked {
                    Ok(()) => out.text(&answer(out, every, &page.taken()))?,
                    Err(error) if first => return Err(error),
                    Err(error) => out.text(&failure(out, every, &error)?)?,
                }
                first = false;
            }
        };
        tokio::select! {
            ended = watching => ended,
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        }
    }
}

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis())
}

fn answer(out: &Output, every: Duration, text: &str) -> String {
    match out.format() {
        Format::Table => screen(out, every, text),
        Format::Json | Format::Jsonl => {
            format!("{{\"time_ms\":{},\"answer\":{text}}}\n", now_ms())
        }
    }
}

fn failure(out: &Output, every: Duration, error: &Error) -> Result<String, Error> {
    let words = error.to_string();
    Ok(match out.format() {
        Format::Table => screen(out, every, &format!("shunt: {words}\n")),
        Format::Json | Format::Jsonl => {
            let error = serde_json::to_string(&words)?;
            format!("{{\"time_ms\":{},\"error\":{error}}}\n", now_ms())
        }
    })
}

/// A screenful; without a terminal all of it, and a blank line.
fn screen(out: &Output, every: Duration, text: &str) -> String {
    if !out.is_terminal() {
        return format!("{text}\n");
    }
    let rows = crossterm::terminal::size().map_or(usize::MAX, |(_, rows)| usize::from(rows));
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    fitted(&format!("every {every:?}, {time}"), text, rows)
}

/// As many lines as there is room for; the last one stays free for the cursor.
fn fitted(head: &str, text: &str, rows: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(3).max(1);
    let mut page = format!("{CLEAR}{head}\n\n");
    let shown = match lines.len() <= room {
        true => lines.len(),
        false => room - 1,
    };
    for line in lines.iter().take(shown) {
        page.push_str(line);
        page.push('\n');
    }
    if shown < lines.len() {
        page.push_str(&format!("… {} more lines\n", lines.len() - shown));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_a_range() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "rules", ""] {
            assert_eq!(
                seconds(wrong),
                Err("write seconds, 0.1 to 86400".to_owned()),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_page_fits_the_screen() {
        let page = fitted("head", "1\n2\n3\n4\n5\n", 6);
        assert_eq!(page, format!("{CLEAR}head\n\n1\n2\n… 3 more lines\n"));
        let page = fitted("head", "1\n2\n3\n", 6);
        assert_eq!(page, format!("{CLEAR}head\n\n1\n2\n3\n"));
        assert_eq!(page.lines().count() + 1, 6);
    }
}
