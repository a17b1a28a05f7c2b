//! Requests of the HTTP+JSON binding (specification, section 11): method, path, query and body.

use std::borrow::Cow;

use super::{Binding, Fault, Method, Request, fields::checked_id};
use crate::json::Scanner;

/// The parts of an HTTP request that say what is asked.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path below the agent's address, beginning with a slash, percent-encoded as it came.
    pub path: &'a str,
    /// The query, as it came.
    pub query: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// Where a request belongs.
struct Place<'a> {
    method: Method,
    tenant: Option<Cow<'a, str>>,
    task: Option<Cow<'a, str>>,
    push: Option<Cow<'a, str>>,
}

/// Reads one request. The version in the query is [`version_in_query`]'s business.
///
/// # Errors
/// What is wrong with path, query or body.
pub fn parse_http<'a>(http: &HttpRequest<'a>, depth_max: usize) -> Result<Request<'a>, Fault> {
    let place = place(http)?;
    let mut scanner = Scanner::new(http.body, depth_max)?;
    let text = scanner.text();
    let mut request = Request::new(Binding::HttpJson, place.method, text);
    (request.tenant, request.task, request.push) = (place.tenant, place.task, place.push);
    if !text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        request.read(&mut scanner)?;
        scanner.end()?;
    }
    read_query(&mut request, http.query)?;
    request.complete()
}

/// The value of `A2A-Version` in a query.
pub(super) fn is_version(name: &str) -> bool {
    name.eq_ignore_ascii_case(super::VERSION_HEADER)
}

impl<'a> HttpRequest<'a> {
    /// The version that the query names, which a client may do instead of the header.
    ///
    /// # Errors
    /// A query that is not encoded well, or names it twice.
    pub fn version(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        let mut found = None;
        for (name, value) in pairs(self.query) {
            let name = decoded(name, true)?;
            if is_version(&name) && found.replace(decoded(value, true)?).is_some() {
                return Err(Fault::Twice(name.into_owned()));
            }
        }
        Ok(found)
    }
}

fn place<'a>(http: &HttpRequest<'a>) -> Result<Place<'a>, Fault> {
    let nowhere = || Fault::NoPlace {
        method: http.method.chars().take(20).collect(),
        path: http.path.chars().take(200).collect(),
    };
    let segments: Vec<&str> = http.path.trim_start_matches('/').split('/').collect();
    if let Some(place) = place_of(http.method, &segments)? {
        return Ok(place);
    }
    // The first segment may name the tenant.
    let (tenant, rest) = segments.split_first().ok_or_else(nowhere)?;
    let mut place = place_of(http.method, rest)?.ok_or_else(nowhere)?;
    place.tenant = Some(segment(tenant, "tenant")?);
    Ok(place)
}

fn place_of<'a>(http_method: &str, segments: &[&'a str]) -> Result<Option<Place<'a>>, Fault> {
    const CONFIGS: &str = "pushNotificationConfigs";
    let place = |method| Place { method, tenant: None, task: None, push: None };
    let of_task = |method, task: &'a str| {
        Ok::<_, Fault>(Some(Place { task: Some(segment(task, "the task's id")?), ..place(method) }))
    };
    match (http_method, segments) {
        ("POST", ["message:send"]) => Ok(Some(place(Method::SendMessage))),
        ("POST", ["message:stream"]) => Ok(Some(place(Method::SendStreamingMessage))),
        ("GET", ["tasks"]) => Ok(Some(place(Method::ListTasks))),
        ("GET", ["extendedAgentCard"]) => Ok(Some(place(Method::GetExtendedAgentCard))),
        // The service definition has GET for subscribing; agents take POST as well, as drafts had it.
        ("GET" | "POST", ["tasks", task]) => match (http_method, task.rsplit_once(':')) {
            ("POST", Some((task, "cancel"))) => of_task(Method::CancelTask, task),
            (_, Some((task, "subscribe"))) => of_task(Method::SubscribeToTask, task),
            ("GET", _) => of_task(Method::GetTask, task),
            _ => Ok(None),
        },
        ("POST", ["tasks", task, CONFIGS]) => of_task(Method::CreateTaskPushNotificationConfig, task),
        ("GET", ["tasks", task, CONFIGS]) => of_task(Method::ListTaskPushNotificationConfigs, task),
        ("GET" | "DELETE", ["tasks", task, CONFIGS, push]) => {
            let method = if http_method == "GET" {
                Method::GetTaskPushNotificationConfig
            } else {
                Method::DeleteTaskPushNotificationConfig
            };
            let push = Some(segment(push, "the configuration's id")?);
            Ok(of_task(method, task)?.map(|place| Place { push, ..place }))
        }
        _ => Ok(None),
    }
}

