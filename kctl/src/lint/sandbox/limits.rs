//! What the kernel lets the child do from now on: compute a little, and write to the pipes it has.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Seconds of processor time. Loading takes milliseconds.
const CPU: u64 = 2;
/// Bytes of memory beyond what the process has when it starts.
const MEMORY: u64 = 384 << 20;

/// # Errors
/// Those of the kernel: without limits nothing is run.
pub fn set() -> io::Result<()> {
    let limit = |what, most: u64| setrlimit(what, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::Core, 0)?;
    limit(Resource::Cpu, CPU)?;
    limit(Resource::As, present() + MEMORY)?;
    // No file, no socket, no pipe can be opened any more, no file be written to, no process be started.
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::Nofile, 0)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Bytes of address space in use.
fn present() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(1 << 18);
    pages * rustix::param::page_size() as u64
}
