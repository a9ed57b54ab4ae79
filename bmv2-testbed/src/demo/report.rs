//! What the demo found: figures, and what had to hold.

use std::fmt::Write as _;

#[derive(Debug)]
struct Check {
    what: String,
    held: bool,
    detail: String,
}

/// Figures and checks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Report {
    checks: Vec<Check>,
    figures: Vec<(String, String)>,
}

impl Report {
    /// Notes whether something held, and says it at once.
    pub(super) fn check(&mut self, what: &str, held: bool, detail: &str) {
        println!("  {} {what}: {detail}", if held { "ok  " } else { "FAIL" });
        self.checks.push(Check {
            what: what.into(),
            held,
            detail: detail.into(),
        });
    }

    /// Notes a figure.
    pub(super) fn figure(&mut self, what: &str, value: impl std::fmt::Display) {
        println!("       {what}: {value}");
        self.figures.push((what.into(), value.to_string()));
    }

    /// Whether everything held.
    pub(super) fn all_held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// Prints everything again, in short.
    pub(super) fn print(&self) {
        let mut out = String::from("\nReport\n");
        for (what, value) in &self.figures {
            let _ = writeln!(out, "  {what:<62} {value}");
        }
        for check in &self.checks {
            let word = if check.held { "ok" } else { "FAILED" };
            let _ = writeln!(out, "  {:<62} {word} ({})", check.what, check.detail);
        }
        let failed = self.checks.iter().filter(|check| !check.held).count();
        let _ = writeln!(
            out,
            "  {} of {} held{}",
            self.checks.len() - failed,
            self.checks.len(),
            if failed == 0 { "" } else { ": FAILED" }
        );
        print!("{out}");
    }
}
