//! Histories of concurrent clients, and whether they are linearizable: whether one order of their calls, each at one moment
//! between its begin and its end, would have had the same results from [`apply`](kctl_control_plane::state::apply) alone.

mod call;
mod check;
mod events;

pub use call::{Call, Told, told};
pub use check::{Verdict, check};
pub use events::{Event, Kind, parse};
