//! Measures what kctl promises to cost; prints medians and ratios, and ends with 1 when a target is missed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kctl_tests::bench::{agent, commands, memory, sibling, unpack};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The agent's loop against the bare loop of Kong's commands.
    Agent,
    /// Placing a rock against `luarocks install` of the same rock.
    Unpack,
    /// Resident memory of an idle agent and member.
    Memory,
}

/// Measures what kctl costs beside the commands that it cannot do without.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// What to measure; everything if nothing is named.
    parts: Vec<Part>,
    /// A real Kong's executable; the stand-in otherwise.
    #[arg(long)]
    kong: Option<PathBuf>,
    /// Rounds of which the medians are taken.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn main() -> ExitCode {
    if let Some(code) = commands::run_if_called_as_kong() {
        std::process::exit(code);
    }
    let args = Args::parse();
    let asked = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    let kong = args.kong.clone().unwrap_or_else(|| sibling("kong"));
    let rounds = args.rounds as usize;
    if cfg!(debug_assertions) {
        eprintln!("built without --release: figures say nothing");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let met = runtime.block_on(async {
        let mut met = true;
        if asked(Part::Agent) {
            met &= agent::run(&kong, rounds).await;
        }
        if asked(Part::Unpack) {
            met &= unpack::run(rounds.max(10)).await;
        }
        if asked(Part::Memory) {
            met &= memory::run();
        }
        met
    });
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
