//! What the packer takes and what it refuses, from outside: each shape of a good plugin, and every evil archive the
//! packer promises a code for, forged byte by byte.

// The forgery beside the tests is test code too, but clippy sees that only of functions marked as tests.
#![allow(clippy::unwrap_used)]

#[path = "package_load/beside.rs"]
mod beside;
#[path = "package_load/forge.rs"]
mod forge;
#[path = "package_load/memory.rs"]
mod memory;
#[path = "package_load/one_release.rs"]
mod one_release;
#[path = "package_load/refused_directories.rs"]
mod refused_directories;
#[path = "package_load/refused_tars.rs"]
mod refused_tars;
#[path = "package_load/refused_zips.rs"]
mod refused_zips;
#[path = "package_load/repositories.rs"]
mod repositories;
#[path = "package_load/rockspecs.rs"]
mod rockspecs;
#[path = "package_load/shapes.rs"]
mod shapes;
