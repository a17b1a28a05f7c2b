//! Requests of the JSON-RPC binding (specification, section 9).

use std::borrow::Cow;

use super::{Binding, Fault, Method, Request};
use crate::json::{Kind, Scanner, Span};

/// A request that could not be understood, with what its answer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcFault<'a> {
    /// Why.
    pub fault: Fault,
    /// The id, if it could be read: a text or a number as it stands there.
    pub id: Option<&'a str>,
}

/// Reads one request. `depth_max` bounds the nesting of its JSON.
///
/// # Errors
/// A fault, with the id of the request wherever that could be read.
pub fn parse_rpc(bytes: &[u8], depth_max: usize) -> Result<Request<'_>, RpcFault<'_>> {
    let envelope = envelope(bytes, depth_max).map_err(|fault| RpcFault { fault, id: None })?;
    let id = envelope.id;
    request(&envelope).map_err(|fault| RpcFault { fault, id })
}

#[derive(Default)]
struct Envelope<'a> {
    text: &'a str,
    id: Option<&'a str>,
    jsonrpc: Option<Cow<'a, str>>,
    method: Option<Cow<'a, str>>,
    params: Option<(Kind, Span)>,
}

fn envelope(bytes: &[u8], depth_max: usize) -> Result<Envelope<'_>, Fault> {
    let mut scanner = Scanner::new(bytes, depth_max)?;
    match scanner.kind()? {
        Kind::Object => {}
        Kind::Array => return Err(Fault::Batch),
        _ => return Err(Fault::NotRpc("it is not an object")),
    }
    let mut envelope = Envelope { text: scanner.text(), ..Envelope::default() };
    scanner.members(|scanner, name| {
        let kind = scanner.kind()?;
        match (&*name.decode(), kind) {
            ("jsonrpc", Kind::String) => envelope.jsonrpc = Some(scanner.string()?.decode()),
            ("method", Kind::String) => envelope.method = Some(scanner.string()?.decode()),
            ("id", Kind::String | Kind::Number) => {
                envelope.id = Some(scanner.skip()?.span.of(envelope.text));
            }
            ("params", kind) => envelope.params = Some((kind, scanner.skip()?.span)),
            _ => drop(scanner.skip()?),
        }
        Ok::<_, Fault>(())
    })?;
    scanner.end()?;
    Ok(envelope)
}

fn request<'a>(envelope: &Envelope<'a>) -> Result<Request<'a>, Fault> {
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return Err(Fault::NotRpc("jsonrpc must be \"2.0\""));
    }
    if envelope.id.is_none() {
        return Err(Fault::NotRpc("its id must be a text or a number"));
    }
    let name = envelope.method.as_deref().ok_or(Fault::NotRpc("method must be a text"))?;
    let shown = || name.chars().take(80).collect();
    let method = Method::from_name(name).ok_or_else(|| Fault::NoMethod(shown()))?;
    let mut request = Request::new(Binding::JsonRpc, method, envelope.text);
    request.id = envelope.id;
    match envelope.params {
        Some((Kind::Object, span)) => {
            request.read(&mut Scanner::at(envelope.text, span))?;
        }
        None | Some((Kind::Null, _)) => {}
        Some(_) => return Err(Fault::Kind { field: "params", expected: "an object" }),
    }
    request.complete()
}
