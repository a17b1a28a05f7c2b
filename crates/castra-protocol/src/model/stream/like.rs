//! Events that are like the one before.
//!
//! Most events of a stream differ from the last in one string only. Where what stands around that string is
//! the same, byte for byte, and one string stands between, the event says the same with another text, and
//! need not be read again: what was JSON around one string is JSON around any other.

use super::part::{Channel, Part};
use crate::json::{Scanner, Span};

/// An event that carried more of one text and nothing else.
#[derive(Debug, Default)]
pub(super) struct Likeness {
    event: String,
    before: String,
    after: String,
    channel: Option<Channel>,
}

impl Likeness {
    /// What an event says, if it is like the one before.
    pub(super) fn read(&self, event: &str, data: &str) -> Option<Part> {
        let channel = self.channel?;
        let text = data.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let mut scanner = Scanner::of(text, 0);
        scanner.string().ok()?;
        if scanner.pos() != text.len() || !text.starts_with('"') || event != self.event {
            return None;
        }
        let start = self.before.len();
        Some(Part::Text { channel, text: Span { start, end: start + text.len() }, item: None })
    }

    /// Remembers an event, if it is one that others may be like.
    pub(super) fn learn(&mut self, event: &str, data: &str, parts: &[Part]) {
        let ([Part::Text { channel, text, item: None }]
        | [Part::Text { channel, text, item: None }, Part::Opening { .. }]) = parts
        else {
            return;
        };
        let (Some(before), Some(after)) = (data.get(..text.start), data.get(text.end..)) else { return };
        for (kept, seen) in [(&mut self.event, event), (&mut self.before, before), (&mut self.after, after)] {
            kept.clear();
            kept.push_str(seen);
        }
        self.channel = Some(*channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_string_is_alike() {
        let data = |text: &str| format!("{{\"a\":{text},\"b\":[]}}");
        let first = data("\"x\"");
        let channel = Channel { at: 0, sub: 0, kind: super::super::part::TextKind::Content };
        let text = Span { start: 5, end: 8 };
        let mut like = Likeness::default();
        assert!(like.read("message", &first).is_none(), "nothing was learnt");
        like.learn("message", &first, &[Part::Text { channel, text, item: None }]);
        let read = |text: &str| match like.read("message", &data(text)) {
            Some(Part::Text { text: span, .. }) => Some(span.of(&data(text)).to_owned()),
            _ => None,
        };
        assert_eq!(read("\"other \\\" text\"").as_deref(), Some("\"other \\\" text\""));
        for other in ["\"x\",\"c\":\"y\"", "1", "", " \"x\"", "\"x\" ", "\"\\ud800\"", "\"x", "{\"y\":\"x\"}"]
        {
            assert_eq!(read(other), None, "{other}");
        }
        assert!(like.read("other", &first).is_none());
        assert!(like.read("message", "{\"a\":\"x\"").is_none());
    }
}
