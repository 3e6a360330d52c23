//! The files of a database: what is at its path, whether it may be used
//! there, and what this process has open of it.
//!
//! SQLite keeps what it has not merged yet in `-wal`, and its locks in `-shm`,
//! beside the name that a file was opened by: by another name, or where they
//! were removed, nobody sees what the others do (sqlite.org, "How To Corrupt
//! An SQLite Database File"). They are made with the first connection and
//! removed with the last, and stay the same ones while any is open.

use std::fs::{self, File, Metadata};
use std::io::{Error, ErrorKind, Result as IoResult};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{self, FsType};

use super::host::wrong;
use crate::lease::record::Unknown;

/// As many links as the kernel follows (`path_resolution(7)`).
const LINKS: usize = 40;

/// What a file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    /// Kept over reboots, where the device need not be.
    pub inode: u64,
}

impl FileId {
    /// Of what was looked at.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of what is at `path`.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self::of(&metadata))
    }
}

/// `path` with `suffix` behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The files of a database, as they are now. None of them is opened for that:
/// closing it would drop SQLite's locks on it (`fcntl_locking(2)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    /// Without symbolic links: SQLite names the other files after this one.
    pub path: PathBuf,
    pub database: FileId,
    wal: Option<FileId>,
    shm: Option<FileId>,
}

impl Files {
    /// Those at `path`, where there is a file.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, Unknown> {
        let real = resolve(path)?;
        let metadata = match fs::metadata(&real) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(not_seen(path, &error)),
        };
        regular(path, &metadata)?;
        Ok(Some(Self {
            database: FileId::of(&metadata),
            wal: FileId::at(&beside(&real, "-wal")),
            shm: FileId::at(&beside(&real, "-shm")),
            path: real,
        }))
    }

    /// Their paths.
    pub(super) fn paths(&self) -> [PathBuf; 3] {
        [
            self.path.clone(),
            beside(&self.path, "-wal"),
            beside(&self.path, "-shm"),
        ]
    }

    /// Whether this process has `-wal` or `-shm` open of a file that is not
    /// there any more. SQLite shares the `-shm` of all connections of a
    /// process, and would read a new `-wal` by an old one.
    pub(super) fn has_strays(&self) -> Result<bool, Unknown> {
        let mut own = own(&self.path)?.into_iter();
        Ok(own.any(|(here, id)| here && ![self.wal, self.shm].contains(&Some(id))))
    }

    /// Whether `-wal` has these frames, of pages of this size. An empty one
    /// was made in the place of one that somebody removed: the `-shm` is still
    /// that one's.
    pub(super) fn hold(&self, frames: Option<(i64, i64)>) -> Result<bool, Unknown> {
        let wal = beside(&self.path, "-wal");
        let length = || match fs::metadata(&wal) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(not_seen(&wal, &error)),
        };
        frames.map_or(Ok(true), |frames| Ok(length()? >= wal_bytes(frames)))
    }

    /// Whether this process has them open as they are.
    pub(super) fn are_open(&self) -> Result<bool, Unknown> {
        let own = own(&self.path)?;
        let open = |file: FileId| own.iter().any(|(_, id)| *id == file);
        Ok([self.wal, self.shm].into_iter().flatten().all(open) && !self.has_strays()?)
    }
}

/// How long a `-wal` with so many frames is at least (sqlite.org, "Database
/// File Format", section 4.1).
fn wal_bytes((frames, page): (i64, i64)) -> u64 {
    let bytes = frames
        .saturating_mul(page.saturating_add(24))
        .saturating_add(32);
    u64::try_from(bytes).unwrap_or(0)
}

/// What this process has open of `-wal` and `-shm` of any database of this
/// file name, and whether it was opened as this one's.
fn own(path: &Path) -> Result<Vec<(bool, FileId)>, Unknown> {
    const DESCRIPTORS: &str = "/proc/self/fd";
    let unseen = |error| {
        wrong(format!(
            "{DESCRIPTORS} cannot be read: {error}; mount /proc"
        ))
    };
    let names = ["-wal", "-shm"].map(|suffix| beside(path, suffix));
    let mut own = Vec::new();
    for entry in fs::read_dir(DESCRIPTORS).map_err(unseen)? {
        let descriptor = entry.map_err(unseen)?.path();
        let Ok(target) = fs::read_link(&descriptor) else {
            continue;
        };
        // As it is shown once the file was removed (`proc_pid_fd(5)`).
        let target = target.as_os_str().as_bytes();
        let target = target.strip_suffix(b" (deleted)").unwrap_or(target);
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        if names
            .iter()
            .any(|name| name.file_name() == target.file_name())
            && let Ok(metadata) = fs::metadata(&descriptor)
        {
            let here = names.iter().any(|name| name == target);
            own.push((here, FileId::of(&metadata)));
        }
    }
    Ok(own)
}

