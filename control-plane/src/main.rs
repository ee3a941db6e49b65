use std::process::ExitCode;

/// Thousands of small pieces are taken and given back a second: with 256 clients the C library's allocator was about a sixth of
/// all work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, and a burst leaves most of one empty: with thousands of agents that is a third of the
    // memory. Where the kernel knows no such switch everything goes on as it is.
    let _switched = rustix::thread::disable_transparent_huge_pages(true);
    kctl_control_plane::main(std::env::args_os())
}
