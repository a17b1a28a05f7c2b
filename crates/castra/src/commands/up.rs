//! `castra up`: runs a gate.

use crate::{
    cli::Global,
    context::Context,
    out::{Exit, Outcome},
    up,
};

pub(super) fn run(global: &Global) -> Outcome {
    let Context { loaded, mut out, .. } = Context::new(global)?;
    up::start_logging(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(up::serve(loaded, &mut out));
    // After a second signal nothing is waited for.
    runtime.shutdown_background();
    ended.map(|()| Exit::Done)
}
