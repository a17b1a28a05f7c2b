//! On whose behalf an agent acts: the `act` claim of RFC 8693, section 4.1.
//!
//! A token with `act` has two kinds of names. Its `sub` is the one on whose behalf something happens;
//! the outermost `act` is who does it now, and is the agent that the gate deals with; actors nested
//! in it acted before. So `{"sub":"alice","act":{"sub":"planner","act":{"sub":"intake"}}}` is
//! agent `planner`, which was asked by `intake`, which was asked by `alice`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::JwtError;

/// Most actors of one token. Policies set the limit that is meant; this one bounds what is read.
pub const ACTORS_MAX: usize = 16;
/// Longest name in a chain.
const NAME_CHARS_MAX: usize = 256;

/// Who acts, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delegation {
    /// The current actor, as the token names it.
    pub(super) actor: String,
    /// Who asked it, nearest first; the subject stands last.
    pub(super) chain: Vec<Arc<str>>,
}

/// Reads the chain of a token. `subject` is its `sub`. An actor of another issuer than the token's
/// is refused as the current one, whose name must mean something here, and is named with its
/// issuer further down, so that it cannot pass for somebody of the same name.
pub(super) fn read(act: &Value, subject: &str, issuer: &str) -> Result<Delegation, JwtError> {
    let mut actors = Vec::new();
    let mut next = Some(act);
    while let Some(value) = next {
        if actors.len() == ACTORS_MAX {
            return Err(JwtError::TooMany { claim: "act".to_owned(), max: ACTORS_MAX });
        }
        let act = value.as_object().ok_or_else(|| bad("an object"))?;
        actors.push(actor(act, issuer)?);
        next = act.get("act");
    }
    let mut actors = actors.into_iter();
    let (actor, foreign) = actors.next().ok_or_else(|| bad("an object"))?;
    if foreign {
        return Err(bad("an actor of the token's own issuer"));
    }
    let mut chain: Vec<Arc<str>> = actors.map(|(name, _)| name.into()).collect();
    chain.push(
        name(subject).ok_or_else(|| super::claims::claim("sub", "a name of at most 256 characters"))?.into(),
    );
    Ok(Delegation { actor, chain })
}

/// The name of one actor, and whether another issuer vouches for it.
fn actor(act: &Map<String, Value>, issuer: &str) -> Result<(String, bool), JwtError> {
    let sub =
        act.get("sub").and_then(Value::as_str).and_then(name).ok_or_else(|| bad("an object with `sub`"))?;
    match act.get("iss") {
        None => Ok((sub, false)),
        Some(Value::String(iss)) if iss == issuer => Ok((sub, false)),
        Some(Value::String(iss)) => {
            let iss = name(iss).ok_or_else(|| bad("an object with a readable `iss`"))?;
            Ok((format!("{iss}#{sub}"), true))
        }
        Some(_) => Err(bad("an object whose `iss` is a text")),
    }
}

fn name(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX && !text.contains(char::is_control);
    good.then(|| text.to_owned())
}

fn bad(expected: &'static str) -> JwtError {
    super::claims::claim("act", expected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_outermost_actor_acts_and_the_subject_stands_last() {
        let act =
            json!({"sub": "planner", "act": {"sub": "intake", "act": {"sub": "other", "iss": "https://b"}}});
        let read = read(&act, "alice", "https://a").expect("a chain");
        assert_eq!(read.actor, "planner");
        assert_eq!(read.chain, ["intake", "https://b#other", "alice"].map(Arc::from));
    }

    #[test]
    fn what_is_no_chain_is_refused() {
        let mut deep = json!({"sub": "x"});
        for _ in 0..ACTORS_MAX {
            deep = json!({"sub": "x", "act": deep});
        }
        for bad in [
            deep,
            json!("planner"),
            json!({}),
            json!({"sub": ""}),
            json!({"sub": "a\nb"}),
            json!({"sub": "planner", "act": null}),
            json!({"sub": "planner", "iss": "https://b"}),
            json!({"sub": "planner", "iss": 1}),
            json!({"sub": "p".repeat(257)}),
        ] {
            assert!(read(&bad, "alice", "https://a").is_err(), "{bad}");
        }
        assert!(read(&json!({"sub": "planner"}), "", "https://a").is_err());
    }
}
