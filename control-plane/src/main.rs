use std::process::ExitCode;

fn main() -> ExitCode {
    kctl_control_plane::main(std::env::args_os())
}
