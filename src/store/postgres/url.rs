//! How a database is named: `postgres://…` or `keyword=value …`, as libpq
//! reads them (PostgreSQL manual, "Connection Strings"). What is not
//! understood is refused, never ignored.

use std::collections::BTreeMap;
use std::fmt;

use crate::store::settings::one_line;

/// Keywords of libpq and their values, as they were written.
pub type Parameters = BTreeMap<&'static str, String>;

/// What is wrong with a URL: one line, with no password in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError {
    what: String,
    right: String,
}

impl UrlError {
    /// `what` is wrong; `right` would be right.
    pub(super) fn new(what: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            what: one_line(&what.into()),
            right: right.into(),
        }
    }

    /// A value that a keyword cannot have.
    pub(super) fn value(keyword: &str, value: &str, right: impl Into<String>) -> Self {
        let shown = if keyword.contains("password") {
            "…"
        } else {
            shown(value)
        };
        Self::new(format!("{keyword}={shown} cannot be used"), right)
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.right)
    }
}

impl std::error::Error for UrlError {}

/// A part of what was written, as a message may repeat it. Where something is
/// wrong with a question mark, an ampersand or a quote, the password is a part
/// of what stands before it.
pub(super) fn shown(part: &str) -> &str {
    if part.to_ascii_lowercase().contains("password") {
        "…"
    } else {
        part
    }
}

/// What becomes of a keyword.
enum Use {
    /// It is honoured.
    Honoured,
    /// It asks for nothing that our own time limits do not do better, or for
    /// something that does not concern us.
    Covered,
    /// Only these values ask for what we do.
    Only(&'static [&'static str]),
}

