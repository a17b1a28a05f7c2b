//! What a request asks, whichever binding it came in.

use std::borrow::Cow;

use super::{
    Binding, Fault, Method,
    fields::{expect, fields, id, object, text},
};
use crate::json::{Kind, Scanner, Span};

/// A request, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// How it is written.
    pub binding: Binding,
    /// What it asks.
    pub method: Method,
    /// The body; empty where there is none.
    pub text: &'a str,
    /// The JSON-RPC id as it stands there; none in HTTP+JSON.
    pub id: Option<&'a str>,
    /// The operation's own message (`SendMessageRequest` and so on) within the body.
    pub params: Option<Span>,
    /// Which of several agents behind one address is meant.
    pub tenant: Option<Cow<'a, str>>,
    /// The task that it is about, or that its message continues.
    pub task: Option<Cow<'a, str>>,
    /// The conversation.
    pub context: Option<Cow<'a, str>>,
    /// Further tasks that its message names (`referenceTaskIds`).
    pub references: Vec<Cow<'a, str>>,
    /// The id of a notification's configuration.
    pub push: Option<Cow<'a, str>>,
    /// Where it wants notifications to go.
    pub push_urls: Vec<Cow<'a, str>>,
    /// Whether files are in its message, or pointed to.
    pub media: bool,
    /// The message and its metadata within the body: what the peer reads as content.
    pub content: Vec<Span>,
    /// HTTP+JSON: the query as it goes on, without the version.
    pub query: String,
    has_message: bool,
}

/// Most references and notification URLs of one request.
const LIST_MAX: usize = 64;

impl<'a> Request<'a> {
    pub(super) fn new(binding: Binding, method: Method, text: &'a str) -> Self {
        Self {
            binding,
            method,
            text,
            id: None,
            params: None,
            tenant: None,
            task: None,
            context: None,
            references: Vec::new(),
            push: None,
            push_urls: Vec::new(),
            media: false,
            content: Vec::new(),
            query: String::new(),
            has_message: false,
        }
    }

