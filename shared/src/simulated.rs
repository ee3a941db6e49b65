//! The port to the clock and to threads: on a thread that is a simulated world, time is what the simulation says and
//! nothing runs beside it.
//!
//! A property of the thread and not an argument, because everything asks what time it is. Deadlines, pauses and ages go by
//! tokio's clock, which a simulation drives anyway.

use std::cell::Cell;

use tokio::task::JoinError;

use crate::time::Timestamp;

thread_local! {
    static CLOCK: Cell<Option<fn() -> Timestamp>> = const { Cell::new(None) };
}

/// Makes this thread a simulated world, for good.
pub fn enter(clock: fn() -> Timestamp) {
    CLOCK.set(Some(clock));
}

/// What the simulation says the time is.
pub(crate) fn now() -> Option<Timestamp> {
    CLOCK.get().map(|clock| clock())
}

/// Does what waits for a disk or computes for long on a thread of its own; in a simulated world on the spot, because when
/// another thread is done differs from run to run.
///
/// # Errors
/// When the work panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if CLOCK.get().is_some() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
