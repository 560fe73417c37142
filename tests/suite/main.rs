//! The hermetic suite: the real binary, a miniature kernel tree, servers on loopback. No network.

#![allow(clippy::unwrap_used)]

mod build;
mod cli;
mod layouts;
mod planning;
mod servers;
mod signals;
mod sources;
mod world;