    /// Reads the operation's own message; the scanner stands before it.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "the message of the operation", Kind::Object, "an object")?;
        scanner.kind()?;
        let start = scanner.pos();
        match self.method {
            Method::SendMessage | Method::SendStreamingMessage => self.read_send(scanner)?,
            Method::GetTask | Method::CancelTask | Method::SubscribeToTask => self.read_task(scanner)?,
            Method::ListTasks => self.read_list(scanner)?,
            Method::CreateTaskPushNotificationConfig => self.read_new_push(scanner)?,
            Method::GetTaskPushNotificationConfig
            | Method::DeleteTaskPushNotificationConfig
            | Method::ListTaskPushNotificationConfigs => self.read_push(scanner)?,
            Method::GetExtendedAgentCard => self.read_tenant_only(scanner)?,
        }
        self.params = Some(Span { start, end: scanner.pos() });
        Ok(())
    }

    /// Whether everything is there that the operation needs.
    pub(super) fn complete(self) -> Result<Self, Fault> {
        let task = |field| if self.task.is_none() { Err(Fault::Missing(field)) } else { Ok(()) };
        match self.method {
            Method::SendMessage | Method::SendStreamingMessage if !self.has_message => {
                return Err(Fault::Missing("message"));
            }
            Method::GetTask | Method::CancelTask | Method::SubscribeToTask => task("id")?,
            Method::CreateTaskPushNotificationConfig => {
                task("taskId")?;
                if self.push_urls.is_empty() {
                    return Err(Fault::Missing("url"));
                }
            }
            Method::ListTaskPushNotificationConfigs => task("taskId")?,
            Method::GetTaskPushNotificationConfig | Method::DeleteTaskPushNotificationConfig => {
                task("taskId")?;
                if self.push.is_none() {
                    return Err(Fault::Missing("id"));
                }
            }
            _ => {}
        }
        Ok(self)
    }

    fn read_send(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tenant", "message", "configuration", "metadata"], |scanner, field| match field {
            "tenant" => set(&mut self.tenant, id(scanner, field)?, field),
            "message" => self.read_message(scanner),
            "configuration" => {
                expect(scanner, field, Kind::Object, "an object")?;
                // The shorter name is that of drafts of 1.0, which agents still read.
                let known = &["taskPushNotificationConfig", "pushNotificationConfig"];
                fields(scanner, known, |scanner, _| self.read_new_push_of(scanner))
            }
            _ => {
                self.content.push(object(scanner, field)?);
                Ok(())
            }
        })
    }

    fn read_message(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "message", Kind::Object, "an object")?;
        let start = scanner.pos();
        let mut parts = None;
        let known = &["messageId", "contextId", "taskId", "referenceTaskIds", "parts"];
        fields(scanner, known, |scanner, field| {
            match field {
                "messageId" => drop(id(scanner, field)?),
                "contextId" => self.context = id(scanner, field)?,
                "taskId" => self.task = id(scanner, field)?,
                "parts" => parts = Some(self.read_parts(scanner)?),
                _ => self.read_references(scanner)?,
            }
            Ok(())
        })?;
        if parts.is_none() {
            return Err(Fault::Missing("message.parts"));
        }
        self.content.push(Span { start, end: scanner.pos() });
        self.has_message = true;
        Ok(())
    }

    fn read_references(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        const FIELD: &str = "referenceTaskIds";
        expect(scanner, FIELD, Kind::Array, "a list")?;
        scanner.elements(|scanner| {
            if self.references.len() == LIST_MAX {
                return Err(Fault::Kind { field: FIELD, expected: "a list of at most 64 ids" });
            }
            self.references.extend(id(scanner, FIELD)?);
            Ok(())
        })
    }

    fn read_parts(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "message.parts", Kind::Array, "a list")?;
        scanner.elements(|scanner| {
            expect(scanner, "a part", Kind::Object, "an object")?;
            fields(scanner, &["raw", "url"], |scanner, _| {
                self.media = true;
                scanner.skip().map(drop).map_err(Fault::from)
            })
        })
    }

    fn read_task(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tenant", "id", "metadata"], |scanner, field| match field {
            "tenant" => set(&mut self.tenant, id(scanner, field)?, field),
            "id" => set(&mut self.task, id(scanner, field)?, field),
            _ => {
                self.content.push(object(scanner, field)?);
                Ok(())
            }
        })
    }

    fn read_list(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tenant", "contextId"], |scanner, field| match field {
            "tenant" => set(&mut self.tenant, id(scanner, field)?, field),
            _ => set(&mut self.context, id(scanner, field)?, field),
        })
    }

    fn read_push(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tenant", "taskId", "id"], |scanner, field| match field {
            "tenant" => set(&mut self.tenant, id(scanner, field)?, field),
            "taskId" => set(&mut self.task, id(scanner, field)?, field),
            _ => set(&mut self.push, id(scanner, field)?, field),
        })
    }

    fn read_new_push(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        let known = &["tenant", "taskId", "id", "url", "config", "pushNotificationConfig"];
        fields(scanner, known, |scanner, field| match field {
            "tenant" => set(&mut self.tenant, id(scanner, field)?, field),
            "taskId" => set(&mut self.task, id(scanner, field)?, field),
            "id" => set(&mut self.push, id(scanner, field)?, field),
            "url" => self.read_push_url(scanner),
            // Where drafts of 1.0 had it.
            _ => self.read_new_push_of(scanner),
        })
    }

    fn read_new_push_of(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        expect(scanner, "the notification's configuration", Kind::Object, "an object")?;
        fields(scanner, &["url"], |scanner, _| self.read_push_url(scanner))
    }

    fn read_push_url(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        self.push_urls.push(text(scanner, "url")?);
        Ok(())
    }

    fn read_tenant_only(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        fields(scanner, &["tenant"], |scanner, field| set(&mut self.tenant, id(scanner, field)?, field))
    }
}

/// Takes what the body says, which must not be other than what the path said.
fn set<'a>(
    slot: &mut Option<Cow<'a, str>>,
    found: Option<Cow<'a, str>>,
    field: &'static str,
) -> Result<(), Fault> {
    match (&slot, found) {
        (Some(before), Some(found)) if *before != found => Err(Fault::Disagree(field)),
        (None, Some(found)) => {
            *slot = Some(found);
            Ok(())
        }
        _ => Ok(()),
    }
}
