use std::process::ExitCode;

fn main() -> ExitCode {
    kctl_node_agent::main(std::env::args_os())
}
