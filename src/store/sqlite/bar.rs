//! What SQLite has the last connection to a file do when it closes: it merges
//! `-wal` into the file, and removes `-wal` and `-shm`, by name. One whose own
//! were removed puts old pages over newer ones by that, and takes those of
//! others away.
//!
//! SQLite does it where a connection gets the file for itself alone
//! (`sqlite3WalClose`): a write lock on bytes that every connection has a read
//! lock on (sqlite.org, "File Locking And Concurrency"). One more read lock,
//! which is no connection's, keeps it from that. It is one of an open file
//! description, since those conflict with this process's own locks
//! (`fcntl_locking(2)`).

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, fcntl};

use super::files::FileId;

/// Where SQLite's shared locks are (`os.h`), and how many bytes.
const SHARED: (libc::off_t, libc::off_t) = (0x4000_0002, 510);

/// The files that ever were barred. They stay open: whoever closes a file
/// drops SQLite's locks on it, those of all connections of the process.
static BARRED: Mutex<Vec<(FileId, File)>> = Mutex::new(Vec::new());

/// From now on no connection of this process does that to the file `id` at
/// `path`. One that has another in its place is safe from it: SQLite looks
/// (`databaseIsUnmoved`); and the other one must not stay open for it.
pub(super) fn bar(path: &Path, id: Option<FileId>) -> Result<()> {
    let mut barred = BARRED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(id) = id.filter(|id| FileId::at(path) == Some(*id)) else {
        return Ok(());
    };
    if let Some((_, file)) = barred.iter().find(|(barred, _)| *barred == id) {
        return lock(file, libc::F_RDLCK);
    }
    let mut options = File::options();
    let options = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    let file = options.open(path)?;
    let locked = lock(&file, libc::F_RDLCK);
    barred.push((FileId::of(&file.metadata()?), file));
    locked
}

/// Again they may.
pub(super) fn lift(id: FileId) {
    let barred = BARRED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, file)) = barred.iter().find(|(barred, _)| *barred == id) {
        // Where it stays, what is beside the file does.
        let _lifted_or_not = lock(file, libc::F_UNLCK);
    }
}

fn lock(file: &File, kind: libc::c_int) -> Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: SHARED.0,
        l_len: SHARED.1,
        l_pid: 0,
    };
    let locked = fcntl(file, FcntlArg::F_OFD_SETLK(&lock));
    locked.map(drop).map_err(Error::from)
}
