//! What the compiler cannot check: rewriting argv, forking workers, waiting for signals, memory shared by a process
//! tree, and a LuaJIT with all of its libraries.
//!
//! Kong's workers are forks of the nginx master: they carry the Lua code of the last initialisation in memory, share
//! its sockets, and are seen by `ps` under the titles nginx gives them. None of that exists in safe Rust, so it is
//! kept in this file alone, behind functions whose conditions of use are stated and few.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mlua::{Lua, LuaOptions, StdLib};

/// The kernel's signal set as glibc and musl lay it out on Linux.
#[repr(C, align(8))]
struct SigSet([u8; 128]);

/// The part of `siginfo_t` that says which signal came and from whom (Linux, 64 bit).
#[repr(C, align(8))]
struct SigInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    pad: c_int,
    pid: c_int,
    rest: [u8; 108],
}

#[repr(C)]
struct TimeSpec {
    sec: i64,
    nsec: i64,
}

unsafe extern "C" {
    fn fork() -> c_int;
    fn sigemptyset(set: *mut SigSet) -> c_int;
    fn sigaddset(set: *mut SigSet, signo: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn sigtimedwait(set: *const SigSet, info: *mut SigInfo, timeout: *const TimeSpec) -> c_int;
    fn mmap(addr: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, off: i64) -> *mut c_void;
}

/// The signals an nginx master listens to: HUP, INT, QUIT, USR1, ALRM, TERM, CHLD, WINCH.
const MASTER_SIGNALS: [c_int; 8] = [1, 2, 3, 10, 14, 15, 17, 28];

/// One delivered signal.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    /// Number, 1 = SIGHUP.
    pub number: i32,
    /// Pid of the sender, or of the child for SIGCHLD.
    pub sender: i32,
}

/// Blocks the master's signals so that [`wait_signal`] receives them one at a time. Call before any thread exists.
pub fn block_signals() {
    let set = master_set();
    // SAFETY: `set` is initialised and outlives the call; a null old-set pointer is allowed.
    unsafe { sigprocmask(0, &set, std::ptr::null_mut()) };
}

/// Lets the signals blocked by [`block_signals`] through again; a worker calls it once its own handlers stand.
pub fn unblock_signals() {
    let set = master_set();
    // SAFETY: as in `block_signals`; 1 is SIG_UNBLOCK on Linux.
    unsafe { sigprocmask(1, &set, std::ptr::null_mut()) };
}

fn master_set() -> SigSet {
    let mut set = SigSet([0; 128]);
    // SAFETY: `set` has the size and alignment of the C library's sigset_t.
    unsafe {
        sigemptyset(&mut set);
        for signo in MASTER_SIGNALS {
            sigaddset(&mut set, signo);
        }
    }
    set
}

/// Waits for the next blocked signal, at most `timeout`. Signals of one kind that pile up are one signal, as for nginx.
pub fn wait_signal(timeout: Duration) -> Option<Signal> {
    let set = master_set();
    let mut info = SigInfo { signo: 0, errno: 0, code: 0, pad: 0, pid: 0, rest: [0; 108] };
    let timeout = TimeSpec {
        sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nsec: i64::from(timeout.subsec_nanos()),
    };
    // SAFETY: all three pointers are to live, initialised values of the layouts the kernel expects.
    let signo = unsafe { sigtimedwait(&set, &mut info, &timeout) };
    (signo > 0).then_some(Signal { number: signo, sender: info.pid })
}

/// Which side of a [`fork_process`] the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one; carries the child's pid.
    Parent(i32),
}

/// Forks the calling process. The process must have one thread only: the master never starts another.
pub fn fork_process() -> io::Result<Fork> {
    // SAFETY: single-threaded by the contract above, so no lock can be held by a thread that does not exist in the child.
    match unsafe { fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `count` zeroed counters that this process and all of its later forks share.
pub fn shared_cells(count: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = count * size_of::<AtomicU64>();
    // SAFETY: an anonymous mapping at an address of the kernel's choice; 3 = READ|WRITE, 0x21 = SHARED|ANONYMOUS.
    let at = unsafe { mmap(std::ptr::null_mut(), bytes, 3, 0x21, -1, 0) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page aligned, zeroed, `bytes` long, never unmapped, and only ever used as atomics.
    Ok(unsafe { std::slice::from_raw_parts(at as *const AtomicU64, count) })
}

/// A LuaJIT with everything OpenResty gives its code: ffi, debug, jit, and C module search paths.
pub fn lua() -> Lua {
    // SAFETY: the stand-in runs plugins with the trust Kong gives them; nothing in this process is protected from them.
    unsafe { Lua::unsafe_new_with(StdLib::ALL, LuaOptions::default()) }
}

/// The memory of argv and environ, which the kernel shows as `/proc/PID/cmdline`.
#[derive(Debug)]
pub struct Title {
    start: usize,
    capacity: usize,
}

impl Title {
    /// Takes possession of the argv memory: the environment is moved to the heap first, as nginx does, which also
    /// leaves `/proc/PID/environ` empty. `std::env::args` must not be used afterwards.
    pub fn claim() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Fields are numbered from 1 in proc(5) and the first one after the name is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
        let (start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
        let contiguous = env_start == arg_end && env_end >= env_start && arg_end > start;
        let variables: Vec<_> = std::env::vars_os().collect();
        for (key, value) in variables {
            // SAFETY: called before any thread exists; replacing a variable by its own value copies it to the heap.
            unsafe { std::env::set_var(key, value) };
        }
        let capacity = if contiguous { env_end - start } else { arg_end.checked_sub(start)? };
        Some(Self { start, capacity })
    }

    /// Writes the title and clears the rest of the area. Longer titles are cut.
    pub fn set(&self, title: &str) {
        let bytes = title.as_bytes();
        let length = bytes.len().min(self.capacity.saturating_sub(1));
        let area = self.start as *mut u8;
        // SAFETY: [start, start + capacity) is the process's own writable argv/environ area, found in /proc/self/stat;
        // after `claim` nothing else reads or writes it.
        unsafe {
            std::ptr::write_bytes(area, 0, self.capacity);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), area, length);
        }
    }
}
