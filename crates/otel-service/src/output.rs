//! Standard output and standard error. A separate thread writes each of them from a bounded queue, so a stalled
//! reader never blocks a thread that logs. Lines that do not fit into the queue are dropped and counted; when the
//! reader continues, one line reports their number.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Maximum size of the lines that wait to be written, in bytes, including the memory that manages them.
const CAPACITY: usize = 1 << 20;

/// Maximum size of a write that pipes do not interleave with the writes of other processes, in bytes.
const ATOMIC_WRITE: usize = 4096;

/// Interval between attempts to write to a stream in non-blocking mode whose reader stalls.
const NON_BLOCKING_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) static STDOUT: Output = Output::new(Stream::Stdout);
pub(crate) static STDERR: Output = Output::new(Stream::Stderr);

/// Writes text, which should end with a line feed, to standard output, in order with the log and without blocking.
///
/// A separate thread writes the text. If the reader of standard output stalls, up to 1 MiB waits in memory; further
/// text is dropped, and one line reports the number of its lines when the reader continues. Call [`flush_output`]
/// before the process ends.
pub fn print(text: impl Into<String>) {
    STDOUT.write(text.into());
}

/// Like [`print()`], for standard error.
pub fn print_error(text: impl Into<String>) {
    STDERR.write(text.into());
}

/// Waits until the log and all text of [`print()`] and [`print_error`] are written, up to `timeout` for each
/// stream. Returns whether everything was written.
///
/// [`Telemetry::shutdown`](crate::Telemetry::shutdown) does so, too. Call this function after text that is printed
/// later, and before [`std::process::exit`].
pub fn flush_output(timeout: Duration) -> bool {
    let written = STDOUT.flush(timeout);
    STDERR.flush(timeout) && written
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Stdout,
    Stderr,
}

/// Formats the line that reports dropped lines.
type Report = Box<dyn Fn(u64) -> String + Send>;

/// A stream with its queue.
pub(crate) struct Output {
    stream: Stream,
    queue: Mutex<Queue>,
    /// Notified when a line is added and when the queue has been written.
    changed: Condvar,
}

struct Queue {
    lines: VecDeque<String>,
    /// Size of `lines` in memory, in bytes.
    size: usize,
    /// Lines dropped since the queue became full. Further lines are also dropped until it is half empty.
    dropped: u64,
    /// All lines dropped since the process started.
    dropped_in_total: u64,
    /// Whether the thread is writing lines that it has taken from the queue.
    writing: bool,
    /// Whether the thread runs.
    started: bool,
    report: Option<Report>,
}

