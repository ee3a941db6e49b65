//! Bugs that the simulation must catch, each one line at the place where it could be made.
//!
//! [`is`] is a constant `false` unless the feature `mutants` is on, which only the simulation's own test asks for: what
//! is shipped has none of them. One at a time and one thread: other tests beside it stay sound.

#[cfg(feature = "mutants")]
thread_local! {
    static PRESENT: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Whether this bug is there.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_: &str) -> bool {
    false
}

/// Whether this bug is there: on this thread, or in the whole process because `KCTL_MUTANT` names it.
#[cfg(feature = "mutants")]
pub fn is(name: &str) -> bool {
    static EVERYWHERE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let everywhere = EVERYWHERE.get_or_init(|| std::env::var("KCTL_MUTANT").unwrap_or_default());
    PRESENT.get() == name || everywhere == name
}

/// Runs `what` with one bug planted on this thread.
#[cfg(feature = "mutants")]
pub fn with<R>(name: &'static str, what: impl FnOnce() -> R) -> R {
    PRESENT.set(name);
    let result = what();
    PRESENT.set("");
    result
}
