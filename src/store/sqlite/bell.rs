//! The file by which others are woken: a small one beside the database, which
//! every leasewrap opens for writing and closes once it has committed a change
//! that concerns others. (The database's own files change before a commit can
//! be seen, and at every renewal.)
//!
//! It also says how far the history had come when somebody took a lease or
//! gave it back. A database that has less of it is an earlier one, put back in
//! its place: by `cp`, or by SQLite itself, neither of which makes a new file.
//! And it says the highest token of any lease, which an earlier or a new one
//! does not know. A word counts for nothing where it cannot be read, and may
//! be too low.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::unistd::{Gid, Uid, fchown, geteuid};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::files::beside;

/// How long a caller waits for it. It goes on ringing, if it still can.
const LIMIT: Duration = Duration::from_millis(250);

/// How a word is written: twice, so that half of it is nothing.
const WORD: usize = 2 * 19;

/// More than any database has: whoever else wrote it.
const TOO_FAR: i64 = 1 << 48;
const TOO_HIGH: i64 = 1 << 56;

/// What it says of the database, as far as that is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Words {
    /// How far the history had come.
    pub newest: Option<i64>,
    /// The highest token.
    pub highest: Option<i64>,
}

/// Where it is, of the database at `path`.
pub(super) fn of(path: &Path) -> PathBuf {
    beside(path, "-wake")
}

/// Tells all watchers to look (`IN_CLOSE_WRITE`). Where that fails they poll,
/// and that is said once. From `words` on, the database can only go on.
pub(super) async fn wake(path: &Path, words: Words, limit: Duration) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if let Err(error) = ring(path, words, limit.min(LIMIT)).await
        && !SAID.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            event = "wake-failed",
            "others are not woken and notice at their next poll: {}: {error}",
            of(path).display()
        );
    }
}

/// Opens it for writing, and closes it; makes it where it is missing. In a
/// thread: whoever creates a file on a file system that is frozen is held up.
/// (tokio's own for that would end the process where there can be none.)
pub(super) async fn ring(path: &Path, words: Words, limit: Duration) -> Result<()> {
    let (answer, rung) = oneshot::channel();
    let path = path.to_owned();
    thread::Builder::new()
        .name("lw-bell".to_owned())
        .spawn(move || answer.send(open(&path).map(|bell| write(&bell, words))))?;
    match timeout(limit, rung).await {
        Ok(rung) => rung.unwrap_or_else(|_| Err(Error::other("it did not open"))),
        Err(_elapsed) => Err(Error::from(ErrorKind::TimedOut)),
    }
}

/// What was said of the database at `path`.
pub(super) fn words(path: &Path) -> Words {
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    let opened = options.open(of(path)).ok();
    let is_file = |bell: &File| bell.metadata().is_ok_and(|bell| bell.is_file());
    opened
        .filter(is_file)
        .map_or(Words::default(), |bell| Words {
            newest: word(&bell, 0, TOO_FAR),
            highest: word(&bell, 1, TOO_HIGH),
        })
}

fn word(bell: &File, place: usize, limit: i64) -> Option<i64> {
    let mut word = [0; WORD];
    bell.read_exact_at(&mut word, (place * WORD) as u64).ok()?;
    let (once, twice) = word.split_at(WORD / 2);
    let number = std::str::from_utf8(once).ok()?.trim_end().parse().ok()?;
    (once == twice && number < limit).then_some(number)
}

/// Says them. What does not work does not matter.
fn write(bell: &File, words: Words) {
    let Ok(metadata) = bell.metadata() else {
        return;
    };
    // Over nothing that is something else.
    let is_ours = metadata.len() <= 2 * WORD as u64;
    if metadata.is_file() && metadata.nlink() == 1 && is_ours {
        // Two at once could lose what one of them says; but nobody is waited
        // for who keeps it locked.
        if bell.try_lock().is_err() {
            thread::sleep(Duration::from_millis(2));
            let _locked_or_not = bell.try_lock();
        }
        raise(bell, 0, TOO_FAR, words.newest);
        raise(bell, 1, TOO_HIGH, words.highest);
    }
}

/// Never lowers what somebody has said who knows more.
fn raise(bell: &File, place: usize, limit: i64, number: Option<i64>) {
    let said = word(bell, place, limit);
    if let Some(number) = number.filter(|number| *number < limit && said < Some(*number)) {
        let word = format!("{number:018}\n").repeat(2);
        let _written_or_not = bell.write_all_at(word.as_bytes(), (place * WORD) as u64);
    }
}

fn open(path: &Path) -> Result<File> {
    let bell = of(path);
    // Anybody who may write to the directory may have put something there: a
    // FIFO is not waited for, and a link not followed.
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    // Made only where it is missing: in a directory like /tmp the kernel
    // refuses to make what another user has made (`proc_sys_fs(5)`,
    // protected_regular).
    let opened = match options.open(&bell) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            match options.clone().create_new(true).open(&bell) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(&bell),
                made => made,
            }
        }
        opened => opened,
    };
    if fs::symlink_metadata(&bell).is_ok_and(|there| !there.is_file()) {
        return Err(Error::other("it is no regular file; remove it"));
    }
    let file = opened?;
    // What cannot be changed shows where somebody cannot ring.
    let _shared_or_not = share(&file, path);
    Ok(file)
}

/// Whoever may write to the database may ring, as SQLite sees to it for what
/// it has beside the database itself; whatever the umask of who made it was.
fn share(file: &File, path: &Path) -> Result<()> {
    // Before there is a database it is shared with nobody.
    let Ok(database) = fs::metadata(path) else {
        return Ok(());
    };
    let bell = file.metadata()?;
    // Another name of something else is nobody's to give away.
    if !bell.is_file() || bell.nlink() != 1 {
        return Ok(());
    }
    let user = geteuid();
    let owner = (database.uid(), database.gid());
    if user.is_root() && (bell.uid(), bell.gid()) != owner {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        fchown(file, Some(uid), Some(gid))?;
    }
    let mode = database.mode() & 0o666;
    if (user.is_root() || bell.uid() == user.as_raw()) && bell.mode() & 0o777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}
