//! What a benchmark says: lines to read, and one JSON file to compare.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Metric {
    name: String,
    value: f64,
    unit: Cow<'static, str>,
}

#[derive(Deserialize)]
struct Adopted {
    metrics: Vec<Metric>,
}

/// The figures of one benchmark. The first one is the headline.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Document<'a> {
    bench: &'a str,
    headline: &'a Metric,
    metrics: &'a [Metric],
}

/// Why a benchmark has no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The machine lacks something; the text says what.
    #[error("skipped: {0}")]
    Skipped(String),
    /// It went wrong.
    #[error("{0}")]
    Failed(String),
}

impl BenchError {
    /// A failure of something that says why itself.
    pub(crate) fn failed(why: impl std::fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            metrics: Vec::new(),
        }
    }

    /// Adds a figure and prints it: `name: value unit`.
    pub(crate) fn metric(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let metric = Metric {
            name: name.into(),
            value,
            unit: unit.into(),
        };
        // Enough digits to compare, none to distract.
        let digits = if value.abs() >= 1000.0 { 0 } else { 3 };
        println!("{}: {:.digits$} {}", metric.name, metric.value, metric.unit);
        self.metrics.push(metric);
    }

    /// Takes over the figures that the same benchmark wrote to `<folder>` in another process.
    pub(crate) fn adopt(&mut self, folder: &Path) -> Result<(), BenchError> {
        let path = folder.join(format!("{}.json", self.bench));
        let text = std::fs::read_to_string(path).map_err(BenchError::failed)?;
        let found: Adopted = serde_json::from_str(&text).map_err(BenchError::failed)?;
        self.metrics.extend(found.metrics);
        Ok(())
    }

    /// Writes `<folder>/<bench>.json`.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, BenchError> {
        let headline = self.metrics.first();
        let headline = headline.ok_or_else(|| BenchError::failed("it reported nothing"))?;
        let document = Document {
            bench: self.bench,
            headline,
            metrics: &self.metrics,
        };
        let text = serde_json::to_string_pretty(&document).map_err(BenchError::failed)?;
        std::fs::create_dir_all(folder).map_err(BenchError::failed)?;
        let path = folder.join(format!("{}.json", self.bench));
        std::fs::write(&path, text + "\n").map_err(BenchError::failed)?;
        Ok(path)
    }
}

/// The middle of several measurements; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
