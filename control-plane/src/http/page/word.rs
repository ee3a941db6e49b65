//! A state is shown as symbol and word; its colour only repeats what the two say.

use askama::Template;

/// How a state is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    /// Something is going on.
    Busy,
    /// At rest on the way up.
    Calm,
    /// Nothing there, nothing known.
    Idle,
    Warn,
    Bad,
}

impl Tone {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Calm => "calm",
            Self::Idle => "idle",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

#[derive(Clone, Copy, Debug, Template)]
#[template(path = "word.html")]
pub(super) struct Word<'a> {
    pub tone: Tone,
    pub symbol: &'static str,
    pub text: &'a str,
}

impl<'a> Word<'a> {
    /// Words of all kinds together: no two kinds use one word for different things. One that this version does not know
    /// is shown as it is.
    pub fn new(text: &'a str) -> Self {
        let (tone, symbol) = match text {
            "healthy" | "verified" | "Live" | "Enabled" | "InUse" | "Done" | "Succeeded" | "running"
            | "ready" | "follower" => (Tone::Good, "✔"),
            "leader" => (Tone::Good, "★"),
            "fetching" | "verifying" | "preflight" | "linking" | "configuring" | "reloading" | "proving"
            | "baking" | "detaching" | "disabling" | "purging" | "Progressing" | "Running" | "candidate" => {
                (Tone::Busy, "◐")
            }
            "staged" | "Installed" => (Tone::Calm, "●"),
            "pending" | "Pending" => (Tone::Idle, "○"),
            "absent" | "Absent" | "Skipped" => (Tone::Idle, "–"),
            "rolling-back" | "RollingBack" | "rolled-back" => (Tone::Warn, "↺"),
            "held" | "Paused" | "stopped" => (Tone::Warn, "‖"),
            "drifted" => (Tone::Warn, "≠"),
            "excused" => (Tone::Warn, "~"),
            "draining" => (Tone::Warn, "▽"),
            "Suspect" | "not ready" | "starting" => (Tone::Warn, "▲"),
            "Aborted" => (Tone::Warn, "■"),
            "failed" | "Failed" | "Lost" | "down" | "unreachable" | "quarantined" => (Tone::Bad, "✖"),
            _ => (Tone::Idle, "?"),
        };
        Self { tone, symbol, text }
    }
}

#[cfg(test)]
mod tests {
    use kctl_shared::spec::StepWord;

    use super::*;

    #[test]
    fn every_step_word_has_a_symbol() {
        for word in StepWord::ALL {
            assert_ne!(Word::new(word.as_str()).symbol, "?", "{word}");
        }
    }
}
