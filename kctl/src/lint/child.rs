//! Runs jobs in a process of their own, and makes sense of however that process ends.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::job::{Job, Line};

/// The hidden verb that is the child.
pub const VERB: &str = "lint-sandbox";
/// Wall clock for one job; the processor time that a job may take is less.
const DEADLINE: Duration = Duration::from_secs(6);
/// Bytes that a child may say.
const MOST_OUTPUT: u64 = 4 << 20;

/// What a child said, and whether it came to its end.
#[derive(Debug, Default)]
pub struct Told {
    pub lines: Vec<Line>,
    /// Why it did not say everything; `None` if it did.
    pub death: Option<String>,
}

/// Runs this executable as the sandbox. `files` follow the job in order.
///
/// # Errors
/// Those of starting a process.
pub fn run(job: &Job, files: &[&[u8]]) -> std::io::Result<Told> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(VERB)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = serde_json::to_vec(job)?;
    input.push(b'\n');
    files.iter().for_each(|bytes| input.extend_from_slice(bytes));
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    // Both ends at once: neither side can then wait for the other with a full pipe.
    let writer = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
    let (done, answer) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _cut = stdout.map(|pipe| pipe.take(MOST_OUTPUT).read_to_end(&mut text));
        let _gone = done.send(());
        text
    });
    let late = answer.recv_timeout(DEADLINE).is_err();
    let death = end(&mut child, late);
    let text = reader.join().unwrap_or_default();
    let _closed = writer.join();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<Line> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let whole = matches!(lines.last(), Some(Line::Done));
    lines.retain(|l| !matches!(l, Line::Done));
    Ok(Told { lines, death: (!whole).then_some(death) })
}

/// How the child ended, in words that only matter if it said too little.
fn end(child: &mut Child, late: bool) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    if late {
        let _gone = child.kill();
    }
    match child.wait() {
        _ if late => "it did not come to an end".to_owned(),
        Ok(status) => match status.signal() {
            // SIGXCPU, or SIGKILL where both limits are met at once.
            Some(24 | 9) => "it did not come to an end".to_owned(),
            Some(signal) => format!("it was killed by signal {signal}"),
            None => format!("it ended with {}", status.code().unwrap_or_default()),
        },
        Err(e) => e.to_string(),
    }
}
