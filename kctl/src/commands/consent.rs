//! Asking a person before something is done that is hard to undo.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::fail::{Fail, Outcome};

/// # Errors
/// `CONSENT_REQUIRED` when nobody is there to be asked.
pub fn can_ask(what: &str) -> Outcome {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let message = format!("{what} asks for consent and there is no terminal");
    Err(Fail::usage("CONSENT_REQUIRED", message, "add --yes"))
}

/// Has `word` typed; `name` says what it is.
///
/// # Errors
/// `CONSENT_REFUSED`.
pub fn typed(name: &str, word: &str) -> Outcome {
    let mut err = io::stderr();
    write!(err, "Type {name} to continue: ")?;
    err.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.trim() == word {
        return Ok(());
    }
    Err(Fail::usage("CONSENT_REFUSED", format!("that is not {name}; nothing was changed"), "run it again"))
}
