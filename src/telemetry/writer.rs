//! Lines to standard error that never delay whoever writes them.
//!
//! Standard error may be a pipe that nobody reads, a terminal that was
//! stopped (Ctrl-S), or closed, and it is shared with the worker, so that
//! `O_NONBLOCK` is out of the question: it belongs to the open file and not
//! to the descriptor (`open(2)`). So a thread writes and blocks in our place,
//! behind a queue with a limit; what the queue cannot take is counted.
//!
//! The live line of a standby goes the same way, but there is only ever the
//! newest one to draw.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use tracing_subscriber::fmt::MakeWriter;

use super::live::{self, Standing};
use crate::sys::clock;

/// The most that waits to be written, in bytes.
const LIMIT: usize = 128 * 1024;

/// Of the writing thread, which formats one short line at the most.
const STACK: usize = 128 * 1024;

/// So often an exit waits for what is left, as long as standard error would
/// take it.
const TURNS: u32 = 10;

/// How often the live line is drawn anew: its ages grow.
const REDRAW: Duration = Duration::from_secs(1);

/// Where lines are put; clones are the same queue.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A line came.
    filled: Condvar,
    /// Nothing waits any more.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line was taken and is being written.
    writing: bool,
    /// Lines that were dropped and not told of yet.
    untold: u64,
    /// All lines that were ever dropped.
    dropped: u64,
    /// How many threads write a line that must not be dropped.
    urgent: u32,
    /// The live line.
    live: Option<Standing>,
    /// It is to be drawn anew, or to be removed.
    redraw: bool,
}

/// What the thread does next.
enum Work {
    /// A line of the log, above the live line.
    Line(Vec<u8>),
    /// The live line is to look so.
    Live(Option<Standing>),
}

impl Queue {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> io::Result<Self> {
        Self::start_with(StandardError, live::columns)
    }

    /// `columns`: how many there are for a live line; `None` while it must
    /// not be touched.
    fn start_with(
        sink: impl Write + Send + 'static,
        columns: impl Fn() -> Option<usize> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }));
        let shared = Arc::clone(&queue.0);
        thread::Builder::new()
            .name("lw-log".to_owned())
            .stack_size(STACK)
            .spawn(move || shared.write_all(sink, &columns))?;
        Ok(queue)
    }

    /// Takes a line, or counts it as dropped. Never waits.
    fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        let full = state.bytes + line.len() > LIMIT;
        if full && state.urgent == 0 {
            state.dropped += 1;
            state.untold += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.0.filled.notify_one();
    }

    /// Has the live line look so from now on. Never waits.
    pub fn show(&self, live: Option<Standing>) {
        let mut state = self.0.lock();
        if state.live != live {
            state.live = live;
            state.redraw = true;
            drop(state);
            self.0.filled.notify_one();
        }
    }

    /// Has lines taken that `log` writes, even where the queue is full.
    pub fn urgently(&self, log: impl FnOnce()) {
        self.0.urgently(log);
    }

    /// Waits until everything is written: for `turn`, and then again as long
    /// as the sink `is_ready`, so that it is our thread that is late. To write
    /// here in its place could block: what is ready for one of us is full
    /// when another process was faster.
    pub fn flush(&self, turn: Duration, is_ready: impl Fn() -> bool) {
        for _ in 0..TURNS {
            if self.is_written_within(turn) || !is_ready() {
                return;
            }
        }
    }

    fn is_written_within(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| state.writing || state.redraw || !state.lines.is_empty();
        let waited = self
            .0
            .drained
            .wait_timeout_while(self.0.lock(), limit, waiting);
        let (_state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }
}

impl Shared {
    /// Nothing panics while it holds the lock; were it so, the state would
    /// still be good to go on with.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut sink: impl Write, columns: &impl Fn() -> Option<usize>) {
        // With SIGTTOU blocked a terminal takes output from a background job
        // (termios(3), TOSTOP) instead of stopping leasewrap; SIGPIPE, which
        // goes to the thread that wrote, stays pending and the write answers
        // EPIPE. All others are for the main thread.
        if SigSet::all().thread_block().is_err() {
            // Then SIGPIPE or SIGTTOU may come after all; lines matter less.
            return;
        }
        let mut drawn = Drawn(false);
        loop {
            match self.next() {
                Work::Line(line) => {
                    let line = drawn.below(line, columns);
                    let written = sink.write_all(&line).is_ok();
                    self.tell(self.done(written));
                }
                Work::Live(live) => {
                    if let Some(text) = drawn.text(live.as_ref(), columns) {
                        // It is no line of the log: none is lost with it.
                        drop(sink.write_all(text.as_bytes()));
                    }
                    self.tell(self.done(true));
                }
            }
        }
    }

    fn tell(&self, untold: u64) {
        if untold > 0 {
            self.urgently(|| {
                tracing::warn!(
                    event = "log-dropped",
                    lines = untold,
                    "standard error did not take {untold} lines of this log"
                );
            });
        }
    }

    fn urgently(&self, log: impl FnOnce()) {
        self.lock().urgent += 1;
        log();
        self.lock().urgent -= 1;
    }

    fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                // It takes the live line's place.
                state.redraw |= state.live.is_some();
                return Work::Line(line);
            }
            if std::mem::take(&mut state.redraw) {
                state.writing = true;
                return Work::Live(state.live.clone());
            }
            if state.live.is_some() {
                let waited = self.filled.wait_timeout(state, REDRAW);
                let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = after;
                state.redraw |= timeout.timed_out() && state.live.is_some();
            } else {
                let waited = self.filled.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// How many dropped lines are to be told of, now that writing works.
    fn done(&self, written: bool) -> u64 {
        let mut state = self.lock();
        state.writing = false;
        if !written {
            state.dropped += 1;
            state.untold += 1;
        }
        let untold = if written {
            std::mem::take(&mut state.untold)
        } else {
            0
        };
        // The line that tells of them comes first.
        if state.lines.is_empty() && !state.redraw && untold == 0 {
            self.drained.notify_all();
        }
        untold
    }
}

