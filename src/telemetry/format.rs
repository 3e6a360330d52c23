//! The shape of a line for people:
//! `2026-07-01T12:00:00.123456Z INFO  leasewrap: lease acquired event=acquired name=mailer token=7`.

use std::fmt;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::lease::timing::Rounded;
pub use crate::store::settings::one_line;

/// Formats events as text.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// The level and the names of fields stand out.
    pub colours: bool,
}

impl Text {
    fn painted(self, text: &str, colour: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn level(self, level: Level) -> String {
        let colour = match level {
            Level::ERROR => "1;31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "2",
        };
        self.painted(&format!("{level:<5}"), colour)
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut words = Words {
            text: *self,
            message: String::new(),
            fields: String::new(),
        };
        event.record(&mut words);
        let target = match event.metadata().target() {
            ours if ours.starts_with("leasewrap") => "leasewrap",
            other => other,
        };
        SystemTime.format_time(&mut writer)?;
        write!(
            writer,
            " {} {target}:",
            self.level(*event.metadata().level())
        )?;
        if !words.message.is_empty() {
            write!(writer, " {}", words.message)?;
        }
        writeln!(writer, "{}", words.fields)
    }
}

/// The parts of one event.
struct Words {
    text: Text,
    message: String,
    fields: String,
}

impl Words {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = one_line(value);
            return;
        }
        let name = self.text.painted(field.name(), "2");
        let bare = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"');
        let value = one_line(value);
        let value = if bare {
            value
        } else {
            format!("\"{}\"", value.replace('"', "\\\""))
        };
        self.fields.extend([" ", &name, "=", &value]);
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// A duration for people: to the millisecond below ten seconds, to the tenth
/// of a second below a minute, then to the second.
pub fn span(duration: Duration) -> String {
    Rounded(duration).to_string()
}

/// A duration for machines: whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

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

    #[test]
    fn a_line_has_its_time_level_message_and_fields() {
        let line = logged(|| {
            tracing::info!(
                event = "acquired",
                name = "a b\n",
                token = 7,
                none = None::<u64>,
                quote = "\"",
                "lease acquired"
            );
        });
        let (time, rest) = line.split_once(' ').expect("a time");
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(
            rest,
            "INFO  leasewrap: lease acquired event=acquired name=\"a b\\n\" token=7 quote=\"\\\"\"\n"
        );
    }

    #[test]
    fn nothing_in_a_line_acts_on_a_terminal() {
        assert_eq!(one_line("plain ü"), "plain ü");
        assert_eq!(
            one_line("a\x1b[2Jb\r\nc\u{9b}d\u{202e}"),
            "a\\u{1b}[2Jb\\r\\nc\\u{9b}d\\u{202e}"
        );
    }

    #[test]
    fn spans_are_as_exact_as_people_need() {
        assert_eq!(span(Duration::from_micros(1_234_567)), "1s 234ms");
        assert_eq!(span(Duration::from_millis(10_850)), "10s 800ms");
        assert_eq!(span(Duration::from_millis(95_400)), "1m 35s");
        assert_eq!(span(Duration::ZERO), "0s");
    }
}
