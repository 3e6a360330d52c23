//! What names the database, and where its password stands.

use leasewrap::cli::args::values::without_password;
use leasewrap::store::StoreSettings;
use leasewrap::store::settings::{Given, Surroundings};
use leasewrap::sys::entry::password_spans;

use super::{SECRET, one_clear_line};

/// How many ways there are to write a password.
pub const WAYS: u8 = 9;

/// Behind it a password goes on that holds an ampersand.
const CUT: &str = "postgres://h/?password=a&";

/// `rest` with a password where one belongs.
pub fn with_password(way: u8, rest: &str) -> String {
    match way % WAYS {
        0 => format!("postgres://u:{SECRET}@{rest}"),
        1 => format!("{rest}?password={SECRET}"),
        2 => format!("{rest}&password={SECRET}"),
        3 => format!("password={SECRET}{rest}"),
        4 => format!("password\t= 'a&{SECRET}{rest}"),
        5 => format!("{rest} password='b {SECRET}'"),
        6 => format!("{CUT}{SECRET}{rest}"),
        7 => format!("password=a {SECRET}{rest}"),
        // The host was forgotten.
        _ => format!("postgres://u:{SECRET}{rest}"),
    }
}

/// Nothing of a command line that others can see shows the password.
pub fn nobody_sees_it(url: &str) {
    for span in password_spans(url.as_bytes()) {
        assert!(span.start <= span.end && span.end <= url.len(), "{span:?}");
    }
    // Nor does what cannot be told from a parameter, or a host and its port.
    if url.starts_with(&format!("{CUT}{SECRET}")) {
        return;
    }
    let forgotten = format!("postgres://u:{SECRET}");
    if !url.starts_with(&forgotten) || url[forgotten.len()..].starts_with('@') {
        let masked = without_password(url);
        assert!(!masked.contains(SECRET), "{masked:?}");
    }
}

/// A database is known, or one line says what is wrong; and what is handed to
/// the releaser is what was read.
pub fn read_or_refused(url: &str, variables: Vec<(String, String)>) {
    // With the files that are named.
    let length = |path: &str| std::fs::metadata(path).map_or(0, |file| file.len() as usize);
    let given = variables
        .iter()
        .map(|(_, value)| value.len() + length(value));
    let given: usize = given.sum();
    let surroundings = Surroundings::new(variables, Some("nobody".to_owned()), "/".into());
    // SQLite knows no password: it is a part of a path there.
    let urls = match url.starts_with("sqlite:") {
        true => [url.replace(SECRET, "x")],
        false => [url.to_owned()],
    };
    match StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings) {
        Ok(settings) => {
            let shown = format!("{settings:?}");
            assert!(!shown.contains(SECRET), "{shown}");
            let bytes = postcard::to_stdvec(&settings).expect("plain data");
            let again: StoreSettings = postcard::from_bytes(&bytes).expect("the same data");
            assert_eq!(postcard::to_stdvec(&again), Ok(bytes));
        }
        Err(error) => one_clear_line(&error.to_string(), urls[0].len() + given),
    }
}
