//! kctl: the command line, and the one executable that carries the daemons and the stand-in Kong for development.

mod build;
mod cli;
mod client;
mod commands;
mod context;
mod fail;
mod lint;
mod output;
mod progress;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if kctl_sandbox::kong::is_invoked() {
        return kctl_sandbox::kong::main(args.into_iter());
    }
    match args.get(1).and_then(|a| a.to_str()) {
        Some("control-plane") => kctl_control_plane::main(args.into_iter().skip(1)),
        Some(lint::VERB) => lint::main(),
        Some("node-agent") => kctl_node_agent::main(args.into_iter().skip(1)),
        _ => commands::run(args),
    }
}
