//! Standard error into the log: bounded lines, bounded rate, no control characters, and the secrets
//! that the child was given blanked out.

use std::time::Duration;

use castra_core::ServerName;
use tokio::{
    io::AsyncReadExt,
    process::ChildStderr,
    sync::watch,
    time::{Instant, timeout},
};

use super::{Exit, exited};
use crate::Secret;

/// A log line of more bytes than this is cut.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Lines that are logged in one [`PERIOD`]; the others are counted.
const LINES_PER_PERIOD: u32 = 100;
const PERIOD: Duration = Duration::from_secs(10);
/// Shorter secrets are not searched for: they would blank ordinary words.
const SECRET_BYTES_MIN: usize = 6;
/// As for standard output, see `lines`.
const REST_TIME_MAX: Duration = Duration::from_millis(200);

pub(super) async fn log(
    mut stderr: ChildStderr,
    server: ServerName,
    pid: u32,
    secrets: Vec<Secret>,
    mut exit: watch::Receiver<Option<Exit>>,
) {
    let mut splitter = Splitter::default();
    let mut rate = Rate { since: Instant::now(), lines: 0, suppressed: 0 };
    let mut chunk = vec![0; 4 << 10];
    loop {
        let read = tokio::select! {
            biased;
            read = stderr.read(&mut chunk) => read,
            _ = exited(&mut exit) => match timeout(REST_TIME_MAX, stderr.read(&mut chunk)).await {
                Ok(read) => read,
                Err(_) => Ok(0),
            },
        };
        let bytes = chunk.get(..read.unwrap_or(0)).unwrap_or_default();
        let end = bytes.is_empty();
        splitter.feed(bytes, end, |line| {
            if let Some(suppressed) = rate.admit(Instant::now()) {
                if suppressed > 0 {
                    tracing::info!(%server, pid, suppressed, "lines of standard error were left out");
                }
                tracing::info!(%server, pid, stderr = printable(line, &secrets), "child");
            }
        });
        if end {
            return;
        }
    }
}

/// Cuts a byte stream into lines of at most [`LINE_BYTES_MAX`]; what is beyond is dropped.
#[derive(Default)]
struct Splitter {
    line: Vec<u8>,
}

impl Splitter {
    fn feed(&mut self, bytes: &[u8], end: bool, mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if text.len() < piece.len() {
                each(&self.line);
                self.line.clear();
            }
        }
        if end && !self.line.is_empty() {
            each(&self.line);
        }
    }
}

struct Rate {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Rate {
    /// Whether a line may pass now, and how many did not since the last one that did.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= PERIOD {
            self.since = now;
            self.lines = 0;
        }
        if self.lines == LINES_PER_PERIOD {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn printable(line: &[u8], secrets: &[Secret]) -> String {
    let mut text = String::from_utf8_lossy(line).into_owned();
    for secret in secrets.iter().filter(|s| s.expose().len() >= SECRET_BYTES_MIN) {
        if text.contains(secret.expose()) {
            text = text.replace(secret.expose(), "[secret]");
        }
    }
    // Escape sequences would otherwise act on the terminal of whoever reads the log.
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, false, |l| lines.push(String::from_utf8_lossy(l).into_owned()));
        }
        splitter.feed(b"", true, |l| lines.push(String::from_utf8_lossy(l).into_owned()));
        lines
    }

    #[test]
    fn lines_are_cut_and_bounded() {
        assert_eq!(split(&[b"a\nb", b"c\n", b"d"]), ["a", "bc", "d"]);
        let long = vec![b'x'; 3 * LINE_BYTES_MAX];
        let lines = split(&[&long, b"\nnext\n"]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 4]);
    }

    #[test]
    fn secrets_and_control_characters_do_not_reach_the_log() {
        let secrets = [Secret::new("s3cret-token"), Secret::new("on")];
        assert_eq!(
            printable(b"\x1b[31mtoken s3cret-token is on\x07", &secrets),
            "\u{fffd}[31mtoken [secret] is on\u{fffd}"
        );
    }

    #[test]
    fn a_flood_is_counted_instead_of_logged() {
        let start = Instant::now();
        let mut rate = Rate { since: start, lines: 0, suppressed: 0 };
        let passed = (0..1000).filter(|_| rate.admit(start).is_some()).count();
        assert_eq!(passed, LINES_PER_PERIOD as usize);
        assert_eq!(rate.admit(start + PERIOD), Some(900));
        assert_eq!(rate.admit(start + PERIOD), Some(0));
    }
}
