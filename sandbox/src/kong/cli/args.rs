//! Flags of all commands; each command looks at those it knows.

use std::path::PathBuf;

/// A parsed command line.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// `-c`, `--conf`.
    pub conf: Option<PathBuf>,
    /// `-p`, `--prefix`, made absolute.
    pub prefix: Option<PathBuf>,
    /// `-t`, `--timeout`, in seconds.
    pub timeout: Option<f64>,
    /// `-w`, `--wait`, in seconds.
    pub wait: Option<f64>,
    /// `-a`, `--all`.
    pub all: bool,
    /// `--v` or `--vv`.
    pub verbose: bool,
    /// `--vv`.
    pub debug: bool,
    /// Everything that is no flag.
    pub words: Vec<String>,
}

/// Reads the words after the command. Values may follow a flag or be joined to it by `=`.
pub fn parse(words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if !word.starts_with('-') || word == "-" {
            args.words.push(word);
            continue;
        }
        let (flag, joined) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        let mut value =
            || joined.clone().or_else(|| words.next()).ok_or(format!("expected a value for {flag}"));
        match flag.trim_start_matches('-') {
            "c" | "conf" => args.conf = Some(PathBuf::from(value()?)),
            "p" | "prefix" => {
                let given = PathBuf::from(value()?);
                args.prefix = Some(std::path::absolute(&given).unwrap_or(given));
            }
            "t" | "timeout" => args.timeout = Some(value()?.parse().map_err(|_| "timeout is not a number")?),
            "w" | "wait" => args.wait = Some(value()?.parse().map_err(|_| "wait is not a number")?),
            "nginx-conf" | "nginx-conf-flags" | "db-timeout" | "lock-timeout" => {
                value()?;
            }
            "a" | "all" => args.all = true,
            "v" => args.verbose = true,
            "vv" => (args.verbose, args.debug) = (true, true),
            "run-migrations" | "y" | "yes" | "q" | "quiet" | "f" | "force" => {}
            other => return Err(format!("{other}: unknown option")),
        }
    }
    Ok(args)
}
