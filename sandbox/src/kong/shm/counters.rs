//! The part of the dictionary `prometheus_metrics` that Kong's answers by code come from: counters by name, for all
//! workers, over every reload, gone with the master.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of one counter: state, value, length of the name, the name.
const SLOT: usize = 3 + NAME;
const NAME: usize = 40;
const SLOTS: usize = 128;
pub const CELLS: usize = SLOT * SLOTS;

const FREE: u64 = 0;
const TAKEN: u64 = 1;
const NAMED: u64 = 2;

/// Adds one. What has a longer name than fits, or no room any more, is not counted.
pub fn add(cells: &[AtomicU64], name: &str) {
    if name.len() > NAME * 8 {
        return;
    }
    for slot in cells.chunks_exact(SLOT) {
        let free = slot[0].compare_exchange(FREE, TAKEN, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if free {
            for (cell, bytes) in slot[3..].iter().zip(name.as_bytes().chunks(8)) {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                cell.store(u64::from_le_bytes(word), Ordering::SeqCst);
            }
            slot[2].store(name.len() as u64, Ordering::SeqCst);
            slot[0].store(NAMED, Ordering::SeqCst);
        }
        if free || name_of(slot).as_deref() == Some(name) {
            slot[1].fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

/// All counters. Two workers may have begun the same one at the same time, each in a slot of its own.
pub fn all(cells: &[AtomicU64]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for slot in cells.chunks_exact(SLOT) {
        if let Some(name) = name_of(slot) {
            *all.entry(name).or_default() += slot[1].load(Ordering::SeqCst);
        }
    }
    all
}

fn name_of(slot: &[AtomicU64]) -> Option<String> {
    if slot[0].load(Ordering::SeqCst) != NAMED {
        return None;
    }
    let words = slot[3..].iter().flat_map(|cell| cell.load(Ordering::SeqCst).to_le_bytes());
    let length = usize::try_from(slot[2].load(Ordering::SeqCst)).ok()?;
    String::from_utf8(words.take(length).collect()).ok()
}
