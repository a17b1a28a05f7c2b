//! `castra person`: who may use the console.

use serde_json::json;

use crate::{
    cli::PersonCommand,
    context::Context,
    out::{Exit, Failure, Outcome, minute, remark},
};

pub(super) fn run(mut cx: Context, command: PersonCommand) -> Outcome {
    let PersonCommand::Enroll { person } = command;
    let issued = cx.open_or_create()?.state.create_enrolment(&person, cx.now)?;
    let link = enrolment_link(&cx.console_url()?, issued.token.expose());
    cx.out.value(&json!({ "person": person, "link": link, "expires": issued.expires }));
    cx.out.line(&link);
    if !cx.out.is_json() {
        let end = issued.expires.map_or(String::new(), |t| format!(" until {}", minute(t)));
        remark(format_args!("Whoever opens it{end} becomes {person}, once. The gate must be running."));
    }
    Ok(Exit::Done)
}

/// The address at which a person enrols.
pub(crate) fn enrolment_link(console: &str, token: &str) -> String {
    format!("{console}/enroll/{token}")
}

impl Context {
    /// The URL under which the console is reached, without a slash at its end.
    fn console_url(&self) -> Result<String, Failure> {
        let console = &self.config().console;
        if let Some(url) = &console.public_url {
            return Ok(url.to_string().trim_end_matches('/').to_owned());
        }
        if console.listen.port() == 0 {
            let what = "the console takes any free port, so its address is not known here";
            return Err(Failure::new(what).advise("Set [console] listen to a port, or public_url."));
        }
        Ok(crate::context::base_url(&console.tls(), console.listen))
    }
}
