//! The part of nginx's shared memory that Kong's health and identity answers come from.
//!
//! Kong keeps worker pids, build counters and the drain state in the `kong` dictionary. Every initialisation flushes
//! it before anything can fail, which is why a refused reload makes a node "not ready" though it serves.

mod counters;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kong::raw;

const ROUTER_BUILDS: usize = 0;
const ITERATOR_BUILDS: usize = 1;
const DRAINING: usize = 2;
const CONFIG_VERSION: usize = 3;
const REQUESTS: usize = 4;
const ACTIVE: usize = 5;
const FLUSHES: usize = 6;
const PIDS: usize = 8;

/// Most workers a node can have.
pub const MAX_WORKERS: usize = 248;
const COUNTERS: usize = PIDS + MAX_WORKERS;

/// The shared cells of one node.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    cells: &'static [AtomicU64],
}

impl Shared {
    /// Memory for a new master, shared with all of its forks.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { cells: raw::shared_cells(COUNTERS + counters::CELLS)? })
    }

    fn get(self, cell: usize) -> u64 {
        self.cells[cell].load(Ordering::SeqCst)
    }

    fn add(self, cell: usize, amount: u64) {
        self.cells[cell].fetch_add(amount, Ordering::SeqCst);
    }

    /// Empties the `kong` dictionary, all but the request counters.
    pub fn flush(self) {
        for cell in [ROUTER_BUILDS, ITERATOR_BUILDS, DRAINING].into_iter().chain(PIDS..PIDS + MAX_WORKERS) {
            self.cells[cell].store(0, Ordering::SeqCst);
        }
        self.add(FLUSHES, 1);
    }

    /// How often the dictionary was flushed.
    pub fn flushes(self) -> u64 {
        self.get(FLUSHES)
    }

    /// A router was built.
    pub fn count_router_build(self) {
        self.add(ROUTER_BUILDS, 1);
    }

    /// A plugins iterator was built.
    pub fn count_iterator_build(self) {
        self.add(ITERATOR_BUILDS, 1);
    }

    /// Router and iterator builds since the last flush.
    pub fn builds(self) -> (u64, u64) {
        (self.get(ROUTER_BUILDS), self.get(ITERATOR_BUILDS))
    }

    /// Records a worker's pid.
    pub fn set_worker(self, worker: usize, pid: u32) {
        if worker < MAX_WORKERS {
            self.cells[PIDS + worker].store(u64::from(pid), Ordering::SeqCst);
        }
    }

    /// The recorded pid of a worker.
    pub fn worker(self, worker: usize) -> Option<u64> {
        let pid = if worker < MAX_WORKERS { self.get(PIDS + worker) } else { 0 };
        (pid != 0).then_some(pid)
    }

    /// Sets or ends draining.
    pub fn set_draining(self, draining: bool) {
        self.cells[DRAINING].store(u64::from(draining), Ordering::SeqCst);
    }

    /// Whether `kong drain` was called since the last flush.
    pub fn draining(self) -> bool {
        self.get(DRAINING) != 0
    }

    /// Tells all workers that entities were written through this node.
    pub fn bump_config(self) {
        self.add(CONFIG_VERSION, 1);
    }

    /// Changes with every write through this node.
    pub fn config_version(self) -> u64 {
        self.get(CONFIG_VERSION)
    }

    /// A request was answered, told by its labels as the plugin `prometheus` has them.
    pub fn count(self, labels: &str) {
        counters::add(&self.cells[COUNTERS..], labels);
    }

    /// Answers by their labels, since the master started.
    pub fn counted(self) -> BTreeMap<String, u64> {
        counters::all(&self.cells[COUNTERS..])
    }

    /// A request began.
    pub fn begin_request(self) -> u64 {
        self.add(ACTIVE, 1);
        self.cells[REQUESTS].fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A request ended.
    pub fn end_request(self) {
        self.cells[ACTIVE].fetch_sub(1, Ordering::SeqCst);
    }

    /// Requests so far and requests under way.
    pub fn requests(self) -> (u64, u64) {
        (self.get(REQUESTS), self.get(ACTIVE))
    }
}
