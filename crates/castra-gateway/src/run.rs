//! Which run an action belongs to, as its request says; what a protocol knows beside comes after.

use castra_core::RunId;
use http::HeaderMap;

/// The run that a request names: by `Castra-Run`, else by the trace id of `traceparent`.
pub(crate) fn named(headers: &HeaderMap) -> Option<RunId> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    header("castra-run").and_then(RunId::new).or_else(|| header("traceparent").and_then(trace_id))
}

/// The trace id of a W3C `traceparent` (Trace Context, section 3.2).
pub(crate) fn trace_id(traceparent: &str) -> Option<RunId> {
    let id = traceparent.split('-').nth(1)?;
    let good = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    if good { RunId::new(id) } else { None }
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
}
