//! Memory files (`memfd_create(2)`): what must not stand in a command line,
//! an environment or a file. Their descriptors are inherited by number.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{Result, SysError};

/// What the keeper tells a guard before it exists: the worker's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The file to execute (`executable::find`), as bytes of a path.
    pub path: Vec<u8>,
    /// The worker's arguments, its name first.
    pub arguments: Vec<Vec<u8>>,
    /// `--pid-namespace`.
    pub pid_namespace: bool,
    /// `--log-format json`, for a last line of the guard's.
    pub json_log: bool,
}

/// A [`Setup`] in memory, sealed against every change.
#[derive(Debug)]
pub struct SetupFile(OwnedFd);

impl SetupFile {
    /// Writes it.
    ///
    /// # Errors
    /// `memfd_create(2)`, a full memory.
    pub fn create(setup: &Setup) -> Result<Self> {
        // Plain data into a growing buffer: nothing that could fail.
        let bytes = postcard::to_stdvec(setup).unwrap_or_default();
        sealed("lw-setup", &bytes).map(Self)
    }

    /// One that was inherited.
    pub fn inherited(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Reads it.
    ///
    /// # Errors
    /// Not readable, or not written by this version.
    pub fn read(&self) -> Result<Setup> {
        const WHAT: &str = "read the memory file with the worker's command";
        let bytes = read_from(self.as_fd(), 0).map_err(SysError::on(WHAT))?;
        postcard::from_bytes(&bytes).map_err(|_| SysError {
            what: WHAT,
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }
}

impl AsFd for SetupFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a hook reads on its standard input: sealed, and at its beginning.
#[derive(Debug)]
pub struct InputFile(OwnedFd);

impl InputFile {
    /// With this content.
    ///
    /// # Errors
    /// `memfd_create(2)`, a full memory.
    pub fn create(content: &[u8]) -> Result<Self> {
        sealed("lw-input", content).map(Self)
    }
}

impl AsFd for InputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What several processes append to while one reads: a record that is written
/// at once stands there in one piece (`O_APPEND`), and the last of them takes
/// the file with it.
#[derive(Debug)]
pub struct SharedLog(File);

impl SharedLog {
    /// An empty one.
    ///
    /// # Errors
    /// `memfd_create(2)`.
    pub fn create() -> Result<Self> {
        let file = create("lw-log")?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))
            .map_err(SysError::on("open a memory file for appending"))?;
        Ok(Self(File::from(file)))
    }

    /// For a process that is to append.
    ///
    /// # Errors
    /// No descriptor.
    pub fn writer(&self) -> Result<OwnedFd> {
        let file = self.0.try_clone();
        file.map(OwnedFd::from)
            .map_err(SysError::on("share a memory file"))
    }

    /// What was appended from `at` on.
    ///
    /// # Errors
    /// `pread(2)`.
    pub fn read_from(&self, at: u64) -> Result<Vec<u8>> {
        read_from(self.0.as_fd(), at).map_err(SysError::on("read a memory file"))
    }
}

/// What a releaser needs, written by the keeper again and again, read by
/// nobody but the releaser. The keeper may be killed in the middle of it: two
/// places are written in turn, and the newest that is whole counts.
#[derive(Debug)]
pub struct ReleaseFile {
    file: File,
    written: u64,
}

/// Room for one version, its head included.
const PLACE_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 24;

impl ReleaseFile {
    /// Largest content, in bytes.
    pub const MAX_BYTES: usize = PLACE_BYTES - HEAD_BYTES;

    /// An empty one.
    ///
    /// # Errors
    /// `memfd_create(2)`.
    pub fn create() -> Result<Self> {
        let file = File::from(create("lw-release")?);
        file.set_len(2 * PLACE_BYTES as u64)
            .map_err(SysError::on("size a memory file"))?;
        seal(
            &file,
            SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL,
        )?;
        Ok(Self { file, written: 0 })
    }

    /// One that was inherited.
    pub fn inherited(file: OwnedFd) -> Self {
        Self {
            file: File::from(file),
            written: 0,
        }
    }

