use std::process::ExitCode;

/// Gives back what thousands of agents needed for a moment; the C library's keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kctl_control_plane::main(std::env::args_os())
}
