//! `castra demo`: the story is told by castra-demo, through this very binary.

use std::io::IsTerminal;

use castra_demo::DemoOptions;

use crate::{
    cli::{DemoArgs, DemoPart, Global},
    out::{Exit, Out, Outcome},
};

pub(super) fn run(global: &Global, args: DemoArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.part {
        Some(DemoPart::ServeNotes { folder }) => runtime.block_on(castra_demo::serve_notes(&folder))?,
        None => {
            let options = DemoOptions {
                castra: std::env::current_exe()?,
                state: global.state.clone(),
                colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            };
            runtime.block_on(castra_demo::run(options, &mut Out::new(global.json)))?;
        }
    }
    // A read of standard input that nobody ends would hold the runtime up.
    runtime.shutdown_background();
    Ok(Exit::Done)
}