/// Every keyword of libpq that can be used, its variable (manual,
/// "Environment Variables") and what becomes of it.
const KEYWORDS: &[(&str, &str, Use)] = &[
    ("host", "PGHOST", Use::Honoured),
    ("hostaddr", "PGHOSTADDR", Use::Honoured),
    ("port", "PGPORT", Use::Honoured),
    ("dbname", "PGDATABASE", Use::Honoured),
    ("user", "PGUSER", Use::Honoured),
    ("password", "PGPASSWORD", Use::Honoured),
    ("passfile", "PGPASSFILE", Use::Honoured),
    ("service", "PGSERVICE", Use::Honoured),
    ("options", "PGOPTIONS", Use::Honoured),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Use::Honoured),
    ("sslmode", "PGSSLMODE", Use::Honoured),
    ("sslrootcert", "PGSSLROOTCERT", Use::Honoured),
    ("sslcert", "PGSSLCERT", Use::Honoured),
    ("sslkey", "PGSSLKEY", Use::Honoured),
    (
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        Use::Honoured,
    ),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Honoured),
    // Ours is `leasewrap NAME`, so that operators see who waits for what.
    ("application_name", "PGAPPNAME", Use::Covered),
    ("fallback_application_name", "", Use::Covered),
    ("client_encoding", "PGCLIENTENCODING", Use::Covered),
    ("keepalives", "", Use::Covered),
    ("keepalives_idle", "", Use::Covered),
    ("keepalives_interval", "", Use::Covered),
    ("keepalives_count", "", Use::Covered),
    ("tcp_user_timeout", "", Use::Covered),
    ("krbsrvname", "PGKRBSRVNAME", Use::Covered),
    ("gsslib", "PGGSSLIB", Use::Covered),
    (
        "gssencmode",
        "PGGSSENCMODE",
        Use::Only(&["disable", "prefer"]),
    ),
    ("gssdelegation", "PGGSSDELEGATION", Use::Only(&["0"])),
    (
        "channel_binding",
        "PGCHANNELBINDING",
        Use::Only(&["disable", "prefer"]),
    ),
    ("sslcompression", "PGSSLCOMPRESSION", Use::Only(&["0"])),
    (
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        Use::Only(&["postgres"]),
    ),
    ("sslcertmode", "PGSSLCERTMODE", Use::Only(&["allow"])),
    ("sslsni", "PGSSLSNI", Use::Only(&["1"])),
    (
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        Use::Only(&["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ),
    (
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        Use::Only(&["TLSv1.3"]),
    ),
    ("replication", "", Use::Only(&["false", "off", "no", "0"])),
    ("require_auth", "PGREQUIREAUTH", Use::Only(&[])),
    ("requirepeer", "PGREQUIREPEER", Use::Only(&[])),
    ("sslpassword", "", Use::Only(&[])),
    ("sslcrl", "PGSSLCRL", Use::Only(&[])),
    ("sslcrldir", "PGSSLCRLDIR", Use::Only(&[])),
];

/// What a message calls a keyword. One that is not known may be the rest of a
/// password that an ampersand or a blank has cut in two.
fn called(keyword: &str, after_password: bool) -> &str {
    if KEYWORDS.iter().any(|(name, ..)| *name == keyword) {
        keyword
    } else if after_password {
        "…"
    } else {
        shown(keyword)
    }
}

/// Puts a keyword into `parameters`, where it can be used.
pub(super) fn set(
    parameters: &mut Parameters,
    keyword: &str,
    value: String,
) -> Result<(), UrlError> {
    set_called(parameters, keyword, called(keyword, false), value)
}

/// The same of one that a message calls `called`.
fn set_called(
    parameters: &mut Parameters,
    keyword: &str,
    called: &str,
    value: String,
) -> Result<(), UrlError> {
    // As libpq does for URLs of JDBC.
    let (keyword, value) = match (keyword, value.as_str()) {
        ("ssl", "true") => ("sslmode", "require".to_owned()),
        _ => (keyword, value),
    };
    let Some((name, _, usage)) = KEYWORDS.iter().find(|(name, ..)| *name == keyword) else {
        let right = if called == "…" {
            "write keywords as libpq does, & in a URL's password as %26, and quote one with blanks"
        } else {
            "remove it, or write it as libpq does (\"Parameter Key Words\" in PostgreSQL's manual)"
        };
        let what = format!("the parameter {called:?} is not known");
        return Err(UrlError::new(what, right));
    };
    if value.contains('\0') {
        return Err(UrlError::new(format!("{keyword} holds a NUL"), "remove it"));
    }
    match usage {
        Use::Honoured => {
            parameters.insert(name, value);
        }
        Use::Covered => {}
        Use::Only(values) if value.is_empty() || values.contains(&value.as_str()) => {}
        Use::Only([]) => {
            return Err(UrlError::value(
                keyword,
                &value,
                "remove it: leasewrap cannot do that",
            ));
        }
        Use::Only(values) => {
            let right = format!("leasewrap can do {}", values.join(", "));
            return Err(UrlError::value(keyword, &value, right));
        }
    }
    Ok(())
}

/// What the `PG…` variables say.
pub(super) fn of_environment(variables: &BTreeMap<String, String>) -> Result<Parameters, UrlError> {
    let mut parameters = Parameters::new();
    for (keyword, variable, _) in KEYWORDS {
        // An empty variable is as good as none, except for a password.
        if let Some(value) = variables.get(*variable).filter(|value| !value.is_empty()) {
            set(&mut parameters, keyword, value.clone()).map_err(|error| UrlError {
                what: format!("the variable {variable}: {}", error.what),
                right: error.right,
            })?;
        }
    }
    Ok(parameters)
}

/// Reads one database's name.
pub(super) fn parse(text: &str) -> Result<Parameters, UrlError> {
    let text = text.trim();
    match text.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => parse_url(rest),
        Some((scheme, _))
            if scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '+') =>
        {
            Err(UrlError::new(
                format!("{scheme}:// is no database that leasewrap knows"),
                "give postgres://USER@HOST/DATABASE or sqlite:PATH",
            ))
        }
        _ if text.contains('=') => parse_keywords(text),
        _ => Err(UrlError::new(
            "this is no database URL",
            "give postgres://USER@HOST/DATABASE or sqlite:PATH",
        )),
    }
}

