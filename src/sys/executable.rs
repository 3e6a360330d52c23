//! Finds the command as `execvp(3)` does, before the lease is taken.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};

/// Why a command cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Exit code 127.
    #[error("run {command:?}: no such file{}", if *.searched { " in PATH" } else { "" })]
    NotFound {
        /// As it was given.
        command: OsString,
        /// Whether PATH was searched.
        searched: bool,
    },
    /// Exit code 126.
    #[error("run {path:?}: {errno}")]
    NotExecutable {
        /// The file that was found.
        path: PathBuf,
        /// EACCES, most often.
        errno: Errno,
    },
}

impl Unusable {
    /// What `execve(2)` would have answered.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound { .. } => Errno::ENOENT as i32,
            Self::NotExecutable { errno, .. } => *errno as i32,
        }
    }
}

/// Finds the file for `command` in `path` (the variable PATH), or as it is
/// when it has a slash.
///
/// # Errors
/// [`Unusable`], for exit codes 127 and 126.
pub fn find(command: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Unusable> {
    let not_found = |searched| Unusable::NotFound {
        command: command.to_owned(),
        searched,
    };
    if command.is_empty() {
        return Err(not_found(false));
    }
    if command.as_bytes().contains(&b'/') {
        let file = PathBuf::from(command);
        return match check(&file) {
            Ok(()) => Ok(file),
            Err(Errno::ENOENT) => Err(not_found(false)),
            Err(errno) => Err(Unusable::NotExecutable { path: file, errno }),
        };
    }
    // The C library's own default, without the working directory.
    let path = path.unwrap_or(OsStr::new("/bin:/usr/bin"));
    let mut refused = None;
    for directory in path.as_bytes().split(|byte| *byte == b':') {
        // An empty element is the working directory.
        let file = match directory {
            [] => Path::new(".").join(command),
            _ => Path::new(OsStr::from_bytes(directory)).join(command),
        };
        match check(&file) {
            Ok(()) => return Ok(file),
            // Goes on searching, and says so if nothing better is found.
            Err(errno @ Errno::EACCES) => {
                refused.get_or_insert(Unusable::NotExecutable { path: file, errno });
            }
            // ENOENT, ENOTDIR and whatever else a stray element gives.
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| not_found(true)))
}

/// Whether the effective user may execute the file: execve refuses all but
/// regular files with EACCES.
fn check(file: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(file)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    if !metadata.is_file() {
        return Err(Errno::EACCES);
    }
    eaccess(file, AccessFlags::X_OK)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn it_searches_as_execvp_does() {
        let first = tempfile::tempdir().unwrap();
        let second = tempfile::tempdir().unwrap();
        std::fs::create_dir(first.path().join("both")).unwrap();
        let found = file(second.path(), "both", 0o755);
        let refused = file(first.path(), "plain", 0o644);
        let path = OsString::from(format!(
            "/nowhere:{}:{}",
            first.path().display(),
            second.path().display()
        ));
        let find = |command: &str| find(OsStr::new(command), Some(&path));
        assert_eq!(find("both"), Ok(found.clone()));
        assert_eq!(
            find("plain"),
            Err(Unusable::NotExecutable {
                path: refused.clone(),
                errno: Errno::EACCES
            })
        );
        for (command, searched) in [("no-such-command", true), ("", false), ("./no-such", false)] {
            let command_given = OsString::from(command);
            let not_found = Unusable::NotFound {
                command: command_given,
                searched,
            };
            assert_eq!(find(command), Err(not_found), "{command}");
        }
        assert_eq!(find(found.to_str().unwrap()), Ok(found.clone()));
        assert!(matches!(
            find(refused.to_str().unwrap()),
            Err(Unusable::NotExecutable { .. })
        ));
        assert!(matches!(
            find(first.path().to_str().unwrap()),
            Err(Unusable::NotExecutable { .. })
        ));
        let below_a_file = found.join("x");
        assert!(matches!(
            find(below_a_file.to_str().unwrap()),
            Err(Unusable::NotExecutable {
                errno: Errno::ENOTDIR,
                ..
            })
        ));
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched() {
        assert_eq!(find(OsStr::new("sh"), None), Ok(PathBuf::from("/bin/sh")));
    }
}
