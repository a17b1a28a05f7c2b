//! Which revision a request over HTTP is in (2026-07-28, basic/versioning, "Backward Compatibility").

use castra_core::{Refusal, RefusalCode, Step};

use super::{Era, Request, Revision, answer::code, meta_key};

/// How a request begins or continues a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It describes itself.
    Modern(Revision),
    /// It opens a session; the revision is negotiated from its parameters.
    Initialize,
    /// It belongs to a session; None if it does not say in which revision, which before 2025-06-18 no
    /// request did.
    Legacy(Option<Revision>),
}

/// Why it cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningFault {
    /// A revision that is not spoken.
    #[error("MCP revision {requested:?} is not spoken here")]
    Unsupported {
        /// What was asked for, cut to a bearable length.
        requested: String,
    },
    /// The header and `_meta` name different revisions.
    #[error("the header MCP-Protocol-Version says {header:?}, _meta says {body:?}")]
    Differs {
        /// The header's revision.
        header: String,
        /// The body's revision.
        body: String,
    },
    /// The header is missing.
    #[error("the header MCP-Protocol-Version is missing")]
    NoHeader,
    /// A request in the modern era lacks what it must say of itself.
    #[error("params._meta lacks {field:?}, which every request must carry since 2026-07-28")]
    NoMeta {
        /// The key.
        field: &'static str,
    },
}

impl OpeningFault {
    /// The JSON-RPC code, for [`super::RefusalContext::code`].
    pub fn code(&self) -> i64 {
        match self {
            Self::Unsupported { .. } => code::UNSUPPORTED_VERSION,
            Self::Differs { .. } | Self::NoHeader => code::HEADER_MISMATCH,
            Self::NoMeta { .. } => code::INVALID_PARAMS,
        }
    }

    /// The refusal.
    pub fn refusal(&self) -> Refusal {
        let (code, advice) = match self {
            Self::Unsupported { .. } => {
                (RefusalCode::UnsupportedVersion, "Use one of the supported revisions")
            }
            Self::Differs { .. } | Self::NoHeader => {
                (RefusalCode::HeaderMismatch, "Send the revision of _meta in the header")
            }
            Self::NoMeta { .. } => (RefusalCode::Malformed, ""),
        };
        Refusal::new(Step::Understand, code, self.to_string()).advise(advice)
    }
}

/// Says which revision a request is in. `header` is the value of `MCP-Protocol-Version`.
pub fn opening(request: &Request<'_>, header: Option<&[u8]>) -> Result<Opening, OpeningFault> {
    let header = header.map(|bytes| String::from_utf8_lossy(bytes));
    match (&request.meta.protocol_version, header) {
        (Some(_), None) => Err(OpeningFault::NoHeader),
        (Some(body), Some(header)) if *body != header => {
            Err(OpeningFault::Differs { header: shown(&header), body: shown(body) })
        }
        (Some(body), Some(_)) => match modern(body) {
            None => Err(OpeningFault::Unsupported { requested: shown(body) }),
            Some(_) if request.meta.client_capabilities.is_none() => {
                Err(OpeningFault::NoMeta { field: meta_key::CLIENT_CAPABILITIES })
            }
            Some(revision) => Ok(Opening::Modern(revision)),
        },
        (None, _) if request.method == "initialize" => Ok(Opening::Initialize),
        (None, None) => Ok(Opening::Legacy(None)),
        (None, Some(header)) => match Revision::parse(&header) {
            None => Err(OpeningFault::Unsupported { requested: shown(&header) }),
            Some(revision) if revision.era() == Era::Modern => {
                Err(OpeningFault::NoMeta { field: meta_key::PROTOCOL_VERSION })
            }
            Some(revision) => Ok(Opening::Legacy(Some(revision))),
        },
    }
}

fn modern(text: &str) -> Option<Revision> {
    Revision::parse(text).filter(|revision| revision.era() == Era::Modern)
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Message, ParseLimits, parse};

    #[test]
    fn a_request_says_its_revision_in_one_way() {
        const CAPABILITIES: &str = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
        let version = |v| format!(r#""io.modelcontextprotocol/protocolVersion":"{v}""#);
        let modern = |v| format!("{{{},{CAPABILITIES}}}", version(v));
        let bare = format!("{{{}}}", version("2026-07-28"));
        for (method, meta, header, expected) in [
            (
                "tools/list",
                modern("2026-07-28"),
                Some("2026-07-28"),
                Ok(Opening::Modern(Revision::V2026_07_28)),
            ),
            ("initialize", "{}".into(), None, Ok(Opening::Initialize)),
            ("initialize", "{}".into(), Some("2025-11-25"), Ok(Opening::Initialize)),
            ("tools/list", "{}".into(), Some("2025-06-18"), Ok(Opening::Legacy(Some(Revision::V2025_06_18)))),
            ("tools/list", "{}".into(), None, Ok(Opening::Legacy(None))),
            ("tools/list", modern("2026-07-28"), None, Err((-32020, "header-mismatch"))),
            ("tools/list", modern("2026-07-28"), Some("2025-11-25"), Err((-32020, "header-mismatch"))),
            ("tools/list", modern("1900-01-01"), Some("1900-01-01"), Err((-32022, "unsupported-version"))),
            ("tools/list", modern("2025-11-25"), Some("2025-11-25"), Err((-32022, "unsupported-version"))),
            ("tools/list", "{}".into(), Some("1900-01-01"), Err((-32022, "unsupported-version"))),
            ("tools/list", "{}".into(), Some("2026-07-28"), Err((-32602, "malformed"))),
            ("tools/list", bare, Some("2026-07-28"), Err((-32602, "malformed"))),
        ] {
            let text =
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"_meta":{meta}}}}}"#);
            let Ok(Message::Request(request)) = parse(text.as_bytes(), &ParseLimits::default()) else {
                panic!("{text}")
            };
            let opened = opening(&request, header.map(str::as_bytes));
            assert_eq!(
                opened.map_err(|f| (f.code(), f.refusal().code.as_str())),
                expected,
                "{text} {header:?}"
            );
        }
    }
}
