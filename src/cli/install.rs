//! `install DIR`: copies the program itself there. For an init container that
//! puts leasewrap into a volume which the worker's container mounts.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::say;
use crate::exit;

/// Arguments of `leasewrap install`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
DIR/leasewrap is there as a whole or not at all: a program that is there is
replaced in one step, and one that runs goes on. It needs nothing but the
directory, so it works in an image that holds this program alone.

Exit code: 0; 125 when it cannot be done.

Examples:
  leasewrap install /shared")]
pub struct Install {
    /// An existing directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The file's name there.
const NAME: &str = "leasewrap";

/// Anybody may run it.
const MODE: u32 = 0o755;

impl Install {
    /// Copies; says nothing where that succeeds.
    pub fn perform(self) -> u8 {
        let dir = self.dir.display();
        // This program's file, even where another one has taken its name or
        // nothing has.
        let failed = match File::open("/proc/self/exe") {
            Err(error) => format!("cannot read this program (is /proc mounted?): {error}"),
            Ok(mut program) => match copy(&mut program, &self.dir) {
                Ok(()) => return 0,
                Err(error) => format!("cannot install to {dir}: {}", words(&self.dir, &error)),
            },
        };
        say(&format!("leasewrap: {failed}"));
        exit::FAILED
    }
}

/// What is wrong, and what would be right.
fn words(dir: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if dir.as_os_str().is_empty() => "no directory is named".to_owned(),
        io::ErrorKind::NotFound => "there is no such directory; create it first".to_owned(),
        io::ErrorKind::NotADirectory => "it is no directory; name one".to_owned(),
        io::ErrorKind::IsADirectory => {
            format!("{NAME} is a directory there; remove it or name another one")
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not write there (permission denied)".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("no space is left there ({error})")
        }
        _ => error.to_string(),
    }
}

/// Beside the place first, then into it in one step; what fails leaves
/// nothing behind.
fn copy(program: &mut impl Read, dir: &Path) -> io::Result<()> {
    let (beside, mut file) = temporary(dir)?;
    let written = write(program, &mut file)
        .and_then(|()| std::fs::rename(&beside, dir.join(NAME)))
        // The name is on the disk only when the directory is.
        .and_then(|()| File::open(dir)?.sync_all());
    if written.is_err() {
        // It may have been renamed already.
        drop(std::fs::remove_file(&beside));
    }
    written
}

fn write(program: &mut impl Read, file: &mut File) -> io::Result<()> {
    io::copy(program, file)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.flush()?;
    file.sync_all()
}

/// A new file in `dir`, hidden, of a name that nobody uses.
fn temporary(dir: &Path) -> io::Result<(PathBuf, File)> {
    if dir.as_os_str().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = dir.join(format!(".{NAME}.{:016x}", rand::random::<u64>()));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends in the middle, as a full disk would.
    struct Full(bool);

    impl Read for Full {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            buffer[..4].copy_from_slice(b"half");
            Ok(4)
        }
    }

    #[test]
    fn what_fails_leaves_the_older_one_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), "older").expect("written");
        let error = copy(&mut Full(false), dir.path()).expect_err("it is full");
        assert!(words(dir.path(), &error).starts_with("no space"));
        let there: Vec<_> = std::fs::read_dir(dir.path())
            .expect("read")
            .map(|entry| entry.expect("read").file_name())
            .collect();
        assert_eq!(there, [NAME]);
        let older = std::fs::read(dir.path().join(NAME)).expect("read");
        assert_eq!(older, b"older");
    }
}
