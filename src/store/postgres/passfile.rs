//! Passwords and services from files, as libpq keeps them (PostgreSQL manual,
//! "The Password File" and "The Connection Service File").

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::url::{self, Parameters, UrlError};
use crate::store::settings::{open_file, read_file};

/// What a password file has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A line matches.
    Password(String),
    /// No line matches, or there is no such file.
    Nothing,
    /// Others may read the file: it is not used.
    TooOpen,
}

/// Whom a password is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// Looks into the password file at `path`.
pub(super) fn password(path: &Path, wanted: Wanted<'_>) -> Found {
    let Ok(mut file) = open_file(path) else {
        return Found::Nothing;
    };
    match file.metadata() {
        Ok(metadata) if metadata.permissions().mode() & 0o77 != 0 => return Found::TooOpen,
        Ok(_) => {}
        Err(_) => return Found::Nothing,
    }
    let mut text = String::new();
    if file.read_to_string(&mut text).is_err() {
        return Found::Nothing;
    }
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .find_map(|line| matched(line, wanted))
        .map_or(Found::Nothing, Found::Password)
}

/// The password of `hostname:port:database:username:password`, where it fits.
fn matched(line: &str, wanted: Wanted<'_>) -> Option<String> {
    let mut rest = line;
    let port = wanted.port.to_string();
    for wanted in [wanted.host, &port, wanted.database, wanted.user] {
        let (field, after) = field(rest)?;
        if rest[..rest.len() - after.len() - 1] != *"*" && field != wanted {
            return None;
        }
        rest = after;
    }
    // The password is what is left; a colon in it needs no backslash.
    let mut password = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        password.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    Some(password)
}

/// The field up to the next colon, without its backslashes, and what follows.
fn field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => field.push(chars.next()?.1),
            ':' => return Some((field, &text[at + 1..])),
            c => field.push(c),
        }
    }
    None
}

/// The keywords of the service `name`, from the first of `paths` that has it.
pub(super) fn service<'a>(
    name: &str,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<Parameters, UrlError> {
    for path in paths {
        let Ok(text) = read_file(path) else {
            continue;
        };
        let mut lines = text.lines().map(str::trim);
        if !lines.any(|line| line == format!("[{name}]")) {
            continue;
        }
        let mut parameters = Parameters::new();
        for line in lines.take_while(|line| !line.starts_with('[')) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keyword, value) = line.split_once('=').ok_or_else(|| {
                let what = format!(
                    "a line of the service {name:?} in {} is no KEYWORD=VALUE",
                    path.display()
                );
                UrlError::new(what, "mend the file")
            })?;
            url::set(&mut parameters, keyword.trim(), value.trim().to_owned())?;
        }
        return Ok(parameters);
    }
    Err(UrlError::new(
        format!("the service {:?} is in no service file", url::shown(name)),
        "name one that is in ~/.pg_service.conf or in the file that PGSERVICEFILE names",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const WANTED: Wanted<'_> = Wanted {
        host: "h",
        port: 5432,
        database: "d:b",
        user: "u",
    };

    #[test]
    fn lines_match_as_in_libpq() {
        assert_eq!(
            matched(r"h:5432:d\:b:u:se:cr\\et", WANTED).as_deref(),
            Some(r"se:cr\et")
        );
        assert_eq!(matched("*:*:*:*:x", WANTED).as_deref(), Some("x"));
        assert_eq!(matched(r"\*:*:*:*:x", WANTED), None);
        assert_eq!(matched("h:5433:*:*:x", WANTED), None);
        assert_eq!(matched("h:5432", WANTED), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pgpass");
        assert_eq!(password(&path, WANTED), Found::Nothing);
        fs::write(&path, "# one\nother:*:*:*:no\n*:*:*:u:yes\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert_eq!(password(&path, WANTED), Found::TooOpen);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        assert_eq!(password(&path, WANTED), Found::Password("yes".to_owned()));
        fs::remove_file(&path).expect("remove");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("make a FIFO");
        assert_eq!(password(&path, WANTED), Found::Nothing, "nobody waits");
    }

    #[test]
    fn a_service_gives_its_keywords() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("services");
        fs::write(
            &path,
            "[a]\nhost=x\n\n[b]\n# its host\nhost = y\nport=1\n[c]\nhost=z\n",
        )
        .expect("write");
        let found = service("b", std::iter::once(path.as_path())).expect("b is there");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("host", "y".to_owned()), ("port", "1".to_owned())]
        );
        assert!(service("d", std::iter::once(path.as_path())).is_err());
    }
}
