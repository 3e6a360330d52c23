//! What a hook says: read from its pipe, cut into lines, bounded in every
//! way, so that a hook that never stops talking costs the keeper nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::unix::pipe;

use crate::lease::time::BootInstant;

/// Longer lines are cut, in bytes.
const LINE: usize = 1000;

/// What comes after so many lines is not logged.
const LINES: usize = 100;

/// So much is read at a time: what a pipe holds.
const CHUNK: usize = 65_536;

/// After so much at once, reading pauses for a moment.
const MUCH: usize = 16_384;

/// For so long.
const PAUSE: Duration = Duration::from_millis(5);

/// The reading end.
#[derive(Debug)]
pub struct Output {
    pipe: pipe::Receiver,
    ended: bool,
    pause_until: Option<BootInstant>,
    lines: Lines,
}

impl Output {
    /// The reading end and, for the hook, the writing end.
    ///
    /// # Errors
    /// No pipe.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (sender, pipe) = pipe::pipe()?;
        let output = Self {
            pipe,
            ended: false,
            pause_until: None,
            lines: Lines::default(),
        };
        Ok((output, sender.into_blocking_fd()?))
    }

    /// Waits until there is something to read. Cancel safe.
    pub async fn ready(&self) {
        if self.ended || self.pause_until.is_some() || self.pipe.readable().await.is_err() {
            std::future::pending().await
        }
    }

    /// The lines that are there by now; a last one without its end too when
    /// `all` is said.
    pub fn read(&mut self, now: BootInstant, all: bool) -> Vec<String> {
        let mut buffer = vec![0; CHUNK];
        let mut lines = Vec::new();
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => {
                lines = self.lines.take(&buffer[..length]);
                self.pause_until = (length >= MUCH).then_some(now + PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.ended = true,
        }
        if all || self.ended {
            lines.extend(self.lines.end());
        }
        lines
    }

    /// The last line that says anything.
    pub fn last_words(&self) -> &str {
        &self.lines.last_words
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        self.pause_until
    }

    /// Goes on reading when it is time.
    pub fn wake(&mut self, now: BootInstant) {
        self.pause_until = self.pause_until.filter(|until| now < *until);
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    /// The rest of a line that was cut is still to come.
    cut: bool,
    count: usize,
    last_words: String,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE - self.begun.len();
            self.cut |= text.len() > room;
            self.begun.extend(&text[..text.len().min(room)]);
            if whole {
                found.extend(self.end());
            }
        }
        found
    }

    /// The line as it is by now.
    fn end(&mut self) -> Option<String> {
        let cut = std::mem::take(&mut self.cut);
        let bytes = std::mem::take(&mut self.begun);
        let mut line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        if line.is_empty() {
            return None;
        }
        if cut {
            line.push('…');
        }
        self.last_words.clone_from(&line);
        self.count = self.count.saturating_add(1);
        match self.count {
            ..=LINES => Some(line),
            over if over == LINES + 1 => Some("… (more is not logged)".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_cut() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\n\n  \nb"), ["a"]);
        assert_eq!(lines.take(b"c\r\nrest"), ["bc"]);
        assert_eq!(lines.end().as_deref(), Some("rest"));
        assert_eq!(lines.end(), None);
        let long = [vec![b'x'; LINE - 1], b"yz".to_vec()].concat();
        assert_eq!(lines.take(&long), [""; 0]);
        let cut = lines.take(b"more\nnext\n");
        assert_eq!(cut.len(), 2);
        assert!(cut[0].ends_with("xy…"), "{cut:?}");
        assert_eq!(cut[1], "next");
    }

    #[test]
    fn after_many_lines_the_last_words_alone_are_kept() {
        let mut lines = Lines::default();
        let many = "again\n".repeat(LINES * 3);
        let found = lines.take(many.as_bytes());
        assert_eq!(found.len(), LINES + 1);
        assert!(found.last().is_some_and(|last| last.contains("not logged")));
        assert_eq!(lines.take(b"the last words\n"), [""; 0]);
        assert_eq!(lines.last_words, "the last words");
    }
}