/// Whether the cursor stands behind a live line.
struct Drawn(bool);

/// To the beginning of the line, and nothing to the right of it.
const ERASE: &str = "\r\x1b[K";

impl Drawn {
    /// A line of the log in place of the live line.
    fn below(&mut self, line: Vec<u8>, columns: &impl Fn() -> Option<usize>) -> Vec<u8> {
        // In the background the shell's prompt stands there by now.
        if std::mem::take(&mut self.0) && columns().is_some() {
            [ERASE.as_bytes(), &line].concat()
        } else {
            line
        }
    }

    /// What has the terminal show that live line, or none.
    fn text(
        &mut self,
        live: Option<&Standing>,
        columns: &impl Fn() -> Option<usize>,
    ) -> Option<String> {
        let before = std::mem::take(&mut self.0);
        let columns = columns()?;
        match live {
            Some(live) => {
                self.0 = true;
                let text = live.text(clock::now(), columns);
                // In one piece, over the old one, so that nothing flickers.
                Some(format!("\r{text}\x1b[K"))
            }
            None => before.then(|| ERASE.to_owned()),
        }
    }
}

/// Descriptor 2, whatever it is.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::write(io::stderr(), line) {
                Ok(written) => return Ok(written),
                // Somebody else made the open file non-blocking.
                Err(nix::Error::EAGAIN) => wait_for_room()?,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for_room() -> io::Result<()> {
    use std::os::fd::AsFd;
    let stderr = io::stderr();
    let mut descriptors = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut descriptors, PollTimeout::NONE)?;
    Ok(())
}

/// One event's line on its way into the queue.
#[derive(Debug)]
pub struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    /// The subscriber hands over a whole line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(20);

    /// Writes what it is let to write.
    struct Gate {
        open: Receiver<bool>,
        came: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.came.send(line.to_vec()).map_err(io::Error::other)?;
            match self.open.recv() {
                Ok(true) => Ok(line.len()),
                Ok(false) | Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Queue, Sender<bool>, Receiver<Vec<u8>>) {
        let (open, opened) = channel();
        let (came, comes) = channel();
        let queue = Queue::start_with(Gate { open: opened, came }, || Some(80)).expect("a thread");
        (queue, open, comes)
    }

    #[test]
    fn a_sink_that_stands_still_delays_nobody_and_what_is_dropped_is_counted() {
        let (queue, open, comes) = gated();
        queue.push(b"first\n");
        assert_eq!(comes.recv_timeout(LONG), Ok(b"first\n".to_vec()));
        let line = vec![b'x'; 1024];
        for _ in 0..200 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped(), 200 - 128);
        queue.flush(SHORT, || false);
        queue.urgently(|| queue.push(b"last\n"));
        assert_eq!(queue.dropped(), 200 - 128);
        for _ in 0..130 {
            open.send(true).expect("the thread waits");
        }
        queue.flush(LONG, || false);
        let lines: Vec<_> = comes.try_iter().collect();
        assert_eq!(lines.len(), 129);
        assert_eq!(lines.last(), Some(&b"last\n".to_vec()));
    }

    #[test]
    fn a_broken_sink_counts_and_flush_still_returns() {
        let (queue, open, _comes) = gated();
        open.send(false).expect("the thread waits");
        open.send(false).expect("the thread waits");
        queue.push(b"a\n");
        queue.push(b"b\n");
        queue.flush(LONG, || false);
        assert_eq!(queue.dropped(), 2);
    }

    /// The thread gets no processor, say, or the disk is slow.
    #[test]
    fn what_a_ready_sink_has_not_got_in_time_is_waited_for_again() {
        let (queue, open, comes) = gated();
        queue.push(b"last\n");
        let asked = Cell::new(0);
        queue.flush(SHORT, || {
            asked.set(asked.get() + 1);
            open.send(true).expect("the thread waits");
            assert!(queue.is_written_within(LONG));
            true
        });
        assert_eq!(asked.get(), 1);
        assert_eq!(comes.try_iter().count(), 1);
    }

    #[test]
    fn a_flush_ends_at_once_where_a_sink_is_not_ready_and_soon_where_it_says_so() {
        let (queue, _open, _comes) = gated();
        queue.push(b"last\n");
        for (ready, times) in [(false, 1), (true, TURNS)] {
            let asked = Cell::new(0);
            queue.flush(SHORT, || {
                asked.set(asked.get() + 1);
                ready
            });
            assert_eq!(asked.get(), times);
        }
    }
}
