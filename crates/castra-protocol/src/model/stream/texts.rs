//! The texts of a stream: a scanner for each, and what of them is kept for the record.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use castra_core::{Digest, TextScanner};

use super::{
    StreamError,
    part::{Channel, TextKind},
};

/// More texts than this are no answer.
const TEXTS_MAX: usize = 1024;

/// Makes a scanner per text.
pub type Scanners<S> = Box<dyn FnMut() -> S + Send>;

/// The texts of a stream by their channels.
pub(super) struct Texts<S> {
    scanners: Scanners<S>,
    /// False when the stream passes without inspection.
    inspect: bool,
    open: Vec<Text<S>>,
    /// Places that are complete: no text begins there any more.
    complete: Vec<u32>,
    /// Choices that have said something.
    spoken: Vec<u32>,
    findings: Vec<Arc<str>>,
    said: Said,
    /// Bytes of text that came.
    bytes: u64,
}

struct Text<S> {
    channel: Channel,
    scanner: Option<S>,
    ended: bool,
    /// Raw id of the output item that the text is a part of (responses).
    item: String,
    /// An event of the text as it left, around the text's place.
    around: Option<(String, String)>,
}

/// What left of a text when it ended, with what is needed to say it.
pub(super) struct Rest {
    pub(super) channel: Channel,
    pub(super) text: String,
    pub(super) item: String,
    pub(super) around: Option<(String, String)>,
}

impl<S: TextScanner> Texts<S> {
    pub(super) fn new(scanners: Scanners<S>, inspect: bool, kept_max: usize) -> Self {
        Self {
            scanners,
            inspect,
            open: Vec::new(),
            complete: Vec::new(),
            spoken: Vec::new(),
            findings: Vec::new(),
            said: Said { kept_max, ..Said::default() },
            bytes: 0,
        }
    }

    /// Takes more of a text and appends to `out` what may leave of it.
    pub(super) fn push(
        &mut self,
        channel: Channel,
        item: &str,
        text: &str,
        out: &mut String,
    ) -> Result<(), StreamError> {
        self.bytes += text.len() as u64;
        let speaks = channel.kind == TextKind::Content && !text.is_empty();
        if speaks && !self.spoken.contains(&channel.at) {
            self.spoken.push(channel.at);
        }
        let before = out.len();
        let position = match self.open.iter().position(|open| open.channel == channel) {
            Some(position) => position,
            None if text.is_empty() => return Ok(()),
            None => self.begin(channel, item)?,
        };
        let Some(open) = self.open.get_mut(position) else { return Ok(()) };
        if open.ended {
            return if text.is_empty() { Ok(()) } else { Err(StreamError::TextAfterEnd) };
        }
        match &mut open.scanner {
            Some(scanner) => scanner.push(text, out),
            None => out.push_str(text),
        }
        self.said.add(channel, out.get(before..).unwrap_or_default());
        Ok(())
    }

    fn begin(&mut self, channel: Channel, item: &str) -> Result<usize, StreamError> {
        if self.complete.contains(&channel.at) {
            return Err(StreamError::TextAfterEnd);
        }
        if self.open.len() == TEXTS_MAX {
            return Err(StreamError::TooMany("texts"));
        }
        let scanner = self.inspect.then(|| (self.scanners)());
        self.open.push(Text { channel, scanner, ended: false, item: item.into(), around: None });
        Ok(self.open.len() - 1)
    }

    /// Whether a choice has content.
    pub(super) fn has_content(&self, at: u32) -> bool {
        self.spoken.contains(&at)
    }

    /// Keeps an event of a text that only its form knows, to say the rest of it with.
    pub(super) fn keep_around(&mut self, channel: Channel, around: (String, String)) {
        if let Some(open) = self.open.iter_mut().find(|open| open.channel == channel) {
            open.around = Some(around);
        }
    }

    /// No text may begin at a place any more.
    pub(super) fn complete(&mut self, at: u32) {
        if !self.complete.contains(&at) {
            self.complete.push(at);
        }
    }

