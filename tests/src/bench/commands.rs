//! How long each of Kong's commands took, whoever runs it: Kong is replaced by a link to this executable, which runs the
//! real one and writes down when.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Name of the link; the real Kong's path and the record lie beside it.
const LINK: &str = "kong";
const REAL: &str = "real";
const RECORD: &str = "record";

/// A moment since boot that all processes agree on.
pub fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// What one of Kong's commands was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ScratchPrepare,
    Parse,
    Start,
    Prepare,
    Reload,
    Other,
}

/// One of Kong's commands as it ran.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    pub kind: Kind,
    pub from: Duration,
    pub to: Duration,
}

/// A Kong whose commands are written down.
#[derive(Debug)]
pub struct Recorded {
    dir: PathBuf,
    /// The node's own prefix: what is done elsewhere is done to try something.
    prefix: PathBuf,
}

impl Recorded {
    pub fn new(kong: &Path, dir: PathBuf, prefix: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(REAL), kong.as_os_str().as_encoded_bytes()).unwrap();
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), dir.join(LINK)).unwrap();
        Self { dir, prefix }
    }

    pub fn bin(&self) -> PathBuf {
        self.dir.join(LINK)
    }

    /// What ran since the last call, in order.
    pub fn take(&self) -> Vec<Ran> {
        let record = self.dir.join(RECORD);
        let text = fs::read_to_string(&record).unwrap_or_default();
        let _none = fs::remove_file(&record);
        text.lines().map(|line| self.ran(line)).collect()
    }

    fn ran(&self, line: &str) -> Ran {
        let words: Vec<&str> = line.split('\t').collect();
        let nanos = |at: usize| Duration::from_nanos(words[at].parse().unwrap());
        let own = words.iter().any(|word| Path::new(word) == self.prefix);
        let kind = match words[2] {
            "prepare" if own => Kind::Prepare,
            "prepare" => Kind::ScratchPrepare,
            "config" => Kind::Parse,
            "start" => Kind::Start,
            "reload" => Kind::Reload,
            _ => Kind::Other,
        };
        Ran { kind, from: nanos(0), to: nanos(1) }
    }
}

/// When this executable was called as Kong: runs the real one and returns its exit code.
pub fn run_if_called_as_kong() -> Option<i32> {
    let mut args = std::env::args_os();
    let me = PathBuf::from(args.next()?);
    if me.file_name()? != LINK {
        return None;
    }
    let dir = me.parent()?;
    let real = fs::read_to_string(dir.join(REAL)).ok()?;
    let args: Vec<_> = args.collect();
    let from = now();
    let ended = Command::new(real).args(&args).status().unwrap();
    let to = now();
    let words: Vec<_> = args.iter().map(|a| a.to_string_lossy()).collect();
    let line = format!("{}\t{}\t{}\n", from.as_nanos(), to.as_nanos(), words.join("\t"));
    let mut record = File::options().append(true).create(true).open(dir.join(RECORD)).unwrap();
    record.write_all(line.as_bytes()).unwrap();
    Some(ended.code().unwrap_or(1))
}
