//! The suite runs the real binary on a miniature kernel tree, with servers on loopback and without
//! a network.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod docs;
mod docs_json;
mod imports;
mod kernel_table;
mod smoke;
mod style;
mod tutorial;

/// Builds of one kernel and of several.
mod build {
    mod builtin;
    mod concurrency;
    mod config_files;
    mod golden_builds;
    mod incremental;
    mod inputs;
    mod kernel_org_compiler;
    mod launchers;
    mod multi_kernel;
    mod pages;
    mod reproducible;
    mod sandbox;
    mod single_kernel;
    mod timings;
    mod toolchain;
    mod variants;
}

/// The commands and their output.
mod commands {
    mod add;
    mod bench;
    mod boot;
    mod boot_shell;
    mod cache_check;
    mod captures;
    mod ccache;
    mod check;
    mod cli;
    mod completions;
    mod config;
    mod config_reading;
    mod cve;
    mod diff;
    mod extract;
    mod fragments;
    mod golden;
    mod help;
    mod inspect;
    mod json;
    mod list;
    mod make;
    mod next_steps;
    mod plan;
    mod project;
    mod push;
    mod push_tags;
    mod snapshots;
    mod terminal;
    mod toolchain;
    mod unknown_symbols;
    mod update;
    mod update_report;
    mod user_config;
    mod verify;
    mod verify_names;
    mod verify_rebuild;
    mod warnings;
}

/// Faults and how kcompile handles them.
mod faults {
    mod compilers;
    mod crash_tests;
    mod disk_full;
    mod documented;
    mod empty_root;
    mod fetch_faults;
    mod host_limits;
    mod invalid_input;
    mod malicious_archives;
    mod messages;
    mod network;
    mod partial_outputs;
    mod signals;
    mod soak;
    mod special_files;
}

/// Image layouts, written, read, pushed, and of other tools.
mod oci {
    mod attestations;
    mod clients;
    mod foreign_images;
    mod foreign_tools;
    mod image_cache;
    mod layers;
    mod layouts;
    mod loaders;
    mod malicious_layouts;
    mod multi_arch;
    mod published;
    mod references;
    mod referrers;
    mod single_stream;
}

/// Sources, their verification, and patches.
mod source {
    mod bundles;
    mod cache;
    mod directory;
    mod git;
    mod git_servers;
    mod git_ssh;
    mod invalid_patches;
    mod kinds;
    mod patches;
    mod pins;
    mod random_patches;
    mod signatures;
    mod versions;
}

/// Shared code. Test files import nothing else of the suite.
mod support {
    pub(crate) mod browser;
    pub(crate) mod context;
    pub(crate) mod downloads;
    pub(crate) mod fixed_tools;
    pub(crate) mod fixtures;
    pub(crate) mod forgery;
    pub(crate) mod git;
    pub(crate) mod golden;
    pub(crate) mod layouts;
    #[path = "../../../examples/load/loader.rs"]
    pub(crate) mod loader;
    pub(crate) mod mounts;
    pub(crate) mod normalize;
    pub(crate) mod patching;
    pub(crate) mod processes;
    pub(crate) mod progress;
    pub(crate) mod qemu;
    pub(crate) mod random;
    pub(crate) mod random_trees;
    pub(crate) mod registry;
    pub(crate) mod registry_daemon;
    pub(crate) mod schemas;
    pub(crate) mod servers;
    pub(crate) mod signing;
    pub(crate) mod terminal;
    pub(crate) mod tls;
    pub(crate) mod toolchain;
}