/// `[user[:password]@][host[:port][,…]][/dbname][?keyword=value[&…]]`
fn parse_url(rest: &str) -> Result<Parameters, UrlError> {
    let mut parameters = Parameters::new();
    // As libpq does: what stands before an @ that comes before any / is user
    // and password, whatever else is in it.
    let credentials = rest
        .find(['@', '/'])
        .filter(|at| rest[*at..].starts_with('@'));
    let (credentials, rest) = match credentials {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let (rest, query) = split_off(rest, '?');
    let (hosts, database) = split_off(rest, '/');
    if rest.contains('@') {
        // Part of the password may stand here: it must not be shown.
        return Err(UrlError::new(
            "the user, the password or the database holds a character that must be encoded",
            "write @ as %40 and / as %2F there",
        ));
    }
    if let Some(credentials) = credentials {
        let (user, password) = split_off(credentials, ':');
        set_decoded(&mut parameters, "user", user)?;
        if let Some(password) = password {
            set_decoded(&mut parameters, "password", password)?;
        }
    }
    parse_hosts(&mut parameters, hosts)?;
    set_decoded(&mut parameters, "dbname", database.unwrap_or_default())?;
    let mut after_password = false;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (keyword, value) = split_off(pair, '=');
        let keyword = decode(keyword, "a parameter")?;
        let called = called(&keyword, after_password);
        let Some(value) = value else {
            return Err(UrlError::new(
                format!("the parameter {called:?} has no value"),
                "write it as NAME=VALUE, and & in a password as %26",
            ));
        };
        set_called(&mut parameters, &keyword, called, decode(value, called)?)?;
        after_password |= keyword == "password";
    }
    Ok(parameters)
}

/// Hosts and ports, as the two lists that libpq makes of them.
fn parse_hosts(parameters: &mut Parameters, hosts: &str) -> Result<(), UrlError> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for spec in hosts.split(',') {
        let (name, port) = match spec.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((name, "")) => (name, ""),
                Some((name, port)) if port.starts_with(':') => (name, &port[1..]),
                _ => {
                    return Err(UrlError::new(
                        format!("the host {:?} has no end", shown(spec)),
                        "write an IPv6 address as [ADDRESS] or [ADDRESS]:PORT",
                    ));
                }
            },
            None => match split_off(spec, ':') {
                // Where the host was forgotten the password stands there.
                (name, Some(port)) if port.contains(':') => {
                    return Err(UrlError::new(
                        format!("the host {:?} has several colons", format!("{name}:…")),
                        "write an IPv6 address as [ADDRESS] or [ADDRESS]:PORT",
                    ));
                }
                (name, port) => (name, port.unwrap_or_default()),
            },
        };
        names.push(decode(name, "the host")?);
        ports.push(decode(port, "the port")?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        set(parameters, "host", names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        set(parameters, "port", ports.join(","))?;
    }
    Ok(())
}

fn set_decoded(parameters: &mut Parameters, keyword: &str, value: &str) -> Result<(), UrlError> {
    if value.is_empty() {
        return Ok(());
    }
    let value = decode(value, keyword)?;
    set(parameters, keyword, value)
}

