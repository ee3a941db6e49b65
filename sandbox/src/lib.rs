//! What the product is tried on: a stand-in for Kong, and the cluster that `kctl dev` starts.

pub mod dev;
pub mod kong;
