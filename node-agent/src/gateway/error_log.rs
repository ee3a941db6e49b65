//! Kong's error log from a given place on: what a reload or a new worker had to say.
//!
//! The open file is kept beside its path, so that lines before and after a rotation are both seen.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::words;

/// Read at one go; a reload that writes more than this has told everything in the first part.
const MAX_READ: u64 = 8 << 20;

/// A place in a log file that survives the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    pub path: PathBuf,
    pub device: u64,
    pub inode: u64,
    pub offset: u64,
}

/// A line that matters, in Kong's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The master threw the new configuration away.
    InitFailed(String),
    /// nginx could not take its configuration.
    Emergency(String),
    /// A worker came up crippled.
    WorkerInit(String),
    /// A crippled worker answers requests.
    Unsafe(String),
    /// A request ended in an error in Lua; what an Admin API that answers 500 has to say.
    Runtime(String),
}

#[derive(Debug)]
struct Watched {
    mark: LogMark,
    file: Option<File>,
    /// Begun, not yet ended by a newline.
    partial: Vec<u8>,
}

/// Follows one or more log files.
#[derive(Debug)]
pub struct ErrorLog {
    files: Vec<Watched>,
}

impl ErrorLog {
    /// From the present end of each file. Files that are not regular (a container's stderr) cannot be read back.
    pub fn from_now(paths: &[PathBuf]) -> Self {
        let files = paths.iter().map(|path| Watched::new(path, None)).collect();
        Self { files }
    }

    /// From the beginning of each file.
    pub fn from_start(paths: &[PathBuf]) -> Self {
        let start = |path: &PathBuf| LogMark { path: path.clone(), device: 0, inode: 0, offset: 0 };
        Self::from_marks(&paths.iter().map(start).collect::<Vec<_>>())
    }

    /// From places remembered earlier.
    pub fn from_marks(marks: &[LogMark]) -> Self {
        Self { files: marks.iter().map(|mark| Watched::new(&mark.path, Some(mark))).collect() }
    }

    pub fn marks(&self) -> Vec<LogMark> {
        self.files.iter().map(|watched| watched.mark.clone()).collect()
    }

    /// What was written since the last call.
    pub fn poll(&mut self) -> Vec<Finding> {
        self.files.iter_mut().flat_map(Watched::poll).collect()
    }
}

fn identity(file: &File) -> Option<(u64, u64, u64)> {
    let metadata = file.metadata().ok()?;
    metadata.is_file().then(|| (metadata.dev(), metadata.ino(), metadata.len()))
}

/// Opening a pipe could wait for ever.
fn open(path: &Path) -> Option<File> {
    fs::metadata(path).ok()?.is_file().then(|| File::open(path).ok())?
}

impl Watched {
    fn new(path: &Path, mark: Option<&LogMark>) -> Self {
        let file = open(path);
        let (device, inode, length) = file.as_ref().and_then(identity).unwrap_or_default();
        let offset = match mark {
            None => length,
            Some(mark) if (mark.device, mark.inode) == (device, inode) && mark.offset <= length => {
                mark.offset
            }
            // Rotated since: all of the new file is younger.
            Some(_) => 0,
        };
        Self { mark: LogMark { path: path.to_path_buf(), device, inode, offset }, file, partial: Vec::new() }
    }

    fn poll(&mut self) -> Vec<Finding> {
        let mut text = std::mem::take(&mut self.partial);
        self.read_on(&mut text);
        let now = open(&self.mark.path);
        let there = now.as_ref().and_then(identity);
        if let Some((device, inode, length)) = there {
            let rotated = (device, inode) != (self.mark.device, self.mark.inode);
            if rotated || length < self.mark.offset {
                self.mark = LogMark { path: self.mark.path.clone(), device, inode, offset: 0 };
                self.file = now;
                self.read_on(&mut text);
            }
        }
        // A line that is still being written is looked at when it is whole.
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        self.partial = text.split_off(whole);
        findings(&String::from_utf8_lossy(&text))
    }

    fn read_on(&mut self, text: &mut Vec<u8>) {
        let Some(file) = self.file.as_mut() else { return };
        if file.seek(SeekFrom::Start(self.mark.offset)).is_err() {
            return;
        }
        if let Ok(count) = file.take(MAX_READ).read_to_end(text) {
            self.mark.offset += count as u64;
        }
    }
}

/// `2026/11/21 00:42:05 [error] …`: the beginning of an entry; other lines belong to the entry before them.
fn begins_entry(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.len() > 20
        && bytes[4] == b'/'
        && bytes[7] == b'/'
        && bytes[13] == b':'
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && line.get(20..21) == Some("[")
}

