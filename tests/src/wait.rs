//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Polls `probe` until it gives a value.
///
/// # Panics
/// After `seconds`, naming `what` was waited for.
pub fn until<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(seconds), "waited {seconds} s for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
