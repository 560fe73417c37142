//! The hermetic suite: the real binary, a miniature kernel tree, servers on loopback. No network.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod add;
mod arches;
mod attest;
mod build;
mod bundles;
mod cache;
mod catalog;
mod check;
mod cli;
mod clients;
mod configs;
mod faults;
mod fetch_faults;
mod hostile;
mod inspect;
mod layouts;
mod mistakes;
mod network;
mod planning;
mod project;
mod push;
mod registry;
mod servers;
mod signals;
mod signing;
mod sources;
mod speed;
mod ssh;
mod timings;
mod trust;
mod versions;
mod world;
