//! nginx's error log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use jiff::Zoned;

/// Severities from loudest to quietest, as nginx numbers them.
const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];

/// The process's log, inherited over forks; lines go out in one write each.
static SINK: Mutex<Option<Sink>> = Mutex::new(None);

struct Sink {
    file: File,
    threshold: usize,
}

/// Opens the log of a node and keeps everything at `level` or louder.
pub fn open(path: &Path, level: &str) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let threshold = LEVELS.iter().position(|known| *known == level).unwrap_or(5);
    if let Ok(mut sink) = SINK.lock() {
        *sink = Some(Sink { file, threshold });
    }
    Ok(())
}

/// Writes one line: time, level, pid, message. Without an open log it is dropped.
pub fn write(level: &str, message: &str) {
    let rank = LEVELS.iter().position(|known| *known == level).unwrap_or(3);
    let Ok(mut sink) = SINK.lock() else { return };
    let Some(sink) = sink.as_mut() else { return };
    if rank <= sink.threshold {
        let line = format!("{} [{level}] {}#0: {message}\n", timestamp(), std::process::id());
        // A full disk must not take the node down; nginx drops the line too.
        let _ = sink.file.write_all(line.as_bytes());
    }
}

/// Local time as nginx and Kong's command line print it.
pub fn timestamp() -> String {
    Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string()
}
