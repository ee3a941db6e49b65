//! Measures what kctl promises to cost; prints medians and ratios, and ends with 1 when a target is missed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use kctl_tests::bench::writes::member;
use kctl_tests::bench::{agent, commands, fanout, memory, plan, sibling, unpack, writes};

/// As a member has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The agent's loop against the bare loop of Kong's commands.
    Agent,
    /// Placing a rock against `luarocks install` of the same rock.
    Unpack,
    /// Resident memory of an idle agent and member.
    Memory,
    /// Committed writes and linearizable reads of three members against three of etcd.
    Writes,
    /// Thousands of agents on one leader.
    Fanout,
    /// The pure functions and a snapshot, with thousands of nodes and 50 plugins.
    Plan,
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
    /// Rounds of which the medians are taken; 20 for agent, unpack and plan, 3 for writes and fanout unless it is said.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Seconds of each round of writes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Writes by these numbers of clients only: 1, 16, 64, 256.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<usize>,
    /// How many agents, one number after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 5_000, 10_000])]
    agents: Vec<usize>,
    /// With how many nodes to plan, one number after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    nodes: Vec<usize>,
}

fn main() -> ExitCode {
    if let Some(code) = commands::run_if_called_as_kong() {
        std::process::exit(code);
    }
    member::run_if_called_as_member();
    let args = Args::parse();
    let asked = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    let kong = || args.kong.clone().unwrap_or_else(|| sibling("kong"));
    let rounds_or = |default: u32| args.rounds.unwrap_or(default) as usize;
    let rounds = rounds_or(20);
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
    let mut met = runtime.block_on(async {
        let mut met = true;
        if asked(Part::Agent) {
            met &= agent::run(&kong(), rounds).await;
        }
        if asked(Part::Unpack) {
            met &= unpack::run(rounds.max(10)).await;
        }
        if asked(Part::Memory) {
            met &= memory::run();
        }
        met
    });
    // These bring threads of their own. Memory is looked at first, before anything else has used some.
    if asked(Part::Plan) {
        met &= plan::run(rounds, &args.nodes);
    }
    if asked(Part::Writes) {
        met &= writes::run(rounds_or(3), args.seconds, &args.clients);
    }
    if asked(Part::Fanout) {
        met &= fanout::run(rounds_or(3), &args.agents);
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
