//! How single values are read. Each parser's message is a fragment that
//! reads after the flag and the value seen, and says what would be right.

use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::http::listen::ListenAddress;
use crate::lease::ids::{Label, LeaseName, Value};

/// The longest duration that can be given: past every use, and far from any
/// overflow of an interval of the database or of the boot clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A duration as humantime reads it.
///
/// # Errors
/// A fragment for people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text.trim())
        .map_err(|error| format!("{error}; give a duration such as 15s, 1m 30s or 500ms"))?;
    if read > LONGEST {
        return Err("is more than 365 days".to_owned());
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
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = signal_number(name).ok_or(RIGHT)?;
    match Signal::try_from(number) {
        // Neither ends anything, and a stopped worker would only wait for
        // its SIGKILL.
        Ok(Signal::SIGSTOP | Signal::SIGCONT | Signal::SIGCHLD) => {
            Err(format!("ends no worker; {RIGHT}"))
        }
        Ok(_) | Err(_) => Ok(number),
    }
}

fn signal_number(name: &str) -> Option<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    if let Ok(number) = name.parse::<i32>() {
        // 32 and 33 belong to the C library's threads.
        return ((1..=31).contains(&number) || (first..=last).contains(&number)).then_some(number);
    }
    let offset = |text: &str| match text {
        "" => Some(0),
        signed => signed
            .get(1..)
            .and_then(|digits| digits.parse::<i32>().ok()),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        (rest.is_empty() || rest.starts_with('+')).then(|| offset(rest))?? + first
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        last - (rest.is_empty() || rest.starts_with('-')).then(|| offset(rest))??
    } else {
        return format!("SIG{name}")
            .parse::<Signal>()
            .ok()
            .map(|signal| signal as i32);
    };
    (first..=last).contains(&number).then_some(number)
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
    let masked = mask_user_info(text);
    mask_parameters(&masked)
}

fn mask_user_info(text: &str) -> String {
    // To the *last* at sign: a password may hold an unescaped one, and then
    // showing too little is right.
    let Some(at) = text.rfind('@') else {
        return text.to_owned();
    };
    let start = text.find("://").map_or(0, |scheme| scheme + 3);
    match text.get(start..at).and_then(|info| info.find(':')) {
        Some(colon) => format!("{}:***{}", &text[..start + colon], &text[at..]),
        None => text.to_owned(),
    }
}

fn mask_parameters(text: &str) -> String {
    // ASCII lowercase keeps every byte's position.
    let lower = text.to_ascii_lowercase();
    let mut masked = String::with_capacity(text.len());
    let mut rest = 0;
    while let Some(found) = lower[rest..].find("password=") {
        let value = rest + found + "password=".len();
        let end = lower[value..]
            .find(['&', ' '])
            .map_or(text.len(), |end| value + end);
        masked.push_str(&text[rest..value]);
        masked.push_str("***");
        rest = end;
    }
    masked.push_str(&text[rest..]);
    masked
}

/// What was typed, as one line of a message may repeat it: no password, no
/// control character, no kilobytes.
pub fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let line: String = without_password(text)
        .chars()
        .flat_map(visible)
        .take(MOST + 1)
        .collect();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn visible(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_humantime_reads_them() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration(" 500ms "), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "30", "abc", "-1s", "1s 99999999999999999999y", "2y"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
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
            "", "0", "-1", "32", "65", "TREM", "RTMIN+99", "RTMIN-1", "RTMAX+1", "STOP", "CONT",
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
                "postgres://h/db?user=u&Password=***&sslpassword=*** y",
            ),
            ("host=h password=s3cret", "host=h password=***"),
            ("./worker", "./worker"),
        ] {
            assert_eq!(without_password(seen), said);
        }
    }
}
