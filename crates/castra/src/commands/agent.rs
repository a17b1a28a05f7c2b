//! `castra agent`: who may come through the gate.

use std::path::Path;

use castra_core::{AgentName, GroupName, Timestamp};
use castra_identity::TrustDomain;
use castra_store::{IssuedToken, files};
use serde_json::json;

use crate::{
    cli::{AgentCommand, Life},
    config::Time,
    context::Context,
    out::{Exit, Failure, Outcome, minute, remark},
};

pub(super) fn run(mut cx: Context, command: AgentCommand) -> Outcome {
    match command {
        AgentCommand::Add { name, group, life, to } => {
            let opened = cx.open_or_create()?;
            let issued = opened.state.add_agent(&name, &group, life.0, cx.now)?;
            hand_over(&mut cx, &name, &issued, to.as_deref())?;
        }
        AgentCommand::List => list(&mut cx)?,
        AgentCommand::Show { name } => show(&mut cx, &name)?,
        AgentCommand::Rotate { name, overlap, life: Life(life), to } => {
            let opened = cx.open()?;
            let issued = opened.state.rotate_token(&name, life, overlap.0, cx.now)?;
            hand_over(&mut cx, &name, &issued, to.as_deref())?;
        }
        AgentCommand::Revoke { name, token, certificate } => revoke(&mut cx, &name, token, certificate)?,
        AgentCommand::Cert { name, out, life } => certify(&mut cx, &name, &out, life)?,
    }
    Ok(Exit::Done)
}

/// The only place where a token is shown, or written for the agent.
fn hand_over(
    cx: &mut Context,
    name: &AgentName,
    issued: &IssuedToken,
    to: Option<&Path>,
) -> Result<(), Failure> {
    let IssuedToken { token, id, expires, .. } = issued;
    let end = expires.map_or("without end".to_owned(), |t| format!("good until {}", minute(t)));
    if let Some(file) = to {
        files::write_atomic(file, token.expose().as_bytes(), 0o600)?;
        cx.out.value(&json!({ "agent": name, "file": file, "id": id, "expires": expires }));
        cx.out.line(format_args!("Wrote token {id} of agent {name} to {}, {end}.", file.display()));
        return Ok(());
    }
    cx.out.value(&json!({ "agent": name, "token": token.expose(), "id": id, "expires": expires }));
    cx.out.line(token.expose());
    if !cx.out.is_json() {
        remark(format_args!(
            "Token {id} of agent {name}, {end}. It is not shown again: keep it where only the agent can read it."
        ));
    }
    Ok(())
}

fn list(cx: &mut Context) -> Result<(), Failure> {
    let rows = cx.open()?.state.agents(cx.now)?;
    cx.out.value(&rows);
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let groups: Vec<&str> = row.groups.iter().map(GroupName::as_str).collect();
            [
                row.id.to_string(),
                row.state.into(),
                groups.join(", "),
                row.live_tokens.to_string(),
                row.live_certificates.to_string(),
                minute(row.created),
            ]
        })
        .collect();
    cx.out.table(["AGENT", "STATE", "GROUPS", "TOKENS", "CERTIFICATES", "ADDED"], &cells);
    Ok(())
}

fn show(cx: &mut Context, name: &AgentName) -> Result<(), Failure> {
    let detail = cx.open()?.state.agent(name, cx.now)?;
    cx.out.value(&detail);
    let groups: Vec<&str> = detail.agent.groups.iter().map(GroupName::as_str).collect();
    cx.out.line(format_args!("{name}: {}, added {}", detail.agent.state, minute(detail.agent.created)));
    if !groups.is_empty() {
        cx.out.line(format_args!("groups: {}", groups.join(", ")));
    }
    let tokens = detail
        .tokens
        .iter()
        .map(|t| ["token".into(), t.id.clone(), minute(t.created), end(t.expires), end(t.revoked)]);
    let certificates = detail
        .certificates
        .iter()
        .map(|c| ["certificate".into(), c.id.clone(), minute(c.created), minute(c.expires), end(c.revoked)]);
    let cells: Vec<[String; 5]> = tokens.chain(certificates).collect();
    if !cells.is_empty() {
        cx.out.table(["CREDENTIAL", "ID", "MADE", "EXPIRES", "REVOKED"], &cells);
    }
    Ok(())
}

fn end(time: Option<Timestamp>) -> String {
    time.map_or("-".into(), minute)
}

fn revoke(
    cx: &mut Context,
    name: &AgentName,
    token: Option<String>,
    certificate: Option<String>,
) -> Result<(), Failure> {
    let state = cx.open()?.state;
    let what = match (&token, &certificate) {
        (Some(id), _) => {
            state.revoke_token(name, id, cx.now)?;
            format!("Token {id} of agent {name}")
        }
        (None, Some(serial)) => {
            if !state.agent(name, cx.now)?.certificates.iter().any(|c| c.id == *serial) {
                let what = format!("agent {name} has no certificate {serial}");
                return Err(Failure::new(what).advise("`castra agent show` lists them."));
            }
            state.revoke_certificate(serial, cx.now)?;
            format!("Certificate {serial} of agent {name}")
        }
        (None, None) => {
            state.revoke_agent(name, cx.now)?;
            format!("Agent {name}")
        }
    };
    cx.out.value(
        &json!({ "agent": name, "revoked": token.or(certificate).unwrap_or_else(|| name.to_string()) }),
    );
    cx.out.line(format_args!("{what} is revoked; a running gate refuses it within a second."));
    Ok(())
}

fn certify(cx: &mut Context, name: &AgentName, folder: &Path, life: Time<0>) -> Result<(), Failure> {
    let days = u32::try_from(life.0.as_secs() / 86_400).unwrap_or(u32::MAX);
    if days == 0 {
        return Err(Failure::usage("--life: a certificate is good for at least a day, such as 1d"));
    }
    let domain = TrustDomain::new(&cx.config().gate.trust_domain)?;
    let opened = cx.open_or_create()?;
    let issued = opened.state.issue_certificate(name, &opened.keys.authority, &domain, days, cx.now)?;
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    files::create_folder(folder, 0o755)?;
    files::write_atomic(&file("key"), issued.key_pem.as_bytes(), 0o600)?;
    files::write_atomic(&file("pem"), issued.certificate_pem.as_bytes(), 0o644)?;
    let authority = folder.join("ca.pem");
    files::write_atomic(&authority, opened.keys.authority.certificate_pem().as_bytes(), 0o644)?;
    cx.out.value(&json!({
        "agent": name, "id": issued.serial, "expires": issued.not_after,
        "certificate": file("pem"), "key": file("key"), "ca": authority,
    }));
    cx.out.line(format_args!(
        "Wrote {} and {} (good until {}), and {}, which the agent trusts the gate by.",
        file("pem").display(),
        file("key").display(),
        minute(issued.not_after),
        authority.display()
    ));
    Ok(())
}