/// `text` up to the first `separator`, and what follows it.
fn split_off(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str, what: &str) -> Result<String, UrlError> {
    let wrong = || {
        UrlError::new(
            format!("{what} is not properly percent-encoded"),
            "write a percent sign as %25, and other bytes of UTF-8 as %XX",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// `keyword = value …`, where a value may stand in single quotes and a
/// backslash takes the next character as it is.
pub(super) fn parse_keywords(text: &str) -> Result<Parameters, UrlError> {
    let mut parameters = Parameters::new();
    let mut after_password = false;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((keyword, after)) = rest.split_once('=') else {
            return Err(UrlError::new(
                "a keyword of the connection string has no value",
                "write KEYWORD=VALUE, and quote values that hold spaces",
            ));
        };
        let keyword = keyword.trim_end();
        // First, since a part of the password may stand there.
        if keyword.contains(char::is_whitespace) {
            return Err(UrlError::new(
                "a keyword of the connection string has no value, or a value holds a space",
                "quote values that hold spaces: KEYWORD='A VALUE'",
            ));
        }
        let called = called(keyword, after_password);
        let (value, after) = value(after.trim_start()).ok_or_else(|| {
            UrlError::new(
                format!("the value of {called:?} has no end"),
                "close the quote, and write a backslash as \\\\",
            )
        })?;
        set_called(&mut parameters, keyword, called, value)?;
        after_password |= keyword == "password";
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// The value at the start of `text`, and what follows; `None` where it has no end.
fn value(text: &str) -> Option<(String, &str)> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &body[at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(&'static str, String)> {
        match parse(text) {
            Ok(parameters) => parameters.into_iter().collect(),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    fn pairs(expected: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        expected
            .iter()
            .map(|(keyword, value)| (*keyword, (*value).to_owned()))
            .collect()
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let cases: &[(&str, &[(&'static str, &str)])] = &[
            ("postgres://", &[]),
            ("postgresql://localhost", &[("host", "localhost")]),
            (
                "postgres:///db?host=/tmp",
                &[("dbname", "db"), ("host", "/tmp")],
            ),
            (
                "postgres://%2Ftmp/db",
                &[("dbname", "db"), ("host", "/tmp")],
            ),
            (
                "postgres://me:se%40cret@h1:5432,h2:5433/db?target_session_attrs=read-write",
                &[
                    ("dbname", "db"),
                    ("host", "h1,h2"),
                    ("password", "se@cret"),
                    ("port", "5432,5433"),
                    ("target_session_attrs", "read-write"),
                    ("user", "me"),
                ],
            ),
            ("postgres://h1,h2:2/", &[("host", "h1,h2"), ("port", ",2")]),
            (
                "postgres://[::1]:5/d",
                &[("dbname", "d"), ("host", "::1"), ("port", "5")],
            ),
            ("postgres://[fe80::1]/", &[("host", "fe80::1")]),
            (
                "postgres://h?ssl=true",
                &[("host", "h"), ("sslmode", "require")],
            ),
            (
                "postgres://h?keepalives=1&application_name=x",
                &[("host", "h")],
            ),
            ("postgres://h?gssencmode=prefer", &[("host", "h")]),
            (
                "postgres://u:a?b@h/d",
                &[
                    ("dbname", "d"),
                    ("host", "h"),
                    ("password", "a?b"),
                    ("user", "u"),
                ],
            ),
            (
                r"host = h  password='it\'s a \\ secret' dbname=my\ db",
                &[
                    ("dbname", "my db"),
                    ("host", "h"),
                    ("password", r"it's a \ secret"),
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_in_one_line_without_the_password() {
        let cases = [
            ("mysql://u:s3cret@h/db", "mysql:// is no database"),
            ("s3cret", "no database URL"),
            ("postgres://u:s3@cret@h/db", "%40"),
            ("postgres://u:s3/cret@h/db", "%2F"),
            ("postgres://u:s3cret%zz@h/db", "percent-encoded"),
            (
                "postgres://u:s3cret@h/db?sslmod=require",
                "\"sslmod\" is not known",
            ),
            (
                "postgres://u:s3cret@h/db?statement-cache-capacity=1",
                "is not known",
            ),
            (
                "postgres://u:s3cret@h/db?channel_binding=require",
                "disable, prefer",
            ),
            (
                "postgres://u:s3cret@h/db?sslpassword=s3cret",
                "cannot do that",
            ),
            ("postgres://u:s3cret@h/db?sslcrl=/x", "sslcrl=/x"),
            ("postgres://u:s3cret@::1/db", "[ADDRESS]"),
            ("postgres://u:s3cret@[::1/db", "[ADDRESS]"),
            ("postgres://u:s3:cret", "\"u:…\" has several colons"),
            (
                "postgres://[::1 password=s3cret",
                "the host \"…\" has no end",
            ),
            ("postgres://h?sslcrl=/x?password=s3cret", "sslcrl=…"),
            ("postgres://h?sslmode", "NAME=VALUE"),
            ("postgres://h?password=s3&cret", "\"…\" has no value"),
            ("postgres://h?password=s3&cret=x", "\"…\" is not known"),
            ("postgres://h?password=s3&cret=%zz", "… is not properly"),
            ("postgres://h?password:s3cret", "\"…\" has no value"),
            ("postgres://h?password=s3&sslmode", "\"sslmode\" has no"),
            ("postgres://h?password=%zz", "password is not properly"),
            ("host=h password='s3cret", "close the quote"),
            ("host=h password=a s3cret dbname=b", "quote values"),
            ("host=h password=a s3cret dbname='b", "quote values"),
            ("host=h password=a s3cret=x", "\"…\" is not known"),
            ("host=h password=a s3cret='x", "\"…\" has no end"),
            ("host=h nonsense", "no value"),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            let secret = error.contains("s3") || error.contains("cret");
            assert!(!secret && !error.contains('\n'), "{text}: {error}");
        }
    }
}
