//! Tables and JSON. A table fits the terminal; without one it is plain, one line a row.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::error::Error;

/// What `--output` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
}

/// Where and how to print.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    /// Kept here rather than printed.
    page: Option<RefCell<String>>,
}

impl Output {
    /// On standard output.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            terminal: io::stdout().is_terminal(),
            page: None,
        }
    }

    /// The same, but what is printed waits for [`Output::taken`]. JSON is on one line, a document.
    pub(crate) fn page(&self) -> Self {
        Self {
            format: match self.format {
                Format::Table => Format::Table,
                Format::Json | Format::Jsonl => Format::Json,
            },
            terminal: self.terminal,
            page: Some(RefCell::default()),
        }
    }

    /// What has been printed on the page.
    pub(crate) fn taken(&self) -> String {
        let page = self.page.as_ref();
        page.map(RefCell::take).unwrap_or_default()
    }

    fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<String, Error> {
        Ok(match &self.page {
            Some(_) => serde_json::to_string(value)?,
            None => serde_json::to_string_pretty(value)? + "\n",
        })
    }

    /// Whether somebody looks at it.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What was asked for.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Error> {
        match &self.page {
            Some(page) => page.borrow_mut().push_str(text),
            None => io::stdout().lock().write_all(text.as_bytes())?,
        }
        Ok(())
    }

    /// A list: rows of a table, or JSON of the objects themselves.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Error> {
        self.text(&self.render_list(items, header, row)?)
    }

    fn render_list<T: Serialize>(
        &self,
        items: &[T],
        header: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<String, Error> {
        match self.format {
            Format::Table => Ok(self.table(header, items.iter().map(row))),
            Format::Json => self.json(items),
            Format::Jsonl => {
                let lines: Result<Vec<_>, _> = items.iter().map(serde_json::to_string).collect();
                Ok(lines?.into_iter().map(|line| line + "\n").collect())
            }
        }
    }

    /// Whether text is asked for, and not JSON.
    pub(crate) fn is_text(&self) -> bool {
        self.format == Format::Table
    }

    /// A list whose items have a line of their own in place of columns.
    pub(crate) fn lines<T: Serialize>(
        &self,
        items: &[T],
        line: impl FnMut(&T) -> String,
    ) -> Result<(), Error> {
        self.text(&self.render_lines(items, line)?)
    }

    /// As [`Output::lines`], to be put elsewhere.
    pub(crate) fn render_lines<T: Serialize>(
        &self,
        items: &[T],
        mut line: impl FnMut(&T) -> String,
    ) -> Result<String, Error> {
        match self.format {
            Format::Table => Ok(items.iter().map(|item| line(item) + "\n").collect()),
            Format::Json | Format::Jsonl => self.render_list(items, &[], |_| Vec::new()),
        }
    }

    /// Something that happens now: its own text, or a line of JSON.
    pub(crate) fn event<T: Serialize>(
        &self,
        item: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let rendered = match self.format {
            Format::Table => text(),
            Format::Json | Format::Jsonl => serde_json::to_string(item)? + "\n",
        };
        self.text(&rendered)
    }

    /// One object: its own text, or JSON.
    pub(crate) fn object<T: Serialize>(
        &self,
        item: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let rendered = match self.format {
            Format::Table => text(),
            Format::Json => self.json(item)?,
            Format::Jsonl => serde_json::to_string(item)? + "\n",
        };
        self.text(&rendered)
    }

    /// A table with a header line and no frame.
    pub(crate) fn table(&self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_header(header.iter().map(|name| name.to_ascii_uppercase()));
        // Wrapped to the terminal's width; a pipe gets every row on one line.
        table.set_content_arrangement(if self.terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        for row in rows {
            table.add_row(row);
        }
        let mut text: String = table
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

/// A duration for people: "350 ms", "12.5 s", "3 m 20 s", "2 h 5 m".
pub(crate) fn duration_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} m {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// "name value" pairs in one line, or "none".
pub(crate) fn counts(counts: &[shunt_api::v1::Count]) -> String {
    let words: Vec<_> = counts
        .iter()
        .filter(|count| count.value > 0)
        .map(|count| format!("{} {}", count.name, count.value))
        .collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        size: u32,
    }

    const THINGS: [Thing; 2] = [
        Thing { name: "a", size: 1 },
        Thing {
            name: "longer",
            size: 22,
        },
    ];

    fn render(format: Format) -> String {
        Output {
            format,
            terminal: false,
            page: None,
        }
        .render_list(&THINGS, &["name", "size"], |thing| {
            vec![thing.name.into(), thing.size.to_string()]
        })
        .unwrap()
    }

    #[test]
    fn a_list_in_each_format() {
        assert_eq!(
            render(Format::Table),
            " NAME    SIZE\n a       1\n longer  22\n"
        );
        assert_eq!(
            render(Format::Jsonl),
            "{\"name\":\"a\",\"size\":1}\n{\"name\":\"longer\",\"size\":22}\n"
        );
        let json: serde_json::Value = serde_json::from_str(&render(Format::Json)).unwrap();
        assert_eq!(json[1]["size"], 22);
    }

    #[test]
    fn durations_for_people() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_560, "12.5 s"),
            (200_000, "3 m 20 s"),
            (7_500_000, "2 h 5 m"),
        ] {
            assert_eq!(duration_ms(ms), text);
        }
    }
}
