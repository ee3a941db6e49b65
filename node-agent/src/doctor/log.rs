//! What Kong's error log says about the configuration that it loaded last, or failed to.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::facts::Words;
use crate::gateway::error_log::{self, Finding};
use crate::gateway::words;

/// Read of the end of each file; what counts stands near it.
const TAIL: u64 = 4 << 20;

/// Of all files together.
pub fn read(paths: &[PathBuf]) -> Words {
    let mut all = Words::default();
    for words in paths.iter().map(|path| of(&tail(path))) {
        all.refused = all.refused.or(words.refused);
        all.emergency = all.emergency.or(words.emergency);
        all.worker_init = all.worker_init.or(words.worker_init);
        all.stale = all.stale.or(words.stale);
        all.runtime = all.runtime.or(words.runtime);
    }
    all
}

/// Opening a pipe could wait for ever, so only files are read.
fn tail(path: &Path) -> String {
    let open = || {
        let mut file = std::fs::metadata(path).ok()?.is_file().then(|| File::open(path).ok())??;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    open().unwrap_or_default()
}

/// Follows the log: every successful load forgets what was said before it.
fn of(text: &str) -> Words {
    let mut said = Words::default();
    // A command's own test of the configuration complains in the same file; only what the master says is about a reload.
    let (mut reloading, told) = (None, text.contains("[notice]"));
    for entry in error_log::entries(text) {
        let says = |part: &str| entry.contains(part);
        // Of a new set of workers, after a start or a reload that was taken.
        if says("[notice]") && says("start worker processes") {
            said = Words::default();
        } else if says("[notice]") && says(": reconfiguring") {
            (said.refused, said.emergency) = (None, None);
            reloading = process(entry);
        } else if says("could not rebuild plugins iterator") {
            said.stale =
                Some(words::sentence(after(entry, "plugins iterator via timer: ", "plugins iterator: ")));
        } else {
            match error_log::finding(entry) {
                Some(Finding::InitFailed(words)) => said.refused = Some(words),
                Some(Finding::Emergency(_)) if told && process(entry) != reloading => {}
                // It is tried several times.
                Some(Finding::Emergency(words)) if words.contains("still could not bind") => {
                    said.emergency.get_or_insert(words);
                }
                Some(Finding::Emergency(words)) => said.emergency = Some(words),
                Some(Finding::WorkerInit(words) | Finding::Unsafe(words)) => {
                    said.worker_init.get_or_insert(words);
                }
                Some(Finding::Runtime(words)) if !words.contains("loop or previous error") => {
                    said.runtime = Some(words);
                }
                Some(Finding::Runtime(_)) | None => {}
            }
        }
    }
    said
}

/// `… [notice] 4679#0: …`: who wrote it.
fn process(entry: &str) -> Option<&str> {
    entry.split_once("] ")?.1.split_once('#').map(|(pid, _)| pid)
}

/// What stands behind one of two marks, without nginx's context after it.
fn after<'a>(entry: &'a str, one: &str, other: &str) -> &'a str {
    let rest = [one, other].iter().find_map(|mark| Some(entry.split_once(mark)?.1)).unwrap_or(entry);
    let end = [", context:", ", client:", " (stale plugins"].iter().filter_map(|mark| rest.find(mark)).min();
    &rest[..end.unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: &str = "2026/11/21 00:31:50 [notice] 1#0: start worker processes\n";
    const HUP: &str = "2026/11/21 00:31:53 [notice] 1#0: signal 1 (SIGHUP) received from 7, reconfiguring\n\
        2026/11/21 00:31:53 [notice] 1#0: reconfiguring\n";
    const REFUSED: &str = "2026/11/21 00:31:53 [error] 1#0: init_by_lua error: /k/kong/init.lua:743: error building initial plugins: x \
        plugin is in use but not enabled\nstack traceback:\n\t[C]: in function 'error'\n";
    const STALE: &str = "2026/11/21 00:31:59 [error] 2#0: *5 [lua] handler.lua:1034: could not rebuild plugins iterator via timer: x plugin \
        is in use but not enabled, context: ngx.timer\n";

    #[test]
    fn only_what_came_after_the_last_good_load_counts() {
        let refused = Some("error building initial plugins: x plugin is in use but not enabled".to_owned());
        assert_eq!(of(&format!("{STARTED}{HUP}{REFUSED}")).refused, refused);
        assert_eq!(of(&format!("{HUP}{REFUSED}{HUP}{STARTED}")), Words::default());
        let emerg = "2026/11/21 00:31:54 [emerg] 1#0: bind() to 127.0.0.1:80 failed\n";
        assert!(of(&format!("{STARTED}{HUP}{emerg}")).emergency.is_some());
        assert!(of(&format!("{STARTED}{HUP}{}", emerg.replace(" 1#0", " 9#0"))).emergency.is_none());
        let words = of(&format!("{STARTED}{STALE}{HUP}{REFUSED}"));
        assert_eq!(words.stale.as_deref(), Some("x plugin is in use but not enabled"));
        assert_eq!(words.refused, refused);
        assert_eq!(of(&format!("{STARTED}{STALE}{HUP}{STARTED}")), Words::default());
    }
}
