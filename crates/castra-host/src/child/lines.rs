//! Standard output as bounded lines.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, process::ChildStdout, sync::watch, time::timeout};

use super::{ChildError, Exit, exited, supervise::Order};

/// After the end of a child its pipe is read for this long at most: a process that escaped the group
/// may hold the other end open for ever.
const REST_TIME_MAX: Duration = Duration::from_millis(200);

/// How much is read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// The lines of a child's standard output. Nothing is read ahead of the caller by more than one
/// chunk, so a slow caller slows the child down.
#[derive(Debug)]
pub struct Lines {
    stdout: ChildStdout,
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no line break.
    searched: usize,
    line_bytes_max: usize,
    exit: watch::Receiver<Option<Exit>>,
    orders: watch::Sender<Order>,
    done: bool,
}

impl Lines {
    pub(super) fn new(
        stdout: ChildStdout,
        line_bytes_max: usize,
        exit: watch::Receiver<Option<Exit>>,
        orders: watch::Sender<Order>,
    ) -> Self {
        Self { stdout, buffer: BytesMut::new(), searched: 0, line_bytes_max, exit, orders, done: false }
    }

    /// The next line without its line break (`\n` or `\r\n`); none when the child closed its output
    /// or ended. A last line without a break counts. Safe to cancel.
    ///
    /// A line beyond the limit kills the child and is an error; after an error there are no lines.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ChildError> {
        loop {
            if let Some(line) = self.cut()? {
                return Ok(Some(line));
            }
            if self.done {
                return Ok(self.rest());
            }
            self.done = self.fill().await? == 0;
        }
    }

    /// A line that is already here.
    fn cut(&mut self) -> Result<Option<Bytes>, ChildError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let found = memchr::memchr(b'\n', unsearched).map(|at| self.searched + at);
        let length = found.unwrap_or(self.buffer.len());
        if length > self.line_bytes_max {
            self.orders.send_if_modified(|order| order.raise(Order::Kill));
            self.buffer = BytesMut::new();
            self.searched = 0;
            self.done = true;
            return Err(ChildError::LineTooLong { max: self.line_bytes_max });
        }
        let Some(at) = found else {
            self.searched = length;
            return Ok(None);
        };
        let line = self.buffer.split_to(at);
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(without_return(line)))
    }

    async fn fill(&mut self) -> Result<usize, ChildError> {
        self.buffer.reserve(CHUNK_BYTES);
        tokio::select! {
            biased;
            read = self.stdout.read_buf(&mut self.buffer) => return self.count(read),
            _ = exited(&mut self.exit) => {}
        }
        match timeout(REST_TIME_MAX, self.stdout.read_buf(&mut self.buffer)).await {
            Ok(read) => self.count(read),
            Err(_) => Ok(0),
        }
    }

    fn count(&mut self, read: std::io::Result<usize>) -> Result<usize, ChildError> {
        read.map_err(|e| {
            self.done = true;
            ChildError::Output(Arc::new(e))
        })
    }

    fn rest(&mut self) -> Option<Bytes> {
        let rest = without_return(self.buffer.split());
        self.searched = 0;
        (!rest.is_empty()).then_some(rest)
    }
}

fn without_return(mut line: BytesMut) -> Bytes {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    line.freeze()
}
