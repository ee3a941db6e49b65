//! The `kong` command line.

mod ancient;
mod args;
mod commands;
mod config;
mod lifecycle;
mod loading;
mod reload;
mod verbose;

use std::process::ExitCode;

use args::Args;

use crate::kong::{log, version};

const USAGE: &str = "\
Usage: kong COMMAND [OPTIONS]

The available commands are:
 check
 config
 drain
 health
 hybrid
 migrations
 prepare
 quit
 reload
 restart
 roar
 start
 stop
 vault
 version

Options:
 --v              verbose
 --vv             debug";

/// The usage of the played Kong.
fn usage() -> String {
    let lacks = |line: &str| match line {
        " drain" => !version::since(3, 9, 0),
        " vault" => !version::since(2, 8, 0),
        " hybrid" => !version::since(2, 0, 0),
        " config" => !version::since(1, 1, 0),
        " prepare" => !version::since(0, 11, 0),
        _ => false,
    };
    USAGE.lines().filter(|line| !lacks(line)).collect::<Vec<_>>().join("\n")
}

/// What a command printed and how it ended; the text is written in one go at the end, as Kong's is.
#[derive(Debug, Default)]
pub struct Output {
    lines: Vec<String>,
    /// Printed after everything else.
    trailer: Option<String>,
}

impl Output {
    /// A line for stdout.
    pub fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// A line that Kong's first process prints, which comes last because its output is flushed last.
    pub fn say_last(&mut self, line: String) {
        self.trailer = Some(line);
    }
}

/// How a command failed.
#[derive(Debug)]
pub enum Failure {
    /// `Error: …` and the hint at `--v`.
    Error(String),
    /// Already reported, or text that goes to stderr as it is.
    Plain(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Error(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Error(message.to_owned())
    }
}

type Outcome = Result<(), Failure>;

/// Runs a command line without the program's name.
pub fn main(words: Vec<String>) -> ExitCode {
    if version::is_ancient() {
        return ancient::main(&words);
    }
    let mut words = words.into_iter();
    let verb = words.next().unwrap_or_default();
    let run: fn(&Args, &mut Output) -> Outcome = match verb.as_str() {
        "check" => commands::check,
        "config" if version::since(1, 1, 0) => config::run,
        "drain" if version::since(3, 9, 0) => commands::drain,
        "health" => commands::health,
        "migrations" => commands::migrations,
        "prepare" if version::since(0, 11, 0) => commands::prepare,
        "quit" => lifecycle::quit,
        "reload" => reload::run,
        "restart" => lifecycle::restart,
        "start" => lifecycle::start,
        "stop" => lifecycle::stop,
        "version" => commands::version,
        unknown => {
            if !unknown.is_empty() {
                eprintln!("No such command: {unknown}\n");
            }
            eprintln!("{}", usage());
            return ExitCode::FAILURE;
        }
    };
    let mut output = Output::default();
    let args = match args::parse(words) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("kong: {message}");
            return ExitCode::FAILURE;
        }
    };
    verbose::versions(&args);
    let outcome = run(&args, &mut output);
    for line in output.lines.iter().chain(&output.trailer) {
        // What `version` prints is no message.
        if args.verbose && verb != "version" {
            println!("{} [info] {line}", log::timestamp());
        } else {
            println!("{line}");
        }
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Error(message)) => {
            eprintln!("Error: {message}\n\n  Run with --v (verbose) or --vv (debug) for more details");
            ExitCode::FAILURE
        }
        Err(Failure::Plain(message)) => {
            eprint!("{message}");
            ExitCode::FAILURE
        }
    }
}
