//! What is to be done about TLS: modes, roots, client certificates.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{Place, UrlError};
use crate::store::settings::{Surroundings, open_file};

/// What is to be done about TLS.
pub(super) struct Tls {
    mode: Mode,
    roots: Option<PathBuf>,
    system_roots: bool,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How to speak TLS with one place.
pub(super) struct Plan {
    /// Modes to try, in this order.
    pub modes: Vec<PgSslMode>,
    /// Against whom the server's certificate is checked, if at all.
    pub roots: Option<Roots>,
}

/// Who says which authorities are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) enum Roots {
    /// The file that `sslrootcert` names, and nobody else.
    Own,
    /// The system.
    System,
}

impl Tls {
    pub(super) fn new<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        surroundings: &Surroundings,
    ) -> Result<Self, UrlError> {
        let mode = match get("sslmode") {
            None | Some("prefer") => Mode::Prefer,
            Some("disable") => Mode::Disable,
            Some("allow") => Mode::Allow,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(other) => {
                let right = "give disable, allow, prefer, require, verify-ca or verify-full";
                return Err(UrlError::value("sslmode", other, right));
            }
        };
        // A file that is named must be there; libpq's default ones may be.
        let file = |keyword: &str, default: &str| match get(keyword) {
            Some(path) => Some(surroundings.directory.join(path)),
            None => {
                let home = surroundings.home.as_ref();
                home.map(|home| home.join(".postgresql").join(default))
                    .filter(|path| path.exists())
            }
        };
        let system_roots = get("sslrootcert") == Some("system");
        if system_roots && mode != Mode::VerifyFull {
            let right = "give sslmode=verify-full with it: anybody can have a certificate";
            return Err(UrlError::value("sslrootcert", "system", right));
        }
        let tls = Self {
            mode,
            roots: if system_roots {
                None
            } else {
                file("sslrootcert", "root.crt")
            },
            system_roots,
            certificate: file("sslcert", "postgresql.crt"),
            key: file("sslkey", "postgresql.key"),
        };
        Ok(tls)
    }

    /// Completes the options for one place.
    pub(super) fn apply(
        &self,
        mut options: PgConnectOptions,
        place: &Place,
    ) -> Result<(PgConnectOptions, Plan), UrlError> {
        // libpq speaks no TLS over Unix sockets, whatever the mode.
        let mode = if place.socket_dir.is_some() {
            Mode::Disable
        } else {
            self.mode
        };
        let modes = match mode {
            Mode::Disable => vec![PgSslMode::Disable],
            Mode::Allow => vec![PgSslMode::Disable, PgSslMode::Require],
            Mode::Prefer => vec![PgSslMode::Prefer, PgSslMode::Disable],
            // With roots at hand libpq checks against them.
            Mode::Require if self.roots.is_some() => vec![PgSslMode::VerifyCa],
            Mode::Require => vec![PgSslMode::Require],
            // As libpq: of the system's authorities anybody can have a certificate.
            Mode::VerifyCa if self.roots.is_none() => {
                let right = "give sslrootcert=PATH with it, or sslmode=verify-full";
                return Err(UrlError::value("sslmode", "verify-ca", right));
            }
            Mode::VerifyCa => vec![PgSslMode::VerifyCa],
            // Where libpq refuses without roots at hand, the system's will do:
            // a certificate of theirs for this name is its owner's.
            Mode::VerifyFull => vec![PgSslMode::VerifyFull],
        };
        if mode == Mode::Disable {
            return Ok((options, Plan { modes, roots: None }));
        }
        if mode == Mode::VerifyFull && place.address != place.name {
            return Err(UrlError::value(
                "hostaddr",
                &place.address,
                "remove it: with sslmode=verify-full leasewrap connects to the host's name alone",
            ));
        }
        let checked = matches!(modes[..], [PgSslMode::VerifyCa | PgSslMode::VerifyFull]);
        if let Some(roots) = self.roots.as_ref().filter(|_| checked) {
            readable("sslrootcert", roots)?;
            options = options.ssl_root_cert(roots);
        } else if self.system_roots {
            // Or sqlx takes PGSSLROOTCERT=system for a file.
            options = options.ssl_root_cert_from_pem(Vec::new());
        }
        // libpq's default ones only work together; a named one must not be ignored.
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            readable("sslcert", certificate)?;
            readable("sslkey", key)?;
            private(key)?;
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        } else if self.certificate.is_some() {
            let what = "sslcert is there without its key";
            return Err(UrlError::new(what, "give sslkey=PATH too"));
        }
        let roots = if self.roots.is_some() {
            Roots::Own
        } else {
            Roots::System
        };
        let roots = checked.then_some(roots);
        Ok((options, Plan { modes, roots }))
    }
}

fn readable(keyword: &str, path: &Path) -> Result<(), UrlError> {
    match open_file(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let shown = path.display().to_string();
            Err(UrlError::value(
                keyword,
                &shown,
                format!("it cannot be read: {error}"),
            ))
        }
    }
}

/// As libpq demands of a private key.
fn private(path: &Path) -> Result<(), UrlError> {
    let shown = path.display().to_string();
    let metadata = fs::metadata(path).map_err(|error| {
        UrlError::value("sslkey", &shown, format!("it cannot be read: {error}"))
    })?;
    let others = if metadata.uid() == 0 { 0o37 } else { 0o77 };
    if metadata.permissions().mode() & others != 0 {
        return Err(UrlError::value(
            "sslkey",
            &shown,
            "others may use it: chmod 600",
        ));
    }
    Ok(())
}