    /// Replaces the content.
    ///
    /// # Errors
    /// Longer than [`Self::MAX_BYTES`], or no memory; the content before it
    /// then still stands.
    pub fn write(&mut self, content: &[u8]) -> Result<()> {
        const WHAT: &str = "write the memory file for the releaser";
        if content.len() > Self::MAX_BYTES {
            return Err(SysError {
                what: WHAT,
                source: std::io::ErrorKind::FileTooLarge.into(),
            });
        }
        let version = self.written + 1;
        let place = (version % 2) * PLACE_BYTES as u64;
        let length = content.len() as u64;
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&version.to_le_bytes());
        head[8..16].copy_from_slice(&length.to_le_bytes());
        head[16..].copy_from_slice(&checksum(version, content).to_le_bytes());
        self.file
            .write_all_at(content, place + HEAD_BYTES as u64)
            .and_then(|()| self.file.write_all_at(&head, place))
            .map_err(SysError::on(WHAT))?;
        self.written = version;
        Ok(())
    }

    /// The newest content that is whole; `None` when nothing was written.
    pub fn read(&self) -> Option<Vec<u8>> {
        [0, 1]
            .into_iter()
            .filter_map(|place| self.read_place(place * PLACE_BYTES as u64))
            .max_by_key(|(version, _)| *version)
            .map(|(_, content)| content)
    }

    fn read_place(&self, place: u64) -> Option<(u64, Vec<u8>)> {
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut head, place).ok()?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (version, length, sum) = (number(0), number(8), number(16));
        let length = usize::try_from(length).ok()?;
        if version == 0 || length > Self::MAX_BYTES {
            return None;
        }
        let mut content = vec![0; length];
        self.file
            .read_exact_at(&mut content, place + HEAD_BYTES as u64)
            .ok()?;
        (checksum(version, &content) == sum).then_some((version, content))
    }
}

impl AsFd for ReleaseFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// FNV-1a: tells a half-written place, nothing more is asked of it.
fn checksum(version: u64, content: &[u8]) -> u64 {
    let bytes = version.to_le_bytes();
    bytes
        .iter()
        .chain(content)
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// A file with this content, which nobody can change; its offset is 0.
fn sealed(name: &str, content: &[u8]) -> Result<OwnedFd> {
    let file = File::from(create(name)?);
    file.write_all_at(content, 0)
        .map_err(SysError::on("write a memory file"))?;
    seal(
        &file,
        SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_SEAL,
    )?;
    Ok(file.into())
}

/// What stands there from `at` on, by position: the offset is shared with the
/// descriptors of other processes.
fn read_from(file: BorrowedFd<'_>, at: u64) -> std::io::Result<Vec<u8>> {
    let file = File::from(file.try_clone_to_owned()?);
    let end = file.metadata()?.len();
    let length = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn create(name: &str) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    memfd_create(name, flags).map_err(SysError::on("create a memory file"))
}

fn seal(file: &File, seals: SealFlag) -> Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))
        .map(drop)
        .map_err(SysError::on("seal a memory file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_is_read_as_it_was_written_and_cannot_be_changed() {
        let setup = Setup {
            path: b"/bin/\xff".to_vec(),
            arguments: vec![b"a".to_vec(), Vec::new()],
            pid_namespace: true,
            json_log: true,
        };
        let file = SetupFile::create(&setup).unwrap();
        assert_eq!(file.read().unwrap(), setup);
        assert_eq!(file.read().unwrap(), setup);
        let raw = File::from(file.0.try_clone().unwrap());
        assert!(raw.write_at(b"x", 0).is_err());
    }

    #[test]
    fn what_several_append_stands_in_pieces() {
        let log = SharedLog::create().unwrap();
        let writers: Vec<_> = (0..2).map(|_| File::from(log.writer().unwrap())).collect();
        for mut writer in writers {
            std::io::Write::write_all(&mut writer, b"abc").unwrap();
        }
        assert_eq!(log.read_from(0).unwrap(), b"abcabc");
        assert_eq!(log.read_from(4).unwrap(), b"bc");
    }

    #[test]
    fn a_release_file_keeps_the_last_whole_version() {
        let mut file = ReleaseFile::create().unwrap();
        assert_eq!(file.read(), None);
        for content in [b"one".as_slice(), b"two, longer", b""] {
            file.write(content).unwrap();
            assert_eq!(file.read().as_deref(), Some(content));
        }
        file.write(b"stands").unwrap();
        // As if the keeper had died before the head of the next was written.
        let place = ((file.written + 1) % 2) * PLACE_BYTES as u64;
        file.file
            .write_all_at(b"half", place + HEAD_BYTES as u64)
            .unwrap();
        assert_eq!(file.read().as_deref(), Some(b"stands".as_slice()));
        assert!(file.write(&vec![0; ReleaseFile::MAX_BYTES + 1]).is_err());
        assert_eq!(file.read().as_deref(), Some(b"stands".as_slice()));
    }
}