/// Where the file is, or is to be, without symbolic links.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Unknown> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        match fs::canonicalize(&at) {
            Ok(real) => return Ok(real),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(not_seen(path, &error)),
        }
        let directory = directory(&at);
        // SQLite makes a file at the end of a link.
        let Ok(target) = fs::read_link(&at) else {
            let directory =
                fs::canonicalize(directory).map_err(|error| no_use(directory, &error))?;
            return Ok(directory.join(at.file_name().unwrap_or_default()));
        };
        at = directory.join(target);
    }
    Err(not_seen(path, &Error::from(nix::errno::Errno::ELOOP)))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Where a database at `path` is opened. Neither is it under two names, nor
/// on a network, where locks do not hold and boot clocks are not the same.
pub(super) fn usable(path: &Path) -> Result<PathBuf, Unknown> {
    let real = resolve(path)?;
    let directory = directory(&real);
    local(path, directory).map_err(|error| no_use(directory, &error))??;
    match fs::metadata(&real) {
        Ok(metadata) => {
            regular(path, &metadata)?;
            one_name(path, &metadata)?;
            let seen = local(path, &real).and_then(|kind| Ok((kind, is_mounted(&real)?)));
            let (kind, is_mounted) = seen.map_err(|error| not_seen(path, &error))?;
            kind?;
            if is_mounted {
                return Err(wrong(format!(
                    "{} is mounted as a single file, which has no -wal and -shm in common with \
                     those who use it elsewhere, and two could hold one lease; mount its \
                     directory instead",
                    path.display()
                )));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(not_seen(path, &error)),
    }
    Ok(real)
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), Unknown> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(wrong(format!("{} is no file; name a file", path.display())))
}

fn one_name(path: &Path, metadata: &Metadata) -> Result<(), Unknown> {
    if metadata.nlink() <= 1 {
        return Ok(());
    }
    Err(wrong(format!(
        "{} has {} names (hard links), each with a -wal and -shm of its own, and two could hold \
         one lease; keep one name (find -samefile shows them)",
        path.display(),
        metadata.nlink()
    )))
}

/// Whether a file is a mount by itself. Where mounts are not told (before
/// Linux 3.15, in gVisor) that is not known, and it passes.
fn is_mounted(path: &Path) -> IoResult<bool> {
    let (file, directory) = (mount(path)?, mount(directory(path))?);
    Ok(file != directory)
}

/// The mount that `path` lies in (`proc_pid_fdinfo(5)`). Opened so, it drops
/// no locks when it is closed.
fn mount(path: &Path) -> IoResult<Option<String>> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH);
    let file = options.open(path)?;
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    let told = told.unwrap_or_default();
    let mut words = told.lines().filter_map(|line| line.strip_prefix("mnt_id:"));
    Ok(words.next().map(|id| id.trim().to_owned()))
}

/// Refuses a place on a network.
fn local(path: &Path, place: &Path) -> IoResult<Result<(), Unknown>> {
    let found = statfs::statfs(place)?;
    Ok(match network(found.filesystem_type()) {
        None => Ok(()),
        Some(kind) => Err(wrong(format!(
            "{} is on {kind}, where SQLite's locks are not reliable and other hosts may be at \
             work; name a file on a local disk, or use PostgreSQL",
            path.display()
        ))),
    })
}

fn not_seen(path: &Path, error: &Error) -> Unknown {
    wrong(format!("{} cannot be looked at: {error}", path.display()))
}

fn no_use(directory: &Path, error: &Error) -> Unknown {
    let shown = directory.display();
    wrong(format!(
        "the directory {shown} cannot be used: {error}; create it first"
    ))
}

/// What kind of network file system it is (`statfs(2)`), or may be: what FUSE
/// keeps where cannot be told.
fn network(kind: FsType) -> Option<&'static str> {
    // The type's width differs between C libraries.
    Some(match kind.0 as u64 & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::record::Fault;

    #[test]
    fn network_file_systems_are_known() {
        assert_eq!(network(FsType(0x6969)), Some("NFS"));
        // ext4, overlayfs, tmpfs, btrfs.
        for local in [0xef53, 0x794c_7630, 0x0102_1994, 0x9123_683e] {
            assert_eq!(network(FsType(local)), None);
        }
    }

    #[test]
    fn a_missing_directory_is_told() {
        let path = Path::new("/nowhere/at/all.db");
        for error in [
            Files::at(path).expect_err("it is not there"),
            usable(path).expect_err("it is not there"),
        ] {
            assert!(error.message.contains("/nowhere/at") && error.fault == Fault::Final);
        }
        assert!(Files::at(Path::new("/")).is_err() && usable(Path::new("/")).is_err());
        let missing = Path::new("/proc-of-none.db");
        assert_eq!(Files::at(missing), Ok(None));
        assert_eq!(usable(missing).as_deref(), Ok(missing));
    }

    #[test]
    fn mounts_are_told_apart() {
        let (root, proc) = (Path::new("/"), Path::new("/proc"));
        assert_eq!(mount(root).expect("seen"), mount(root).expect("seen"));
        assert_ne!(mount(root).expect("seen"), mount(proc).expect("seen"));
    }
}
