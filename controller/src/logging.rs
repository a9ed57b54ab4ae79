//! The log: text or JSON on standard error, its level changed while the daemon runs, and a limit
//! on what one place may say.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// What one place in the code may say in [`WINDOW`]; debug and trace are not limited, for who asks
/// for them wants them.
pub const EVENTS_MAX: u32 = 50;
/// See [`EVENTS_MAX`].
pub const WINDOW: Duration = Duration::from_secs(10);

/// Words that are levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Bytes of a filter at most.
const FILTER_MAX: usize = 4_096;

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogLevel(Arc<Level>);

#[derive(Debug)]
struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    now: Mutex<String>,
}

impl LogLevel {
    /// What is logged now, as `--log-level` takes it.
    pub fn get(&self) -> String {
        let now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }

    /// Logs that from now on.
    ///
    /// # Errors
    /// Why it is no filter.
    pub fn set(&self, text: &str) -> Result<(), String> {
        let filter = parse(text)?;
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.filter.reload(filter).map_err(|e| e.to_string())?;
        *now = text.to_owned();
        Ok(())
    }
}

/// `info`, `info,shunt_controller::switch=debug`.
///
/// # Errors
/// Why it is no filter.
pub fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("a level is needed: error, warn, info, debug or trace".to_owned());
    }
    if text.len() > FILTER_MAX {
        return Err(format!(
            "{} bytes are no log level: at most {FILTER_MAX}",
            text.len()
        ));
    }
    // The filter would take any other word for a module, and log all of that.
    let words = text.split(',').map(str::trim);
    let mut alone = words.filter(|word| !word.contains(['=', '[', '{']));
    if let Some(wrong) = alone.find(|word| !LEVELS.contains(&word.to_ascii_lowercase().as_str())) {
        return Err(format!(
            "{wrong:?} is no log level (there are: {}; by module: info,shunt_controller=debug)",
            LEVELS.join(", ")
        ));
    }
    EnvFilter::try_new(text).map_err(|error| format!("{text:?} is no log level: {error}"))
}

/// Starts the log of this process; once.
///
/// # Errors
/// Why `text` is no filter.
pub fn start(text: &str, format: LogFormat) -> Result<LogLevel, String> {
    let (filter, handle) = reload::Layer::new(parse(text)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(Limit::default()))
        .init();
    Ok(LogLevel(Arc::new(Level {
        filter: handle,
        now: Mutex::new(text.to_owned()),
    })))
}

/// A place in the code: module and line.
type Place = (&'static str, Option<u32>);

/// What a place has said lately.
#[derive(Clone, Copy, Debug)]
struct Said {
    since: Instant,
    events: u32,
    /// Of the window before this one.
    kept_back: u32,
}

/// Keeps back what one place says too often.
#[derive(Debug, Default)]
struct Limit(Mutex<HashMap<Place, Said>>);

impl Limit {
    /// Whether it may be said; and how many were kept back, to be told first.
    fn admit(&self, place: Place, now: Instant) -> (bool, u32) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = all.entry(place).or_insert(Said {
            since: now,
            events: 0,
            kept_back: 0,
        });
        let mut told = 0;
        if now.duration_since(said.since) >= WINDOW {
            told = said.kept_back;
            *said = Said {
                since: now,
                events: 0,
                kept_back: 0,
            };
        }
        said.events = said.events.saturating_add(1);
        let admitted = said.events <= EVENTS_MAX;
        said.kept_back += u32::from(!admitted);
        (admitted, told)
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > tracing::Level::INFO {
            return true;
        }
        let (admitted, kept_back) =
            self.admit((metadata.target(), metadata.line()), Instant::now());
        if kept_back > 0 {
            // Not by the log itself, which is asking.
            eprintln!(
                "{}:{}: {kept_back} more like the next were not logged",
                metadata.target(),
                metadata.line().unwrap_or(0)
            );
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_limited_and_what_was_kept_back_is_told() {
        let limit = Limit::default();
        let start = Instant::now();
        let (one, other) = (("one", Some(1)), ("one", Some(2)));
        for n in 0..EVENTS_MAX + 7 {
            assert_eq!(limit.admit(one, start), (n < EVENTS_MAX, 0));
        }
        assert_eq!(limit.admit(other, start), (true, 0));
        assert_eq!(limit.admit(one, start + WINDOW), (true, 7));
        assert_eq!(limit.admit(one, start + WINDOW), (true, 0));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        assert!(parse("info,shunt_controller=debug").is_ok());
        assert!(parse("").unwrap_err().starts_with("a level is needed"));
        assert!(parse("a=b=c").unwrap_err().contains("is no log level"));
    }
}
