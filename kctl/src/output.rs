//! Results on standard output, in the form that was asked for.

use std::io::{self, Write as _};

use serde::Serialize;
use serde_json::Value;

use crate::cli::{Format, Global};
use crate::fail::Outcome;

#[derive(Clone, Copy, Debug)]
pub struct Printer {
    pub format: Format,
}

/// Rows of a table; the first one is the head.
pub type Table = Vec<Vec<String>>;

impl Printer {
    pub fn new(global: &Global) -> Self {
        Self { format: global.output.unwrap_or(Format::Table) }
    }

    pub fn is_table(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// One thing: its JSON, or `text`.
    pub fn one<T: Serialize>(&self, value: &T, name: &str, text: impl FnOnce() -> String) -> Outcome {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table | Format::Wide => write!(out, "{}", text())?,
            Format::Json | Format::Sarif => writeln!(out, "{}", pretty(value))?,
            Format::Jsonl => writeln!(out, "{}", json(value))?,
            Format::Yaml => write!(out, "{}", serde_norway::to_string(value).unwrap_or_default())?,
            Format::Name => writeln!(out, "{name}")?,
        }
        out.flush()?;
        Ok(())
    }

    /// Text that is a form of its own.
    pub fn text(&self, text: &str) -> Outcome {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// Several things: a JSON array, or a table.
    pub fn many<T: Serialize>(
        &self,
        values: &[T],
        name: impl Fn(&T) -> String,
        table: impl FnOnce(bool) -> Table,
    ) -> Outcome {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Table => write!(out, "{}", render(&table(false)))?,
            Format::Wide => write!(out, "{}", render(&table(true)))?,
            Format::Json | Format::Sarif => writeln!(out, "{}", pretty(&values))?,
            Format::Yaml => write!(out, "{}", serde_norway::to_string(&values).unwrap_or_default())?,
            Format::Jsonl => {
                for value in values {
                    writeln!(out, "{}", json(value))?;
                }
            }
            Format::Name => {
                for value in values {
                    writeln!(out, "{}", name(value))?;
                }
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn pretty<T: Serialize>(value: &T) -> String {
    let value: Value = serde_json::to_value(value).unwrap_or_default();
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

/// Columns as wide as their widest cell.
pub fn render(table: &Table) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |c: usize| table.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A state's symbol, so that colour is never alone in saying it.
pub fn symbol(word: &str) -> &'static str {
    kctl_shared::word::mark(word).1
}

pub fn time(t: Option<&prost_types::Timestamp>) -> String {
    t.and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok()).map_or("-".into(), |t| format!("{t:.0}"))
}
