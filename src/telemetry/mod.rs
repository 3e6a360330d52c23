//! The log on standard error: what is logged, in which shape, and that it
//! never delays anything.

use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::util::SubscriberInitExt as _;

pub mod ending;
pub mod format;
pub mod live;
pub mod transition;
mod writer;

use format::Text;
use live::Live;
use writer::Queue;

use crate::exit::LastLine;
use crate::lease::ids::LeaseName;
use crate::sys::stdio;

/// The last line has this target: it is written whatever a filter says,
/// unless the end is a good one.
pub(crate) const LAST: &str = "leasewrap::ended";

/// How long an exit waits for standard error to take what is left, before it
/// looks whether it would take anything.
const FLUSH: Duration = Duration::from_millis(200);

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The shape of a line.
    pub format: Format,
    /// What is logged.
    pub detail: Detail,
}

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// `-q`: warnings and worse; nothing at a good end.
    Quiet,
    /// Transitions.
    Usual,
    /// `-v`: renewals too.
    Verbose,
    /// `-vv`.
    Everything,
    /// A filter as [`check_filter`] has passed it.
    Filter(String),
}

/// The log, once it is set up.
#[derive(Debug, Clone)]
pub struct Telemetry {
    queue: Queue,
    /// The live line is wanted.
    live: bool,
    /// A good end is told of too.
    good_ends: bool,
}

impl Telemetry {
    /// Sets up the log of this process. It starts a thread, so the guard must
    /// have been spawned before.
    ///
    /// # Errors
    /// When there can be no thread, or a log is set up already.
    pub fn start(options: &LogOptions) -> io::Result<Self> {
        let queue = Queue::start()?;
        subscriber(options.format, filter(&options.detail), queue.clone())
            .try_init()
            .map_err(io::Error::other)?;
        Ok(Self {
            queue,
            live: live::is_wanted(options),
            good_ends: tracing::enabled!(target: "leasewrap", tracing::Level::INFO),
        })
    }

    /// The live line of a run, where one is wanted.
    pub fn live(&self, name: LeaseName) -> Live {
        Live::new(self.live.then(|| self.queue.clone()), name)
    }

    /// How many lines standard error did not take.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Writes what is left: in at most 200 ms where standard error takes
    /// nothing, and in at most 2 s where the thread that writes gets no
    /// processor, or a disk is slow. To be called before every exit, when the
    /// lease is given back or no worker can live any more.
    pub fn flush(&self) {
        self.queue.show(None);
        self.queue.flush(FLUSH, stdio::is_ready);
    }

    /// Says how it ended, in the last line, and flushes.
    pub fn end(&self, ending: &ending::Ending<'_>) {
        self.last(ending.is_good(), || ending.log());
    }

    /// Has `say` log the last line, and flushes. `good`: there is nothing to
    /// explain, so a filter may hide it.
    pub fn last(&self, good: bool, say: impl FnOnce()) {
        self.queue.show(None);
        if self.good_ends || !good {
            self.queue.urgently(say);
        }
        self.flush();
    }
}

/// Says the last line of a process that has no log of its own, a guard or a
/// releaser: without a thread, and only if standard error takes it at once.
pub fn say_without_a_log(last: &LastLine) {
    let format = if last.json {
        Format::Json
    } else {
        Format::Text
    };
    let subscriber = subscriber(format, EnvFilter::new("error"), || AtOnce);
    tracing::dispatcher::with_default(&subscriber, || {
        let LastLine {
            outcome,
            killed,
            message,
            ..
        } = last;
        let name = last.name.as_ref().map(LeaseName::as_str);
        tracing::error!(target: LAST, event = "ended", name, outcome, killed, "{message}");
    });
}

fn subscriber<W>(format: Format, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match format {
        Format::Text => {
            let colours = colours(&io::stderr());
            builder.event_format(Text { colours }).into()
        }
        Format::Json => builder
            .json()
            .with_timer(SystemTime)
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .into(),
    }
}

/// Standard error, for a line that is whole.
struct AtOnce;

impl io::Write for AtOnce {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stdio::say(String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks a filter's text.
///
/// # Errors
/// A fragment for people.
pub fn check_filter(text: &str) -> Result<String, String> {
    const RIGHT: &str = "give one such as info, or leasewrap=debug,sqlx=warn";
    if text.is_empty() {
        return Err(format!("is empty; {RIGHT}"));
    }
    // tracing-subscriber 0.3.23 cuts some of those in the middle of a letter.
    if !text.is_ascii() {
        return Err(format!(
            "is no filter (it has letters beyond ASCII); {RIGHT}"
        ));
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("is no filter ({error}); {RIGHT}"))
}

fn filter(detail: &Detail) -> EnvFilter {
    let (chosen, end) = match detail {
        Detail::Quiet => ("warn,sqlx=error", "warn"),
        // The store logs its failures itself, with what to do.
        Detail::Usual => ("warn,leasewrap=info,sqlx=error", "info"),
        Detail::Verbose => ("warn,leasewrap=debug,sqlx=error", "info"),
        Detail::Everything => ("trace", "info"),
        Detail::Filter(filter) => (filter.as_str(), "info"),
    };
    EnvFilter::new(format!("{chosen},{LAST}={end}"))
}

/// Whether colours help there: on a terminal, unless `NO_COLOR` is set (to
/// anything but the empty text, see no-color.org) or the terminal is dumb.
pub fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_when_it_is_read() {
        assert!(check_filter("leasewrap=debug,sqlx=warn").is_ok());
        assert!(check_filter("off").is_ok());
        assert!(check_filter("leasewrap=loud").is_err());
        assert!(check_filter("a=b=c").is_err());
        assert!(check_filter("").is_err());
        assert!(check_filter("\t-Ì[x").is_err());
    }
}
