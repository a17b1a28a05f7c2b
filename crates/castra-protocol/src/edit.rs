//! Changing a JSON text without writing it again: every byte that need not change stays.
//!
//! Edits name ranges of the original text. Members that are new go to the front of their object, where
//! no trailing comma has to be looked for.

use std::ops::Range;

use crate::json::{JsonError, Scanner, Span, quote};

/// What stands in place of a range of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

/// Members of one object to set or to remove, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    set: Vec<(String, String)>,
    remove: Vec<String>,
    /// Members of which it is known that they are not there yet.
    add: Vec<(String, String)>,
}

impl Changes {
    /// Whether there is anything to set.
    pub(crate) fn sets(&self) -> bool {
        !self.set.is_empty()
    }

    /// Whether no member would come of it.
    pub(crate) fn adds_nothing(&self) -> bool {
        self.set.is_empty() && self.add.is_empty()
    }

    pub(crate) fn set(&mut self, key: &str, raw: &str) {
        self.remove.retain(|k| k != key);
        match self.set.iter_mut().find(|(k, _)| k == key) {
            Some((_, value)) => *value = raw.to_string(),
            None => self.set.push((key.to_string(), raw.to_string())),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.set.retain(|(k, _)| k != key);
        self.remove.push(key.to_string());
    }

    pub(crate) fn add(&mut self, key: &str, raw: String) {
        self.add.retain(|(k, _)| k != key);
        self.add.push((key.to_string(), raw));
    }

    pub(crate) fn object(&self) -> String {
        let members: Vec<_> = self.set.iter().chain(&self.add).map(member).collect();
        format!("{{{}}}", members.join(","))
    }

    /// The edits that make these changes to the object at `object`.
    pub(crate) fn edit(&self, text: &str, object: Span, edits: &mut Vec<Edit>) -> Result<(), JsonError> {
        let scanned = !(self.set.is_empty() && self.remove.is_empty());
        let mut new: Vec<_> = self.set.iter().collect();
        let mut members = Vec::new();
        if scanned {
            Scanner::at(text, object).members(|s, key| {
                let value = s.skip()?.span;
                let name = key.decode();
                if let Some(at) = new.iter().position(|(k, _)| *k == name) {
                    let (_, raw) = new.remove(at);
                    if value.of(text) != raw {
                        edits.push(Edit { range: value.start..value.end, text: raw.clone() });
                    }
                }
                let kept = !self.remove.iter().any(|k| *k == name);
                members.push((Span { start: key.span().start, end: value.end }, kept));
                Ok::<_, JsonError>(())
            })?;
            cut(&members, edits);
        }
        new.extend(&self.add);
        if !new.is_empty() {
            let mut insert = new.iter().map(|m| member(m)).collect::<Vec<_>>().join(",");
            let inside = text.get(object.start + 1..object.end).unwrap_or_default();
            let others = if scanned { members.iter().any(|(_, kept)| *kept) } else { !is_closed(inside) };
            if others {
                insert.push(',');
            }
            let at = object.start + 1;
            edits.push(Edit { range: at..at, text: insert });
        }
        Ok(())
    }
}

/// Whether nothing but the end of the object follows.
fn is_closed(inside: &str) -> bool {
    inside.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('}')
}

fn member((key, raw): &(String, String)) -> String {
    format!("{}:{raw}", quote(key))
}

/// Cuts the parts that are not kept out of a comma separated list, each with one of its commas.
pub(crate) fn cut(parts: &[(Span, bool)], edits: &mut Vec<Edit>) {
    let last_kept = parts.iter().rposition(|(_, kept)| *kept);
    for (i, pair) in parts.windows(2).enumerate() {
        let [(part, kept), (next, _)] = pair else { continue };
        if !kept && last_kept.is_some_and(|last| i < last) {
            edits.push(Edit { range: part.start..next.start, text: String::new() });
        }
    }
    let tail = match last_kept {
        Some(last) => parts.get(last).map(|(part, _)| part.end),
        None => parts.first().map(|(part, _)| part.start),
    };
    if let (Some(start), Some((last, false))) = (tail, parts.last()) {
        edits.push(Edit { range: start..last.end, text: String::new() });
    }
}

/// Makes edits that do not overlap.
pub(crate) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = String::with_capacity(text.len() + added);
    let mut from = 0;
    for edit in &edits {
        out.push_str(text.get(from..edit.range.start).unwrap_or_default());
        out.push_str(&edit.text);
        from = edit.range.end.max(from);
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}
