//! Texts of others as people see them, and single values.

use std::io;
use std::sync::{Arc, Mutex};

use leasewrap::cli::args::values;
use leasewrap::cli::output::short;
use leasewrap::keeper::watchdog::{Said, said};
use leasewrap::lease::ids::{Label, LeaseName, Value};
use leasewrap::lease::timing::Shown;
use leasewrap::telemetry::format::{Text, one_line};

/// Whether a terminal or a reader would be led astray by it.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of others is one line that nothing acts on, and shown once it stays
/// the same.
pub fn in_one_line(text: &str) {
    let line = one_line(text);
    assert!(!line.contains(acts), "{line:?}");
    assert_eq!(one_line(&line), line);
    assert_eq!(line == text, !text.contains(acts));
    let cut = short(text, 20);
    assert!(line == cut || cut.ends_with('…'), "{cut:?}");
    assert!(cut.chars().count() <= 21, "{cut:?}");
}

/// A line of the log is one line, whatever is in its message and fields.
pub fn logged_in_one_line(text: &str) {
    let line = logged(|| tracing::info!(event = "fuzzed", name = text, "{text}"));
    let line = line.strip_suffix('\n').expect("a line has an end");
    assert!(!line.contains(acts), "{line:?}");
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || sink.clone())
        .event_format(Text { colours: false })
        .finish();
    tracing::subscriber::with_default(subscriber, log);
    let bytes = lines.0.lock().expect("no panic").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

/// A worker's message (`sd_notify(3)`) is understood line by line.
pub fn heard(message: &[u8]) {
    for said in said(message) {
        if let Said::Status(status) = said {
            assert!(!status.contains('\n') && status.chars().count() <= 200);
        }
    }
}

/// What is wrong with a value is said in one line, and what was read reads
/// the same when it is written back.
pub fn single_values(text: &str) {
    again(text, values::duration, |read| Shown(*read).to_string());
    again(text, values::positive_duration, |read| {
        Shown(*read).to_string()
    });
    again(text, values::fraction, ToString::to_string);
    again(text, values::stop_signal, ToString::to_string);
    again(text, values::slots, ToString::to_string);
    again(text, values::any_exit_code, ToString::to_string);
    again(text, values::nonzero_exit_code, ToString::to_string);
    again(text, values::listen, ToString::to_string);
    again(text, values::schema, ToString::to_string);
    again(text, values::lease_name, LeaseName::to_string);
    again(text, values::label, Label::to_string);
    again(text, values::value, Value::to_string);
    let shown = values::shown(text);
    assert!(!shown.contains(acts) && shown.chars().count() <= 201);
}

fn again<T: PartialEq + std::fmt::Debug>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
    written: impl Fn(&T) -> String,
) {
    match read(text) {
        Ok(value) => {
            let text = written(&value);
            assert_eq!(read(&text), Ok(value), "written as {text:?}");
        }
        Err(wrong) => assert!(!wrong.contains(acts), "{wrong:?}"),
    }
}
