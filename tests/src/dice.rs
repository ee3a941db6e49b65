//! Chance that a seed decides, so that what it did can be done again.

/// splitmix64.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The seed is `KCTL_TEST_SEED`, or the time.
    pub fn seeded() -> (Self, u64) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = number("KCTL_TEST_SEED", since.map_or(0, |t| t.as_secs()));
        (Self(seed), seed)
    }

    /// One of 0 to `end` - 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// One of `things`.
    pub fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[usize::try_from(self.below(things.len() as u64)).unwrap_or_default()]
    }
}

/// The environment variable `key` as a number.
///
/// # Panics
/// When it is set to something else.
pub fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().map_or(default, |text| text.parse().expect("a number"))
}
