//! How single values are read. Each parser's message is a fragment that
//! reads after the flag and the value seen, and says what would be right.

use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cli::output::short;
use crate::http::listen::ListenAddress;
use crate::lease::ids::{Label, LeaseName, Value};
use crate::lease::timing::LONGEST;
use crate::sys::entry::password_spans;
use crate::sys::signals;

/// A duration as humantime reads it, however long.
///
/// # Errors
/// A fragment for people.
pub fn any_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}; give a duration such as 15s, 1m 30s or 500ms"))
}

/// One that something may last for.
///
/// # Errors
/// A fragment for people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read = any_duration(text)?;
    if read > LONGEST {
        return Err("is more than 366 days".to_owned());
    }
    Ok(read)
}

/// A duration that is not zero.
///
/// # Errors
/// A fragment for people.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("is no time at all; give a duration such as 5s or 500ms".to_owned()),
        read => Ok(read),
    }
}

/// A command of the shell.
///
/// # Errors
/// A fragment for people.
pub fn shell_command(text: &str) -> Result<OsString, String> {
    if text.trim().is_empty() {
        return Err("is empty; give a command of the shell".to_owned());
    }
    Ok(text.into())
}

/// A fraction from 0 to 1.
///
/// # Errors
/// A fragment for people.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err("is not a number from 0 to 1".to_owned()),
    }
}

/// A signal as `kill(1)` reads it: `TERM`, `SIGTERM`, `15`, `RTMIN+1`.
///
/// # Errors
/// A fragment for people; also for signals that stop nothing.
pub fn stop_signal(text: &str) -> Result<i32, String> {
    const RIGHT: &str = "give a signal by name or number, such as TERM, SIGINT, 15 or RTMIN+1";
    let number = signals::by_name(text).ok_or(RIGHT)?;
    match Signal::try_from(number) {
        // Neither ends anything, and a stopped worker would only wait for
        // its SIGKILL.
        Ok(Signal::SIGSTOP | Signal::SIGCONT | Signal::SIGCHLD) => {
            Err(format!("ends no worker; {RIGHT}"))
        }
        Ok(_) | Err(_) => Ok(number),
    }
}

/// A lease's name.
///
/// # Errors
/// A fragment for people.
pub fn lease_name(text: &str) -> Result<LeaseName, String> {
    LeaseName::new(text).map_err(|error| error.to_string())
}

/// How many slots.
///
/// # Errors
/// A fragment for people.
pub fn slots(text: &str) -> Result<u32, String> {
    // Every poll reads every slot's row.
    const MAX: u32 = 10_000;
    match text.trim().parse() {
        Ok(slots @ 1..=MAX) => Ok(slots),
        Ok(_) | Err(_) => Err(format!("is not a number from 1 to {MAX}")),
    }
}

/// A holder's label.
///
/// # Errors
/// A fragment for people.
pub fn label(text: &str) -> Result<Label, String> {
    Label::new(text).map_err(|error| error.to_string())
}

/// A holder's value.
///
/// # Errors
/// A fragment for people.
pub fn value(text: &str) -> Result<Value, String> {
    Value::new(text).map_err(|error| error.to_string())
}

/// An exit code that says that something went wrong.
///
/// # Errors
/// A fragment for people.
pub fn nonzero_exit_code(text: &str) -> Result<u8, String> {
    match text.trim().parse() {
        Ok(code @ 1..=u8::MAX) => Ok(code),
        Ok(_) | Err(_) => Err("is not a number from 1 to 255".to_owned()),
    }
}

/// Any exit code.
///
/// # Errors
/// A fragment for people.
pub fn any_exit_code(text: &str) -> Result<u8, String> {
    text.trim()
        .parse()
        .map_err(|_| "is not a number from 0 to 255".to_owned())
}

/// Where to serve pages.
///
/// # Errors
/// A fragment for people.
pub fn listen(text: &str) -> Result<ListenAddress, String> {
    text.trim().parse()
}

