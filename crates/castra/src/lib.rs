//! The program: command line, configuration, wiring.
//!
//! [`main`] reads the command line (`cli.rs`) and hands it to one file per command (`commands/`).
//! `config/` is castra.toml, `manifest.rs` the tool manifests, `prices.rs` the price tables, `up.rs` the wiring of a running gate,
//! `wrap/` the editing of clients' configurations. What a command says goes through `out.rs`, and
//! nowhere else.

mod cli;
mod commands;
mod context;
mod out;
mod policies;
#[cfg(feature = "prove")]
mod prove;
mod records;
mod up;
mod wrap;

pub mod config;
pub mod manifest;
pub mod prices;

use std::process::ExitCode;

use clap::Parser;

/// Reads the command line, does what it says, and gives the exit code.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(out::Exit::Done) => ExitCode::SUCCESS,
        Ok(out::Exit::Found) => ExitCode::from(2),
        Err(failure) => ExitCode::from(out::fail(&failure, json)),
    }
}

/// What fuzz targets and tests of the wrapped files' parsers call: bytes in, nothing out, no panic.
pub mod fuzz {
    use std::path::Path;

    /// `castra.toml`.
    pub fn config(text: &str) {
        let _ = crate::config::Config::parse(text, Path::new(""));
    }

    /// A tool manifest.
    pub fn manifest(text: &str) {
        let _ = crate::manifest::parse(text);
    }

    /// A price table.
    pub fn prices(text: &str) {
        let _ = crate::prices::PriceTable::parse(text);
    }

    /// A client's JSON configuration.
    pub fn client_json(text: &str) {
        crate::wrap::fuzz_json(text);
    }

    /// A client's TOML configuration.
    pub fn client_toml(text: &str) {
        crate::wrap::fuzz_toml(text);
    }
}
