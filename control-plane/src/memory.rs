//! What the allocator of a member keeps.

/// `mi_option_purge_delay` of mimalloc: for how many milliseconds memory that was given back stays with the process.
const PURGE_DELAY: i32 = 15;

/// Has memory that a burst of agents needed go back to the kernel soon. By itself mimalloc keeps it for a second, and after
/// that until it happens to look; it also asks for huge pages, most of which a burst leaves empty. With a thousand agents
/// each of the two is a third of the memory.
///
/// Call it before there is a second thread. Does nothing where mimalloc is not the allocator.
pub fn tune() {
    // Where the kernel knows no such switch everything goes on as it is.
    let _switched = rustix::thread::disable_transparent_huge_pages(true);
    #[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
    // SAFETY: it sets a number; only calls at the same time are not sound, and there is one thread.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 10);
    }
}