impl Output {
    const fn new(stream: Stream) -> Self {
        let queue = Queue {
            lines: VecDeque::new(),
            size: 0,
            dropped: 0,
            dropped_in_total: 0,
            writing: false,
            started: false,
            report: None,
        };
        Self {
            stream,
            queue: Mutex::new(queue),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        match self.stream {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Sets the format of the line that reports dropped lines.
    pub(crate) fn report_with(&self, report: impl Fn(u64) -> String + Send + 'static) {
        self.lock().report = Some(Box::new(report));
    }

    /// Adds one or more lines to the queue, or drops them if the queue is full.
    pub(crate) fn write(&'static self, lines: String) {
        let mut queue = self.lock();
        queue.add(lines);
        if !queue.started {
            let thread = thread::Builder::new().name("log-output".to_owned());
            // Without a thread, the lines wait for the next attempt to start it.
            queue.started = thread.spawn(|| self.run()).is_ok();
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits until the queue is written, up to `timeout`. Returns whether it was written.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let waiting = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |queue| !queue.is_written());
        let (_queue, result) = waiting.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// Returns the number of lines dropped since the process started.
    pub(crate) fn dropped_in_total(&self) -> u64 {
        self.lock().dropped_in_total
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines as they are added, for the rest of the process's life.
    fn run(&self) {
        let mut stream = self.stream.open();
        loop {
            let nothing_to_write = |queue: &mut Queue| queue.lines.is_empty() && queue.dropped == 0;
            let queue = self.changed.wait_while(self.lock(), nothing_to_write);
            let text = queue.unwrap_or_else(PoisonError::into_inner).take();
            // A closed pipe or a full disk cannot be reported anywhere.
            let _ = write_all(&mut *stream, text.as_bytes());
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Output").field(&self.stream).finish()
    }
}

impl Queue {
    fn add(&mut self, lines: String) {
        let size = size(&lines);
        if self.dropped > 0 || self.size + size > CAPACITY {
            let count = lines.bytes().filter(|byte| *byte == b'\n').count();
            self.dropped += count.max(1) as u64;
            self.dropped_in_total += count.max(1) as u64;
        } else {
            self.size += size;
            self.lines.push_back(lines);
        }
    }

    /// Takes as many lines as one write should have, at least one. Appends the report of dropped lines once there is
    /// room for new ones, so the report appears where the lines are missing.
    fn take(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.lines.front()
            && (text.is_empty() || text.len() + next.len() <= ATOMIC_WRITE)
        {
            self.size -= size(next);
            text.push_str(&self.lines.pop_front().unwrap_or_default());
        }
        if self.dropped > 0 && self.size <= CAPACITY / 2 {
            let dropped = std::mem::take(&mut self.dropped);
            let report = match &self.report {
                Some(report) => report(dropped),
                None => format!("{DROPPED}: {dropped}\n"),
            };
            self.size += size(&report);
            self.lines.push_back(report);
        }
        self.writing = true;
        text
    }

    fn is_written(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.writing
    }
}

/// Message of the line that reports dropped lines.
pub(crate) const DROPPED: &str = "log lines were dropped because their reader stalled";

fn size(lines: &String) -> usize {
    size_of::<String>() + lines.capacity()
}

impl Stream {
    /// Opens the stream. A write that blocks holds no lock of the standard library.
    #[cfg(unix)]
    fn open(self) -> Box<dyn Write> {
        use std::os::fd::AsFd as _;
        let copy = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        match copy {
            Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
            Err(_too_many_descriptors) => self.shared(),
        }
    }

    #[cfg(not(unix))]
    fn open(self) -> Box<dyn Write> {
        self.shared()
    }

    fn shared(self) -> Box<dyn Write> {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
        }
    }
}

/// Like [`Write::write_all`], but also waits for a reader if the stream is in non-blocking mode, which other
/// processes with the same stream can set.
fn write_all(stream: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NON_BLOCKING_INTERVAL),
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        let output = Output::new(Stream::Stdout);
        output.report_with(|dropped| format!("{dropped} dropped\n"));
        output.queue.into_inner().unwrap()
    }

    fn line(number: usize) -> String {
        format!("{number:0>99}\n")
    }

    /// Takes everything, as the thread would write it.
    fn written(queue: &mut Queue) -> Vec<String> {
        let mut text = String::new();
        while !queue.lines.is_empty() || queue.dropped > 0 {
            text.push_str(&queue.take());
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_beyond_the_capacity_are_counted_and_reported_once_in_their_place() {
        let mut queue = queue();
        let count = 100_000;
        for number in 0..count {
            queue.add(line(number));
            assert!(queue.size <= CAPACITY);
        }
        let kept = queue.lines.len();
        assert!(kept > 1000, "{kept}");
        assert_eq!(queue.dropped, (count - kept) as u64);
        // A line after the gap, once the report has made room for it.
        while queue.dropped > 0 {
            queue.take();
        }
        queue.add("after\n".to_owned());
        let rest = written(&mut queue);
        assert_eq!(
            rest[rest.len() - 2..],
            [format!("{} dropped", count - kept), "after".to_owned()]
        );
        assert_eq!(rest.iter().filter(|line| line.contains("dropped")).count(), 1);
        assert_eq!(queue.size, 0);
        assert_eq!(queue.dropped_in_total, (count - kept) as u64);
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let mut queue = queue();
        let lines: Vec<String> = (0..500).map(line).chain(["x".repeat(9000) + "\n"]).collect();
        for line in &lines {
            queue.add(line.clone());
        }
        let mut text = String::new();
        while !queue.lines.is_empty() {
            let write = queue.take();
            assert!(write.ends_with('\n') && (write.len() <= ATOMIC_WRITE || write.len() == 9001));
            text.push_str(&write);
        }
        assert_eq!(text, lines.concat());
    }

    #[test]
    fn a_line_larger_than_the_queue_is_reported_too() {
        let mut queue = queue();
        queue.add("x".repeat(CAPACITY));
        assert_eq!(written(&mut queue), ["1 dropped"]);
        queue.add("next\n".to_owned());
        assert_eq!(written(&mut queue), ["next"]);
    }

    #[test]
    fn a_stream_in_non_blocking_mode_gets_all_bytes() {
        struct Slow(Vec<u8>, bool);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 = !self.1;
                if self.1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.0.extend_from_slice(&bytes[..1]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), false);
        write_all(&mut slow, b"abc").unwrap();
        assert_eq!(slow.0, b"abc");
    }
}
