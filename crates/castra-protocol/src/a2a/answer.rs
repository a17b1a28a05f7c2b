//! What a peer answers: whole, as an error, or event by event. Only what the gate acts on is read;
//! the bytes stay the peer's.

use std::borrow::Cow;

use super::{
    Binding, Fault, Method,
    fields::{expect, fields, id, text, truth},
};
use crate::json::{self, Kind, Scanner, Span};

/// A task and the conversation that it belongs to; either may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids<'a> {
    /// The task.
    pub task: Option<Cow<'a, str>>,
    /// The conversation.
    pub context: Option<Cow<'a, str>>,
}

/// A whole answer that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The body.
    pub text: &'a str,
    /// The operation's own message within it.
    pub result: Span,
    /// What it names, in order; for a list one entry per task.
    pub ids: Vec<Ids<'a>>,
    /// For a list: where each task stands.
    tasks: Vec<Span>,
    /// For a list: the whole array, and the count of all tasks.
    array: Option<Span>,
    total: Option<Span>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The data of the event.
    pub text: &'a str,
    /// The operation's own message within it; of an error the whole error.
    pub result: Span,
    /// What it names.
    pub ids: Ids<'a>,
    /// Whether it is an error, which ends the stream.
    pub error: bool,
    /// Whether clients may stop reading here: a message, or a task that is over or waits for its client.
    pub pauses: bool,
    /// A piece of an artifact.
    pub artifact: Option<Artifact<'a>>,
}

/// A piece of an artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Artifact<'a> {
    /// The artifact's id, unique within its task.
    pub id: Cow<'a, str>,
    /// Where the texts of its text parts stand, with their quotes.
    pub texts: Vec<Span>,
    /// Whether it continues what came before.
    pub append: bool,
    /// Whether it is the last piece.
    pub last: bool,
}

/// Most tasks of one page of a list; the specification says 100.
const TASKS_MAX: usize = 1000;

/// Reads a whole answer to `method`. `id` is the JSON-RPC id of the request as the caller wrote it.
///
/// # Errors
/// What makes it no answer. An error that the peer reports is an answer for [`read_error`].
pub fn read_answer<'a>(
    binding: Binding,
    method: Method,
    id: Option<&str>,
    bytes: &'a [u8],
    depth_max: usize,
) -> Result<Answer<'a>, Fault> {
    let mut scanner = Scanner::new(bytes, depth_max)?;
    let text = scanner.text();
    // Deleting a notification's configuration has no answer in HTTP+JSON, or an empty one.
    if binding == Binding::HttpJson && method == Method::DeleteTaskPushNotificationConfig && bytes.is_empty()
    {
        return Ok(Answer {
            text,
            result: Span { start: 0, end: 0 },
            ids: Vec::new(),
            tasks: Vec::new(),
            array: None,
            total: None,
        });
    }
    let result = match binding {
        Binding::JsonRpc => match rpc_response(&mut scanner, id)? {
            (span, false) => span,
            (_, true) => return Err(Fault::NotRpc("it is an error")),
        },
        Binding::HttpJson => {
            let value = scanner.skip()?;
            scanner.end()?;
            value.span
        }
    };
    let mut answer = Answer { text, result, ids: Vec::new(), tasks: Vec::new(), array: None, total: None };
    let mut scanner = Scanner::at(text, result);
    let empty = method == Method::DeleteTaskPushNotificationConfig && scanner.kind()? == Kind::Null;
    if !empty {
        expect(&mut scanner, "the result", Kind::Object, "an object")?;
    }
    match method {
        Method::SendMessage | Method::SendStreamingMessage => answer.read_sent(&mut scanner)?,
        Method::GetTask | Method::CancelTask => answer.ids.push(task(&mut scanner)?),
        Method::ListTasks => answer.read_list(&mut scanner)?,
        _ => {}
    }
    Ok(answer)
}

/// Reads an error that a peer reports, and says where it stands.
///
/// # Errors
/// What makes it none.
pub fn read_error(binding: Binding, id: Option<&str>, bytes: &[u8], depth_max: usize) -> Result<Span, Fault> {
    let mut scanner = Scanner::new(bytes, depth_max)?;
    match binding {
        Binding::JsonRpc => match rpc_response(&mut scanner, id)? {
            (span, true) => Ok(span),
            (_, false) => Err(Fault::Missing("error")),
        },
        Binding::HttpJson => {
            let error = http_error(&mut scanner)?.ok_or(Fault::Missing("error"))?;
            scanner.end()?;
            Ok(error)
        }
    }
}

/// Reads the data of one event of a stream.
///
/// # Errors
/// What makes it none.
pub fn read_event<'a>(
    binding: Binding,
    id: Option<&str>,
    data: &'a str,
    depth_max: usize,
) -> Result<Event<'a>, Fault> {
    let mut scanner = Scanner::of(data, depth_max);
    let (result, error) = match binding {
        Binding::JsonRpc => rpc_response(&mut scanner, id)?,
        Binding::HttpJson => {
            let whole = scanner.skip()?.span;
            scanner.end()?;
            match http_error(&mut Scanner::at(data, whole))? {
                Some(error) => (error, true),
                None => (whole, false),
            }
        }
    };
    let mut event = Event { text: data, result, ids: Ids::default(), error, pauses: error, artifact: None };
    if !error {
        event.read(&mut Scanner::at(data, result))?;
    }
    Ok(event)
}

