//! One file per command; each reads top down: what is asked, what is done, what is said.

mod agent;
pub(crate) mod approval;
mod budget;
mod completions;
mod demo;
mod doctor;
pub(crate) mod init;
mod inspect;
mod log;
mod model;
mod peer;
pub(crate) mod person;
mod policy;
mod policy_change;
mod schema;
mod tool;
mod up;
mod verify;

use crate::{
    cli::{Cli, Command},
    context::Context,
    out::{Out, Outcome},
    wrap,
};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Up => up::run(global),
        Command::Init => init::run(global),
        Command::Demo(args) => demo::run(global, args),
        Command::Doctor => doctor::run(global),
        Command::Wrap(args) => wrap::run(global, &args),
        Command::Connect(args) => wrap::connect::run(global, &args),
        Command::Agent(command) => agent::run(Context::new(global)?, command),
        Command::Approval(command) => approval::run(Context::new(global)?, command),
        Command::Person(command) => person::run(Context::new(global)?, command),
        Command::Peer(command) => peer::run(Context::new(global)?, command),
        Command::Tool(command) => tool::run(Context::new(global)?, command),
        Command::Budget(command) => budget::run(Context::new(global)?, command),
        Command::Model(command) => model::run(Context::new(global)?, command),
        Command::Policy(command) => policy::run(Context::new(global)?, command),
        Command::Inspect(args) => inspect::run(Context::new(global)?, &args),
        Command::Log(command) => log::run(global, command),
        Command::Completions { shell } => completions::run(&mut Out::new(false), shell),
        Command::Schema { what } => schema::run(&mut Out::new(false), what),
    }
}