    /// Ends the texts at a place (None: all) and gives what was held back of them.
    pub(super) fn end(&mut self, at: Option<u32>, sub: Option<u32>) -> Vec<Rest> {
        let mut rests = Vec::new();
        for open in &mut self.open {
            let channel = open.channel;
            let meant = at.is_none_or(|at| at == channel.at) && sub.is_none_or(|sub| sub == channel.sub);
            if open.ended || !meant {
                continue;
            }
            open.ended = true;
            let mut text = String::new();
            if let Some(mut scanner) = open.scanner.take() {
                scanner.finish(&mut text);
                note_findings(&mut self.findings, scanner.findings());
            }
            if !text.is_empty() {
                self.said.add(channel, &text);
                let (item, around) = (std::mem::take(&mut open.item), open.around.take());
                rests.push(Rest { channel, text, item, around });
            }
        }
        rests
    }

    /// Forgets the texts that have ended, so that others may begin in their channels.
    pub(super) fn forget_ended(&mut self) {
        self.open.retain(|open| !open.ended);
    }

    /// Inspects a text that is whole; None if it may leave as it is.
    pub(super) fn whole(&mut self, text: &str) -> Option<String> {
        if !self.inspect {
            return None;
        }
        let mut scanner = (self.scanners)();
        let mut out = String::with_capacity(text.len());
        scanner.push(text, &mut out);
        scanner.finish(&mut out);
        note_findings(&mut self.findings, scanner.findings());
        (out != text).then_some(out)
    }

    /// Text of the gate itself, which leaves in a place of its own.
    pub(super) fn add_note(&mut self, text: &str) {
        self.said.note(text);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was found and what was said, at the end.
    pub(super) fn conclude(&mut self) -> (Vec<Arc<str>>, SaidText) {
        for scanner in self.open.iter().filter_map(|open| open.scanner.as_ref()) {
            note_findings(&mut self.findings, scanner.findings());
        }
        (std::mem::take(&mut self.findings), std::mem::take(&mut self.said).conclude())
    }
}

fn note_findings(all: &mut Vec<Arc<str>>, some: &[Arc<str>]) {
    for kind in some {
        if !all.contains(kind) {
            all.push(kind.clone());
        }
    }
}

/// All text that left, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaidText {
    /// The text. Where another of the answer's texts begins or goes on, a line begins.
    Whole(String),
    /// It is longer than what is kept.
    Digest {
        /// SHA-256 of the text.
        sha256: Digest,
        /// Its length.
        bytes: u64,
    },
}

/// Collects what was said. Text beyond the limit is hashed in blocks.
#[derive(Default)]
struct Said {
    kept_max: usize,
    kept: String,
    last: Option<Channel>,
    beyond: Option<(Context, u64)>,
}

impl Said {
    fn add(&mut self, channel: Channel, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.last.is_some_and(|last| last != channel) {
            self.kept.push('\n');
        }
        self.last = Some(channel);
        self.kept.push_str(text);
        if self.kept.len() > self.kept_max {
            let (context, bytes) = self.beyond.get_or_insert_with(|| (Context::new(&SHA256), 0));
            context.update(self.kept.as_bytes());
            *bytes += self.kept.len() as u64;
            self.kept.clear();
        }
    }

    fn note(&mut self, text: &str) {
        let note = Channel { at: u32::MAX, sub: u32::MAX, kind: TextKind::Content };
        self.add(note, text.trim_start());
        // The next note is another.
        self.last = Some(Channel { sub: 0, ..note });
    }

    fn conclude(self) -> SaidText {
        let Some((mut context, bytes)) = self.beyond else { return SaidText::Whole(self.kept) };
        context.update(self.kept.as_bytes());
        let mut sha256 = [0; 32];
        for (slot, byte) in sha256.iter_mut().zip(context.finish().as_ref()) {
            *slot = *byte;
        }
        SaidText::Digest { sha256: Digest(sha256), bytes: bytes + self.kept.len() as u64 }
    }
}