/// A schema's name: what Postgres keeps of an identifier, and no more.
///
/// # Errors
/// A fragment for people.
pub fn schema(text: &str) -> Result<String, String> {
    // NAMEDATALEN is 64: longer identifiers are silently cut off, and two
    // that differ late would be the same schema.
    const MAX: usize = 63;
    if text.is_empty() || text.len() > MAX {
        return Err(format!("has {} bytes; 1 to {MAX} are allowed", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(format!("holds the control character {c:?}"));
    }
    if text.starts_with("pg_") {
        return Err("begins with pg_, which Postgres keeps for itself".to_owned());
    }
    Ok(text.to_owned())
}

/// `text` without the password of any URL or connection string in it, for
/// every message that repeats what was typed.
pub fn without_password(text: &str) -> String {
    let mut spans = password_spans(text.as_bytes());
    spans.sort_by_key(|span| span.start);
    let (mut masked, mut rest) = (String::with_capacity(text.len()), 0);
    for span in spans.into_iter().filter(|span| !span.is_empty()) {
        if span.start >= rest {
            masked += &text[rest..span.start];
            masked += "***";
        }
        rest = rest.max(span.end);
    }
    masked + &text[rest..]
}

/// What was typed, as one line of a message may repeat it: no password, no
/// control character, no kilobytes.
pub fn shown(text: &str) -> String {
    const MOST: usize = 200;
    short(&without_password(text), MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_humantime_reads_them() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration(" 500ms "), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for year in ["1y", "1year", "12months", "366d"] {
            assert!(duration(year).is_ok(), "{year}");
        }
        for wrong in ["", "30", "abc", "-1s", "1s 99999999999999999999y"] {
            assert!(any_duration(wrong).is_err(), "{wrong}");
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("366d 1s").is_err() && any_duration("2y").is_ok());
    }

    #[test]
    fn a_fraction_is_a_number_from_0_to_1() {
        assert_eq!(fraction("0.2"), Ok(0.2));
        assert_eq!(fraction("1"), Ok(1.0));
        for wrong in ["-0.1", "1.01", "NaN", "inf", ""] {
            assert!(fraction(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15", " TERM "] {
            assert_eq!(stop_signal(text), Ok(15), "{text}");
        }
        let first = libc::SIGRTMIN();
        assert_eq!(stop_signal("RTMIN"), Ok(first));
        assert_eq!(stop_signal("SIGRTMIN+1"), Ok(first + 1));
        assert_eq!(stop_signal("RTMAX-1"), Ok(libc::SIGRTMAX() - 1));
        for wrong in [
            "",
            "0",
            "-1",
            "32",
            "65",
            "TREM",
            "RTMIN+99",
            "RTMIN+2147483647",
            "RTMIN-1",
            "RTMAX+1",
            "STOP",
            "CONT",
            "SIG",
        ] {
            assert!(stop_signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schema_is_what_postgres_keeps_of_it() {
        assert!(schema("leasewrap").is_ok());
        assert!(schema("Ünïcode with space").is_ok());
        for wrong in ["", "pg_lease", "a\nb", &"x".repeat(64)] {
            assert!(schema(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        for (seen, said) in [
            ("postgres://u:s3cret@h/db", "postgres://u:***@h/db"),
            ("postgres://u:s3:c@r/et@h/db", "postgres://u:***@h/db"),
            ("u:s3cret@h/db", "u:***@h/db"),
            ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
            ("postgres://h:5432/db", "postgres://h:5432/db"),
            (
                "postgres://h/db?user=u&Password=s3&sslpassword=x y",
                "postgres://h/db?user=u&Password=***&sslpassword=***",
            ),
            (
                "host=h password = 'my s3cret' user=u",
                "host=h password =***",
            ),
            (
                "host=h dbname=x password 's3cret'",
                "host=h dbname=x password***",
            ),
            ("password é s3cret", "password***"),
            ("u:s3cret@h/db?x=a://b", "u:***@h/db?x=a://b"),
            ("/run/password", "/run/password"),
            ("./worker", "./worker"),
        ] {
            assert_eq!(without_password(seen), said);
        }
    }
}
