//! A state is shown as symbol and word, the same in a terminal and on a page; colour only repeats what the two say.

/// How a state is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
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

/// Tone and symbol of a state's word. Words of all kinds stand together: no two kinds use one word for different things.
/// One that this version does not know gets `?`.
pub fn mark(word: &str) -> (Tone, &'static str) {
    match word {
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
        "rolling-back" | "RollingBack" | "rolled-back" | "Compensated" => (Tone::Warn, "↺"),
        "held" | "Paused" | "stopped" => (Tone::Warn, "‖"),
        "drifted" => (Tone::Warn, "≠"),
        "excused" => (Tone::Warn, "~"),
        "draining" => (Tone::Warn, "▽"),
        "Suspect" | "not ready" | "starting" => (Tone::Warn, "▲"),
        "Aborted" => (Tone::Warn, "■"),
        "failed" | "Failed" | "Lost" | "down" | "unreachable" | "Refused" | "quarantined" => (Tone::Bad, "✖"),
        _ => (Tone::Idle, "?"),
    }
}

#[cfg(test)]
mod tests {
    use super::mark;
    use crate::spec::StepWord;

    #[test]
    fn every_step_word_has_a_symbol() {
        for word in StepWord::ALL {
            assert_ne!(mark(word.as_str()).1, "?", "{word}");
        }
    }
}