/// The result or the error of a JSON-RPC response, which must be the one to `id`.
fn rpc_response(scanner: &mut Scanner<'_>, id: Option<&str>) -> Result<(Span, bool), Fault> {
    expect(scanner, "the response", Kind::Object, "an object")?;
    let text = scanner.text();
    let (mut version, mut found_id, mut result, mut error) = (None, None, None, None);
    scanner.members(|scanner, name| {
        let value = scanner.skip()?;
        match &*name.decode() {
            "jsonrpc" => version = json::decode(value.span.of(text)),
            "id" => found_id = Some(value),
            "result" => result = Some(value.span),
            "error" => error = Some(value),
            _ => {}
        }
        Ok::<_, Fault>(())
    })?;
    scanner.end()?;
    if version.as_deref() != Some("2.0") {
        return Err(Fault::NotRpc("jsonrpc must be \"2.0\""));
    }
    let found = found_id.map(|value| (value.kind, value.span.of(text)));
    match (result, error) {
        // Whoever could not read a request does not know its id.
        (None, Some(error)) if error.kind == Kind::Object => match found {
            None | Some((Kind::Null, _)) => Ok((error.span, true)),
            Some((_, raw)) if same_id(raw, id) => Ok((error.span, true)),
            Some(_) => Err(Fault::NotRpc("its id is not that of the request")),
        },
        (Some(result), None) => match found {
            Some((_, raw)) if same_id(raw, id) => Ok((result, false)),
            _ => Err(Fault::NotRpc("its id is not that of the request")),
        },
        _ => Err(Fault::NotRpc("it has neither a result nor an error, or both")),
    }
}

fn same_id(found: &str, asked: Option<&str>) -> bool {
    asked.is_some_and(|asked| {
        found == asked || matches!((json::decode(found), json::decode(asked)), (Some(a), Some(b)) if a == b)
    })
}

/// The error object of HTTP+JSON, if the body is one.
fn http_error(scanner: &mut Scanner<'_>) -> Result<Option<Span>, Fault> {
    expect(scanner, "the body", Kind::Object, "an object")?;
    let mut error = None;
    scanner.members(|scanner, name| {
        let value = scanner.skip()?;
        if &*name.decode() == "error" && value.kind == Kind::Object {
            error = Some(value.span);
        }
        Ok::<_, Fault>(())
    })?;
    Ok(error)
}

/// What a task names.
fn task<'a>(scanner: &mut Scanner<'a>) -> Result<Ids<'a>, Fault> {
    let (ids, _) = thing(scanner, "the task", &["id", "contextId", "status"])?;
    if ids.task.is_none() { Err(Fault::Missing("the task's id")) } else { Ok(ids) }
}

/// What a message or an update names.
fn named<'a>(scanner: &mut Scanner<'a>, field: &'static str) -> Result<Ids<'a>, Fault> {
    Ok(thing(scanner, field, UPDATE)?.0)
}

const UPDATE: &[&str] = &["taskId", "contextId", "status"];

/// What a task or an update names, and whether its state is one in which nothing goes on. `known` has
/// the names of the task's id, the conversation's id and the status.
fn thing<'a>(
    scanner: &mut Scanner<'a>,
    what: &'static str,
    known: &'static [&'static str],
) -> Result<(Ids<'a>, bool), Fault> {
    expect(scanner, what, Kind::Object, "an object")?;
    let (mut ids, mut rests) = (Ids::default(), false);
    fields(scanner, known, |scanner, field| {
        match field {
            "status" => rests = status_rests(scanner)?,
            "contextId" => ids.context = id(scanner, field)?,
            _ => ids.task = id(scanner, field)?,
        }
        Ok(())
    })?;
    Ok((ids, rests))
}

/// Whether a status is neither submitted nor working. ProtoJSON has states as names or numbers.
fn status_rests(scanner: &mut Scanner<'_>) -> Result<bool, Fault> {
    expect(scanner, "status", Kind::Object, "an object")?;
    let mut rests = false;
    fields(scanner, &["state"], |scanner, _| {
        let state = scanner.skip()?.span.of(scanner.text());
        rests = !matches!(state, "\"TASK_STATE_SUBMITTED\"" | "\"TASK_STATE_WORKING\"" | "1" | "2");
        Ok(())
    })?;
    Ok(rests)
}

