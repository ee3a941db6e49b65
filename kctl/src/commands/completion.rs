//! `kctl completion SHELL`.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::fail::Outcome;

pub fn run(shell: clap_complete::Shell) -> Outcome {
    clap_complete::generate(shell, &mut Cli::command(), "kctl", &mut std::io::stdout());
    Ok(())
}
