//! The stand-in as an executable of its own.

fn main() -> std::process::ExitCode {
    kctl_sandbox::kong::main(std::env::args_os())
}
