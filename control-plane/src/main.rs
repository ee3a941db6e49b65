use std::process::ExitCode;

/// Thousands of small pieces are taken and given back a second: with 256 clients the C library's allocator was about a sixth of
/// all work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    kctl_control_plane::memory::tune();
    kctl_control_plane::main(std::env::args_os())
}
