//! The path of an action on one screen.
//!
//! ```text
//!  listen      Connection::call        host, origin, size, place
//!  identify    identify::identify      token, certificate or JWT -> who
//!  understand  mcp, model::serve       bytes -> Action
//!  inspect     inspect, model::watch   findings of the request, for policies; what a model may see
//!  budget      Budgets::reserve        what it may use is set aside
//!  flow        Runs::judge             what its run has seen, what its arguments are made of
//!  decide      decide::decide          Action -> Decided
//!  ask         approval::settle        a person's word, where policies want one
//!  record      Recorder::intent        Decided -> Recorded -> Permit | Denied | Asked
//!  act         mcp, model::Exchange    needs the Permit; speaks to server or provider
//!  inspect     inspect, model::watch   masks what comes back; a model's tool calls take the path too
//!  record      Permit::conclude        outcome written, receipt
//!  answer      answer::{json, events}  needs the receipt
//! ```

use castra_core::Refusal;

use crate::{
    approval,
    budget::BudgetAsk,
    decide::decide,
    gate::Gate,
    record::{Asked, Denied, Permit, Recorded},
    understand::Action,
};

/// Why an action was stopped before it reached a server.
pub(crate) enum Stopped {
    /// It could not be taken, decided or recorded.
    Refused(Refusal),
    /// Policy said no, and that is on record.
    Denied(Denied),
    /// A person has to say yes first. That is on record, and the person is asked.
    Asked(Asked),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// As [`admit`], for an action that counts as one request of every budget that covers it. The budgets are
/// asked first; what is then not admitted has used nothing.
pub(crate) async fn admit_one(gate: &Gate, action: Action) -> Result<Permit, Stopped> {
    let agent = action.agent.clone();
    let reservation = gate.budgets.reserve(&BudgetAsk::request(&agent)).await.map_err(Refusal::from)?;
    let admitted = admit(gate, action).await;
    match &admitted {
        Ok(_) => reservation.spend_request(),
        Err(_) => reservation.release(),
    }
    admitted
}

/// Takes an understood action through decision and record. What comes back is the only thing with
/// which an adapter can act.
pub(crate) async fn admit(gate: &Gate, action: Action) -> Result<Permit, Stopped> {
    let slot = gate.in_flight.enter(&action.agent.name)?;
    let mut action = gate.runs.judge(gate, action).await?;
    approval::note_refusals(gate, &mut action).await?;
    let decided = decide(&gate.engine.load(), gate.mode(), action, gate.now(), &gate.metrics);
    let decided = match decided.permitted() {
        true => decided,
        false if decided.action().judged_at_call => decided.left_to_the_call(),
        false => approval::settle(gate, decided).await?,
    };
    match gate.recorder.intent(decided, slot).await? {
        Recorded::Permitted(permit) => Ok(permit),
        Recorded::Denied(denied) => Err(Stopped::Denied(denied)),
        Recorded::Asked(asked) => Err(Stopped::Asked(asked)),
    }
}
