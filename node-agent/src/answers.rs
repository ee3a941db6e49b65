//! How many requests the node's Kong answers, and how many of them with 5xx: asked now and then, for the health of a wave.
//!
//! [`scrape`] and [`history`] are pure; [`meter`] asks, beside the agent's loop, so that nothing waits for a Kong that has
//! much to say.

pub mod history;
pub mod meter;
pub mod scrape;
