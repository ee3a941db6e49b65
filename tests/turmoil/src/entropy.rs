//! Chance on a simulated thread: whoever asks the operating system for randomness there gets what the seed says.
//!
//! Hash maps, jitter, ids and the runtime's own choices all begin with `getrandom`; with it a seed decides them all. The
//! symbol stands before libc's, also for those who look it up by name (see `build.rs`).
#![allow(unsafe_code, reason = "a symbol of libc is taken over")]

use std::cell::Cell;
use std::ffi::{c_uint, c_void};
use std::mem::MaybeUninit;

use rustix::rand::GetRandomFlags;

thread_local! {
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on this thread has no other randomness. To be called before anything on it asked for some.
pub fn seed_thread(seed: u64) {
    STATE.set(Some(seed));
}

/// splitmix64.
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// In place of libc's: the kernel's answer, except on a thread that has a seed.
///
/// # Safety
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller says so.
    let target = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), length) };
    // A thread that is ending has no state any more.
    let Some(mut state) = STATE.try_with(Cell::get).ok().flatten() else {
        let filled = rustix::rand::getrandom(target, GetRandomFlags::from_bits_retain(flags));
        return filled.map_or(-1, |(filled, _)| filled.len().cast_signed());
    };
    for piece in target.chunks_mut(8) {
        let number;
        (state, number) = next(state);
        for (byte, value) in piece.iter_mut().zip(number.to_le_bytes()) {
            byte.write(value);
        }
    }
    STATE.set(Some(state));
    length.cast_signed()
}
