//! Wakes whoever waits for a lease in a file: inotify on the bell
//! ([`super::bell`]), and on the database's files for being replaced.

use std::fs;
use std::io::{Error, ErrorKind, Result as IoResult};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::files::{self, FileId, Files};
use super::link::{Link, last};
use super::{bell, sql};
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

/// Watches a lease in a file.
pub struct SqliteWatch {
    mailbox: Arc<Mailbox>,
    task: JoinHandle<()>,
    /// Dropping it stops the task, which then closes the file.
    goes_on: Option<oneshot::Sender<()>>,
}

impl Watch for SqliteWatch {
    async fn next(&mut self) -> Notice {
        self.mailbox.next().await
    }

    /// One host has no crowd.
    fn spread(&self, _spread: bool) {}

    /// Its connection may be the last one to the file, and an end that does
    /// not wait for it leaves what is beside the file there.
    async fn close(mut self, limit: Duration) {
        self.goes_on = None;
        let _closed_or_not = timeout(limit, &mut self.task).await;
    }
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
        let mut watcher = Watcher {
            link: Link::new(path.to_owned()),
            name: name.clone(),
            clock,
            mailbox: Arc::clone(&mailbox),
        };
        let (goes_on, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = watcher.watch_for_ever() => {}
                _ = stopped => {}
            }
            watcher.link.close(Deadline::new(clock, LIMIT)).await;
        });
        Self {
            mailbox,
            task,
            goes_on: Some(goes_on),
        }
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
    async fn watch_for_ever(&mut self) {
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
    async fn watch(&mut self) -> IoResult<()> {
        let queue = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let path = files::resolve(self.link.path());
        let path = path.map_err(|unknown| Error::other(unknown.message))?;
        let bell = listen(&queue, &path).await?;
        let mut before = self.look().await;
        // While it is open, what is beside it stays the same. Before there is
        // a database its making rings the bell.
        let watched = self.link.files().cloned();
        for path in watched.iter().flat_map(Files::paths) {
            match queue.add_watch(&path, REPLACED) {
                // Seen below.
                Err(Errno::ENOENT) => {}
                added => drop(added?),
            }
        }
        // For tokio it is like the end of a pipe: something to wait for and read.
        let queue = Receiver::from_owned_fd_unchecked(queue.into())?;
        self.mailbox.put(Notice::Connected);
        let mut buffer = [0; 64 * EVENT_BYTES];
        let mut gone = false;
        loop {
            if gone || self.is_elsewhere(&path, &bell, watched.as_ref()) {
                // All that this process has open must be closed before it
                // opens the new ones.
                self.link.close(Deadline::new(self.clock, LIMIT)).await;
                self.mailbox.put(Notice::Changed(None));
                return Ok(());
            }
            match timeout(PAUSE, queue.readable()).await {
                Ok(ready) => ready?,
                // What could not be opened may be watched now.
                Err(_elapsed) if watched.is_none() => {
                    before = self.look().await;
                    continue;
                }
                Err(_elapsed) => continue,
            }
            let count = match queue.try_read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let (events, _) = buffer[..count].as_chunks();
            let rung = |event: Event| {
                let bell = event.watch == bell.watch.as_raw();
                (bell && !event.mask.intersects(REPLACED))
                    || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            };
            // The next file may have the number of one that is gone.
            let ignored = |event: Event| event.mask.contains(AddWatchFlags::IN_IGNORED);
            gone = events.iter().map(Event::of).any(ignored);
            // Root's connections touch what is beside the database; that is
            // no change.
            let touched = watched.is_some() && !events.iter().map(Event::of).any(rung);
            if gone || touched || self.is_elsewhere(&path, &bell, watched.as_ref()) {
                continue;
            }
            let now = self.look().await;
            // What cannot be read may be anything.
            if now.is_err() || now != before {
                self.mailbox.put(Notice::Changed(None));
            }
            before = now;
        }
    }

    /// Whether others are not where is watched.
    fn is_elsewhere(&self, path: &Path, bell: &Bell, watched: Option<&Files>) -> bool {
        let there = match watched {
            Some(files) => Files::at(self.link.path()).is_ok_and(|now| now.as_ref() == Some(files)),
            None => self.link.files().is_none(),
        };
        !there || FileId::at(&bell::of(path)) != Some(bell.file)
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

/// The bell as it is listened to.
struct Bell {
    watch: WatchDescriptor,
    file: FileId,
}

/// Listens to the bell of the database at `path`. It is rung where it has to
/// be made: listening needs no right to write to it.
async fn listen(queue: &Inotify, path: &Path) -> IoResult<Bell> {
    let bell = bell::of(path);
    let heard = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DONT_FOLLOW | REPLACED;
    let watch = match queue.add_watch(&bell, heard) {
        Err(Errno::ENOENT) => {
            bell::ring(path, bell::Words::default(), LIMIT).await?;
            queue.add_watch(&bell, heard)
        }
        added => added,
    };
    let watch = watch?;
    let metadata = fs::symlink_metadata(&bell)?;
    if !metadata.is_file() {
        let shown = bell.display();
        return Err(Error::other(format!(
            "{shown} is no regular file; remove it"
        )));
    }
    let file = FileId::of(&metadata);
    Ok(Bell { watch, file })
}