impl<'a> Answer<'a> {
    fn read_sent(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["task", "message"], |scanner, field| {
            self.ids.push(if field == "task" { task(scanner)? } else { named(scanner, field)? });
            Ok(())
        })?;
        if self.ids.len() == 1 { Ok(()) } else { Err(Fault::Missing("exactly one of task and message")) }
    }

    fn read_list(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tasks", "totalSize"], |scanner, field| {
            if field == "totalSize" {
                self.total = Some(scanner.skip()?.span);
                return Ok(());
            }
            expect(scanner, field, Kind::Array, "a list")?;
            let start = scanner.pos();
            scanner.elements(|scanner| {
                if self.ids.len() == TASKS_MAX {
                    return Err(Fault::Kind { field, expected: "a list of at most 1000 tasks" });
                }
                scanner.kind()?;
                let start = scanner.pos();
                self.ids.push(task(scanner)?);
                self.tasks.push(Span { start, end: scanner.pos() });
                Ok(())
            })?;
            self.array = Some(Span { start, end: scanner.pos() });
            Ok(())
        })
    }

    /// The body of a list with only those tasks for which `keep` holds; None where all stay. What
    /// the peer counted of all tasks gives way to how many are left on this page.
    pub fn keep_tasks(&self, keep: impl Fn(&Ids<'_>) -> bool) -> Option<String> {
        let kept: Vec<&str> = std::iter::zip(&self.ids, &self.tasks)
            .filter(|(ids, _)| keep(ids))
            .map(|(_, span)| span.of(self.text))
            .collect();
        let array = self.array.filter(|_| kept.len() < self.tasks.len())?;
        let mut changes = vec![(array, format!("[{}]", kept.join(",")))];
        changes.extend(self.total.map(|total| (total, kept.len().to_string())));
        changes.sort_by_key(|(span, _)| span.start);
        Some(spliced(self.text, &changes))
    }
}

/// The text with some spans replaced; they are in order and apart.
pub(super) fn spliced(text: &str, changes: &[(Span, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (span, new) in changes {
        out.push_str(text.get(from..span.start).unwrap_or_default());
        out.push_str(new);
        from = span.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

impl<'a> Event<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "the event", Kind::Object, "an object")?;
        let mut count = 0;
        let known = &["task", "message", "statusUpdate", "artifactUpdate"];
        fields(scanner, known, |scanner, field| {
            count += 1;
            match field {
                "artifactUpdate" => return self.read_artifact_update(scanner),
                "task" => {
                    (self.ids, self.pauses) = thing(scanner, field, &["id", "contextId", "status"])?;
                    if self.ids.task.is_none() {
                        return Err(Fault::Missing("the task's id"));
                    }
                }
                "statusUpdate" => (self.ids, self.pauses) = thing(scanner, field, UPDATE)?,
                _ => (self.ids, self.pauses) = (named(scanner, field)?, true),
            }
            Ok(())
        })?;
        if count == 1 {
            Ok(())
        } else {
            Err(Fault::Missing("exactly one of task, message, statusUpdate and artifactUpdate"))
        }
    }

    fn read_artifact_update(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "artifactUpdate", Kind::Object, "an object")?;
        let mut piece = Artifact::default();
        let known = &["taskId", "contextId", "artifact", "append", "lastChunk"];
        fields(scanner, known, |scanner, field| {
            match field {
                "taskId" => self.ids.task = id(scanner, field)?,
                "contextId" => self.ids.context = id(scanner, field)?,
                "append" => piece.append = truth(scanner, field)?,
                "lastChunk" => piece.last = truth(scanner, field)?,
                _ => piece.read(scanner)?,
            }
            Ok(())
        })?;
        self.artifact = Some(piece);
        Ok(())
    }

    /// The data with other texts in its artifact's parts, one for each.
    pub fn with_texts(&self, texts: &[String]) -> String {
        let spans = self.artifact.as_ref().map(|a| a.texts.as_slice()).unwrap_or_default();
        let changes: Vec<(Span, String)> =
            std::iter::zip(spans, texts).map(|(span, text)| (*span, json::quote(text))).collect();
        spliced(self.text, &changes)
    }
}

impl<'a> Artifact<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "artifact", Kind::Object, "an object")?;
        fields(scanner, &["artifactId", "parts"], |scanner, field| {
            if field == "artifactId" {
                self.id = text(scanner, field)?;
                return Ok(());
            }
            expect(scanner, field, Kind::Array, "a list")?;
            scanner.elements(|scanner| {
                expect(scanner, "a part", Kind::Object, "an object")?;
                fields(scanner, &["text"], |scanner, field| {
                    expect(scanner, field, Kind::String, "a text")?;
                    self.texts.push(scanner.string()?.span());
                    Ok(())
                })
            })
        })
    }
}

/// An event of its own, as data of a stream, that continues an artifact with a text. `id` is that of the
/// JSON-RPC request.
pub fn continuation(binding: Binding, id: Option<&str>, ids: &Ids<'_>, artifact: &str, text: &str) -> String {
    let or_empty = |id: &Option<Cow<'_, str>>| json::quote(id.as_deref().unwrap_or_default());
    let update = format!(
        "{{\"artifactUpdate\":{{\"taskId\":{},\"contextId\":{},\"artifact\":{{\"artifactId\":{},\"parts\":[{{\"text\":{}}}]}},\"append\":true}}}}",
        or_empty(&ids.task),
        or_empty(&ids.context),
        json::quote(artifact),
        json::quote(text),
    );
    match binding {
        Binding::HttpJson => update,
        Binding::JsonRpc => {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{update}}}", id.unwrap_or("null"))
        }
    }
}
