//! `castra completions`.

use clap::CommandFactory;

use crate::{
    cli::Cli,
    out::{Exit, Failure, Out, Outcome},
};

pub(super) fn run(out: &mut Out, shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "castra", &mut script);
    out.document(&String::from_utf8(script).map_err(Failure::from)?);
    Ok(Exit::Done)
}
