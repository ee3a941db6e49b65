use std::process::ExitCode;

/// Thousands of small pieces are taken and given back a second, which costs the C library's allocator several times as much; it
/// also keeps what a burst of agents needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kctl_control_plane::main(std::env::args_os())
}
