//! The hermetic suite: the real binary, a miniature kernel tree, servers on loopback. No network.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod docs;
mod imports;

/// Builds of one kernel and of several.
mod build {
    mod build;
    mod concurrency;
    mod config_files;
    mod golden_builds;
    mod incremental;
    mod inputs;
    mod launchers;
    mod multi_kernel;
    mod reproducible;
    mod sandbox;
    mod timings;
}

/// What one command prints and does.
mod commands {
    mod add;
    mod bench;
    pub(crate) mod boot;
    mod cache_check;
    mod ccache;
    mod check;
    mod cli;
    mod config;
    mod diff;
    pub(crate) mod golden;
    mod inspect;
    mod list;
    mod plan;
    mod project;
    mod push;
    mod verify;
    mod verify_rebuild;
}

/// What goes wrong, and what kcompile does then.
mod faults {
    pub(crate) mod crash_tests;
    pub(crate) mod disk_full;
    mod documented;
    mod fetch_faults;
    mod invalid_input;
    pub(crate) mod malicious_archives;
    pub(crate) mod network;
    mod partial_outputs;
    pub(crate) mod signals;
    mod soak;
    mod special_files;
}

/// The image layouts: written, read, pushed, and as other tools have them.
mod oci {
    mod attestations;
    pub(crate) mod clients;
    mod foreign_images;
    mod foreign_tools;
    mod layers;
    mod layouts;
    mod malicious_layouts;
    mod multi_arch;
    mod published;
    mod referrers;
    mod single_stream;
}

/// Where a kernel's source comes from, what proves it, and what patches make of it.
mod source {
    mod bundles;
    mod cache;
    mod directory;
    mod git_servers;
    mod git_ssh;
    mod invalid_patches;
    pub(crate) mod kinds;
    pub(crate) mod patches;
    mod random_patches;
    mod signatures;
    mod versions;
}

/// What the tests share. Test files import nothing else of the suite.
mod support {
    pub(crate) mod context;
    pub(crate) mod fixed_tools;
    pub(crate) mod fixtures;
    pub(crate) mod normalize;
    pub(crate) mod processes;
    pub(crate) mod random_trees;
    pub(crate) mod registry;
    pub(crate) mod servers;
    pub(crate) mod signing;
}
