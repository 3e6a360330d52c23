//! Wakes whoever waits for a lease in a file: inotify on a small file beside
//! it, which every leasewrap opens for writing and closes once it has
//! committed a change that concerns others. (The database's own files change
//! before a commit can be seen, and at every renewal.)

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::link::{Failure, Link, last};
use super::sql;
use crate::lease::ids::LeaseName;
use crate::lease::record::{Fault, Unknown};
use crate::store::columns::Columns;
use crate::store::deadline::Deadline;
use crate::store::mailbox::Mailbox;
use crate::store::{Clock, Notice, Watch};

/// The pause before the next try, where nothing can be watched.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a look into the file may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What happens to a file that somebody puts another one in the place of.
const REPLACED: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ATTRIB);

/// The file by which others are woken.
fn bell(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wake");
    name.into()
}

fn ring(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(bell(path))
}

/// Tells all watchers to look (`IN_CLOSE_WRITE`). Where that fails they poll.
pub(super) fn wake(path: &Path) {
    if let Err(error) = ring(path) {
        tracing::debug!(%error, "cannot open the file that wakes others");
    }
}

/// Watches a lease in a file.
pub struct SqliteWatch {
    mailbox: Arc<Mailbox>,
    task: JoinHandle<()>,
}

impl Watch for SqliteWatch {
    async fn next(&mut self) -> Notice {
        self.mailbox.next().await
    }

    /// One host has no crowd.
    fn spread(&self, _spread: bool) {}
}

impl Drop for SqliteWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SqliteWatch {
    /// Must be called within a runtime.
    pub(super) fn start(path: &Path, name: &LeaseName, clock: Clock) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let watcher = Watcher {
            link: Link::new(path.to_owned()),
            name: name.clone(),
            clock,
            mailbox: Arc::clone(&mailbox),
        };
        let task = tokio::spawn(watcher.watch_for_ever());
        Self { mailbox, task }
    }
}

/// What has come over the queue. Only files are watched, whose events have no
/// name and so a fixed size (`inotify(7)`).
struct Event {
    watch: i32,
    mask: AddWatchFlags,
}

const EVENT_BYTES: usize = 16;

impl Event {
    fn of(bytes: &[u8; EVENT_BYTES]) -> Self {
        let [w0, w1, w2, w3, m0, m1, m2, m3, ..] = *bytes;
        Self {
            watch: i32::from_ne_bytes([w0, w1, w2, w3]),
            mask: AddWatchFlags::from_bits_truncate(u32::from_ne_bytes([m0, m1, m2, m3])),
        }
    }
}

struct Watcher {
    link: Link,
    name: LeaseName,
    clock: Clock,
    mailbox: Arc<Mailbox>,
}

impl Watcher {
    async fn watch_for_ever(mut self) {
        loop {
            // Where the files were replaced, the new ones are watched at once.
            if let Err(error) = self.watch().await {
                let message = format!(
                    "{}: changes are not noticed: {error}",
                    self.link.path().display()
                );
                let fault = Fault::Transient;
                self.mailbox
                    .put(Notice::Unavailable(Unknown { fault, message }));
                sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
        }
    }

    /// Watches until the files are replaced.
    async fn watch(&mut self) -> std::io::Result<()> {
        let queue = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        ring(self.link.path())?;
        let heard = AddWatchFlags::IN_CLOSE_WRITE | REPLACED;
        let bell = queue.add_watch(&bell(self.link.path()), heard)?;
        // Before there is a database its making rings the bell.
        let database = queue.add_watch(self.link.path(), REPLACED).ok();
        // For tokio it is like the end of a pipe: something to wait for and read.
        let queue = Receiver::from_owned_fd_unchecked(queue.into())?;
        let mut before = self.look().await;
        self.mailbox.put(Notice::Connected);
        let mut buffer = [0; 64 * EVENT_BYTES];
        loop {
            queue.readable().await?;
            let count = match queue.try_read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let (events, _) = buffer[..count].as_chunks();
            let replaced = events.iter().map(Event::of).any(|event| {
                let gone = REPLACED | AddWatchFlags::IN_IGNORED;
                event.watch != bell.as_raw() || event.mask.intersects(gone)
            });
            let now = self.look().await;
            // What cannot be read may be anything.
            if now.is_err() || now != before || replaced {
                self.mailbox.put(Notice::Changed(None));
            }
            if replaced || (database.is_none() && self.link.identity().is_some()) {
                return Ok(());
            }
            before = now;
        }
    }

    /// What a watcher compares.
    async fn look(&mut self) -> Result<String, Failure> {
        let deadline = Deadline::new(self.clock, LIMIT);
        match self.link.connect(deadline).await {
            Ok(_) => {}
            Err(Failure::Missing) => return Ok(String::new()),
            Err(failure) => return Err(failure),
        }
        let name = sql::text(self.name.as_str());
        let message = sql::message(sql::WATCHED, &[("name", &name)]);
        let rows = self.link.send(message, deadline).await?;
        last(&rows)?.words("watched")
    }
}