fn findings(text: &str) -> Vec<Finding> {
    entries(text).filter_map(finding).collect()
}

/// The entries of a log, each with the lines that belong to it; what stands before the first one is none.
pub(crate) fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut begin = None;
        let mut at = 0;
        for line in rest.split_inclusive('\n') {
            if begins_entry(line) && begin.replace(begin.unwrap_or(at)).is_some() {
                break;
            }
            at += line.len();
        }
        let entry = &rest[begin?..at];
        rest = &rest[at..];
        Some(entry)
    })
}

pub(crate) fn finding(entry: &str) -> Option<Finding> {
    let says = |part: &str| entry.contains(part);
    if says("init_by_lua error: ") {
        Some(Finding::InitFailed(words::sentence(entry)))
    } else if says("worker initialization error: ") {
        Some(Finding::WorkerInit(words::sentence(entry)))
    } else if says("unsafe request processing due to earlier initialization errors") {
        Some(Finding::Unsafe(in_brackets(entry)))
    } else if says(" [emerg] ") {
        let words =
            entry.split_once("#0: ").or_else(|| entry.split_once("[emerg] ")).map_or(entry, |(_, rest)| rest);
        Some(Finding::Emergency(words::sentence(words)))
    } else if says("lua entry thread aborted: runtime error: ") {
        Some(Finding::Runtime(words::sentence(entry)))
    } else {
        None
    }
}

/// `… this node must be restarted (REASON), client: …`
fn in_brackets(entry: &str) -> String {
    let reason = entry
        .split_once("must be restarted (")
        .map(|(_, rest)| rest.split("), client:").next().unwrap_or(rest));
    words::sentence(reason.unwrap_or(entry))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NOISE: &str =
        "2026/11/21 00:42:05 [notice] 9037#0: signal 1 (SIGHUP) received from 9236, reconfiguring\n";
    const REFUSED: &str = "2026/11/21 00:42:05 [error] 9037#0: init_by_lua error: /k/kong/init.lua:708: error loading plugin schemas: on \
        plugin 'absent': absent plugin is enabled but not installed;\nno plugin found\nstack traceback:\n\t[C]: in function 'assert'\n";

    fn words() -> Finding {
        Finding::InitFailed(
            "error loading plugin schemas: on plugin 'absent': absent plugin is enabled but not installed; no plugin found".into(),
        )
    }

    #[test]
    fn only_what_comes_after_the_mark_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        fs::write(&path, format!("{NOISE}{REFUSED}")).unwrap();
        let mut log = ErrorLog::from_now(std::slice::from_ref(&path));
        let mark = log.marks();
        assert_eq!(log.poll(), []);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(format!("{NOISE}{REFUSED}{NOISE}").as_bytes()).unwrap();
        assert_eq!(log.poll(), [words()]);
        assert_eq!(log.poll(), []);
        assert_eq!(ErrorLog::from_marks(&mark).poll(), [words()]);
    }

    #[test]
    fn a_rotation_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        fs::write(&path, NOISE).unwrap();
        let mut log = ErrorLog::from_now(std::slice::from_ref(&path));
        File::options().append(true).open(&path).unwrap().write_all(REFUSED.as_bytes()).unwrap();
        fs::rename(&path, dir.path().join("error.log.1")).unwrap();
        fs::write(&path, REFUSED).unwrap();
        assert_eq!(log.poll(), [words(), words()]);
        // Emptied in place.
        fs::write(&path, "").unwrap();
        log.poll();
        fs::write(&path, REFUSED).unwrap();
        assert_eq!(log.poll(), [words()]);
    }

    #[test]
    fn every_kind_is_told_apart() {
        let unsafe_line = "2026/11/21 02:27:17 [alert] 12610#0: *2 [lua] init.lua:1874: admin_content(): unsafe request processing due to \
            earlier initialization errors; this node must be restarted (failed to execute the \"init_worker\" handler for plugin \
            \"broken\": /x/kong/plugins/broken/handler.lua:2: boom), client: 127.0.0.1, server: kong_admin, request: \"GET / HTTP/1.1\"\n";
        assert_eq!(
            findings(unsafe_line),
            [Finding::Unsafe(
                "failed to execute the \"init_worker\" handler for plugin \"broken\": /x/kong/plugins/broken/handler.lua:2: boom".into()
            )]
        );
        let emerg = "2026/11/21 02:27:17 [emerg] 12610#0: bind() to 127.0.0.1:80 failed (98: Address already in use)\n";
        assert_eq!(
            findings(emerg),
            [Finding::Emergency("bind() to 127.0.0.1:80 failed (98: Address already in use)".into())]
        );
    }
}
