//! Which run an action belongs to, as its request says; what a protocol knows beside comes after.

use aws_lc_rs::digest::{SHA256, digest};
use castra_core::RunId;
use http::HeaderMap;

/// What the names begin with that the gate gives to runs itself. An agent cannot choose one.
const OWN: &str = "castra:";

/// The run that a request names: by `Castra-Run`, else by the trace id of `traceparent`.
pub(crate) fn named(headers: &HeaderMap) -> Option<RunId> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    header("castra-run").and_then(chosen).or_else(|| header("traceparent").and_then(trace_id))
}

/// A name that an agent chose.
pub(crate) fn chosen(name: &str) -> Option<RunId> {
    RunId::new(name).filter(|run| !is_derived(run))
}

/// The trace id of a W3C `traceparent` (Trace Context, section 3.2).
pub(crate) fn trace_id(traceparent: &str) -> Option<RunId> {
    let id = traceparent.split('-').nth(1)?;
    let good = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    if good { RunId::new(id) } else { None }
}

/// The run of a conversation that has no name and is sent whole each time: its first words name it.
pub(crate) fn of_conversation(first_words: &str) -> Option<RunId> {
    let hash = digest(&SHA256, first_words.as_bytes());
    let hex: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    RunId::new(&format!("{OWN}chat:{hex}"))
}

/// Whether the gate derived the name from what a request holds. All of such a run stands in each of its
/// requests, so that it can begin anew where a run under a chosen name is lost.
pub(crate) fn is_derived(run: &RunId) -> bool {
    run.as_str().starts_with(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_names_a_run() {
        let id = trace_id("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01").unwrap();
        assert_eq!(id.as_str(), "0af7651916cd43dd8448eb211c80319c");
        for bad in ["", "00-0-1-2", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "x"] {
            assert!(trace_id(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_agent_cannot_choose_a_name_of_the_gate() {
        let derived = of_conversation("pay the bill").unwrap();
        assert!(is_derived(&derived));
        let mut headers = HeaderMap::new();
        headers.insert("castra-run", derived.as_str().parse().unwrap());
        assert!(named(&headers).is_none());
        headers.insert("castra-run", "mine".parse().unwrap());
        assert!(named(&headers).is_some_and(|run| !is_derived(&run)));
    }
}
