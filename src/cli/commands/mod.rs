//! The commands. Each file has the options of a command, what it does and what it prints.

pub mod add;
pub mod boot;
pub mod build;
pub mod cache;
pub mod ccache;
pub mod check;
mod check_text;
pub mod clean;
pub mod completions;
pub mod config;
pub mod config_args;
mod config_text;
pub mod cve;
pub mod diff;
pub mod doctor;
pub mod extract;
pub mod fetch;
pub mod inspect;
pub mod list;
pub mod make;
pub mod man;
pub mod plan;
pub mod push;
pub mod toolchain;
pub mod update;
pub mod verify;
