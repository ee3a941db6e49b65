//! The child process in which foreign Lua runs: one job from standard input, lines on standard output, and nothing else
//! in reach. The limits are set after the job is read and before any of it is looked at.

mod evaluate;
mod limits;
mod plugin;
mod vm;

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::rc::Rc;

use super::job::{Job, Line};

/// Bytes of all files of a job: more than a release may have.
const MOST_INPUT: u64 = 64 << 20;

/// The verb's whole life.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _closed = writeln!(io::stderr(), "{e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut input = io::stdin().lock().take(MOST_INPUT);
    let mut head = String::new();
    input.read_line(&mut head)?;
    let job: Job = serde_json::from_str(&head)?;
    let mut rest = Vec::new();
    input.read_to_end(&mut rest)?;
    limits::set()?;
    obey(&job, &rest, Rc::new(|line| say(&line)));
    say(&Line::Done);
    Ok(())
}

/// Takes a line as soon as there is one, so that a child that dies has said what it was doing.
pub type Say = Rc<dyn Fn(Line)>;

/// Does the job in this process. `say` gets every line but the last.
pub fn obey(job: &Job, bytes: &[u8], say: Say) {
    match job {
        Job::Rockspec { name, .. } => say(match evaluate::rockspec(name, bytes) {
            Ok(globals) => Line::Rockspec(globals),
            Err((code, message)) => Line::Refused { code: code.into(), message },
        }),
        Job::Plugin(job) => {
            let mut rest = bytes;
            let files: Vec<Vec<u8>> = job
                .files
                .iter()
                .map(|head| {
                    let (file, left) = rest.split_at(head.size.min(rest.len()));
                    rest = left;
                    file.to_vec()
                })
                .collect();
            plugin::judge(job, files, say);
        }
    }
}

/// A parent that is gone needs no answer.
fn say(line: &Line) {
    let mut out = io::stdout().lock();
    let text = serde_json::to_string(line).unwrap_or_default();
    let _gone = writeln!(out, "{text}").and_then(|()| out.flush());
}