fn segment<'a>(raw: &'a str, field: &'static str) -> Result<Cow<'a, str>, Fault> {
    checked_id(decoded(raw, false)?, field)
}

/// Takes the query. A receiver may let it speak over the path or the body, so only parameters of the
/// operation that do not are taken.
fn read_query(request: &mut Request<'_>, query: Option<&str>) -> Result<(), Fault> {
    let known: &[&str] = match request.method {
        Method::GetTask => &["historyLength"],
        Method::ListTasks => &[
            "contextId",
            "status",
            "pageSize",
            "pageToken",
            "historyLength",
            "statusTimestampAfter",
            "includeArtifacts",
        ],
        Method::ListTaskPushNotificationConfigs => &["pageSize", "pageToken"],
        _ => &[],
    };
    let mut seen: Vec<&str> = Vec::new();
    for (raw_name, raw_value) in pairs(query) {
        let name = decoded(raw_name, true)?;
        if is_version(&name) {
            continue;
        }
        let Some(field) = known.iter().find(|field| super::fields::spells(&name, field)) else {
            let name = name.chars().take(80).collect();
            return Err(Fault::Parameter { name, method: request.method.as_str() });
        };
        if seen.contains(field) {
            return Err(Fault::Twice((*field).to_owned()));
        }
        seen.push(field);
        let value = decoded(raw_value, true)?;
        if *field == "contextId" && !value.is_empty() {
            request.context = Some(Cow::Owned(checked_id(value, "contextId")?.into_owned()));
        }
        let separator = if request.query.is_empty() { "" } else { "&" };
        request.query.push_str(separator);
        request.query.push_str(raw_name);
        request.query.push('=');
        request.query.push_str(raw_value);
    }
    Ok(())
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let all = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    all.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Takes percent-encoding off; in a query a plus is a space.
fn decoded(raw: &str, plus: bool) -> Result<Cow<'_, str>, Fault> {
    let encoded = raw.contains('%') || plus && raw.contains('+');
    if !encoded {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes().iter();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(*b).to_digit(16));
                let (high, low) = (digit().ok_or(Fault::Encoding)?, digit().ok_or(Fault::Encoding)?);
                u8::try_from(high * 16 + low).map_err(|_| Fault::Encoding)?
            }
            b'+' if plus => b' ',
            other => *other,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Fault::Encoding)
}

impl Request<'_> {
    /// The HTTP method and what follows the address of an HTTP+JSON interface: tenant, path, query.
    pub fn http_target(&self) -> (&'static str, String) {
        let mut target = String::new();
        let mut push = |segment: &str| {
            target.push('/');
            encode(segment, &mut target);
        };
        if let Some(tenant) = &self.tenant {
            push(tenant);
        }
        let task = self.task.as_deref().unwrap_or_default();
        let http_method = match self.method {
            Method::SendMessage | Method::SendStreamingMessage => {
                target.push_str(if self.method.streams() { "/message:stream" } else { "/message:send" });
                "POST"
            }
            Method::ListTasks => {
                push("tasks");
                "GET"
            }
            Method::GetExtendedAgentCard => {
                push("extendedAgentCard");
                "GET"
            }
            _ => {
                push("tasks");
                push(task);
                self.of_task(&mut target)
            }
        };
        if !self.query.is_empty() {
            target.push('?');
            target.push_str(&self.query);
        }
        (http_method, target)
    }

    fn of_task(&self, target: &mut String) -> &'static str {
        if self.method.is_about_push() {
            target.push_str("/pushNotificationConfigs");
        }
        match self.method {
            Method::CancelTask => {
                target.push_str(":cancel");
                "POST"
            }
            Method::SubscribeToTask => {
                target.push_str(":subscribe");
                "GET"
            }
            Method::CreateTaskPushNotificationConfig => "POST",
            Method::GetTaskPushNotificationConfig | Method::DeleteTaskPushNotificationConfig => {
                target.push('/');
                encode(self.push.as_deref().unwrap_or_default(), target);
                if self.method == Method::GetTaskPushNotificationConfig { "GET" } else { "DELETE" }
            }
            _ => "GET",
        }
    }
}

/// Writes a segment of a path (RFC 3986, section 3.3: unreserved characters stay).
fn encode(segment: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(*HEX.get(usize::from(digit)).unwrap_or(&b'0')));
            }
        }
    }
}
