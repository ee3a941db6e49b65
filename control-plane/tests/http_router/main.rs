//! The HTTP side of a member, asked over a real socket as a browser, a script and Prometheus would.

#![allow(clippy::unwrap_used)]

mod browser;
mod events;
mod fixture;
mod metrics;
mod page;
mod rest;
