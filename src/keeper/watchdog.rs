//! `--worker-watchdog`: what the worker says of itself (`sd_notify(3)`), and
//! whether it has said often enough that it is alive.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::lease::time::BootInstant;
use crate::sys::notify_socket::{Message, NotifySocket};
use crate::sys::{Result, readiness};
use crate::wire::Variable;

/// Whoever notices so late that time is up has stood still itself, most
/// likely with the whole host, and the worker could not speak either.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// So many messages are looked at before a worker counts as silent. (A socket
/// holds ten by default, `net.unix.max_dgram_qlen`.)
const WAITING: usize = 1000;

/// Longer texts of `STATUS=` are cut, in characters.
const STATUS: usize = 200;

/// The option, and the socket that goes with it.
#[derive(Debug)]
pub struct WatchdogSettings {
    /// `--worker-watchdog`.
    pub interval: Duration,
    /// Where the worker writes to.
    pub socket: NotifySocket,
}

/// The keeper's end.
#[derive(Debug)]
pub struct Watchdog {
    socket: NotifySocket,
    readable: AsyncFd<OwnedFd>,
    pace: Pace,
}

/// By when the worker has to speak.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// A worker that says `STOPPING=1` has so long in all.
    stop_timeout: Duration,
    worker: Worker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// None runs, or it is being stopped.
    Absent,
    /// It has to speak until then.
    Running { until: BootInstant },
    /// It has said that it ends; it has to until then.
    Stopping { until: BootInstant },
}

/// One line of a message that means something here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `WATCHDOG=1`.
    Alive,
    /// `WATCHDOG=trigger`: it wants to be stopped as if it had said nothing.
    Trigger,
    /// `READY=1`.
    Ready,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=…`, for people.
    Status(String),
}

impl Watchdog {
    /// No worker runs yet.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn new(settings: WatchdogSettings, stop_timeout: Duration) -> Result<Self> {
        Ok(Self {
            readable: readiness::watch(settings.socket.as_fd(), Interest::READABLE)?,
            socket: settings.socket,
            pace: Pace::new(settings.interval, stop_timeout),
        })
    }

    /// Its part of the worker's environment.
    pub fn variables(&self) -> Vec<Variable> {
        vec![
            Variable::text("NOTIFY_SOCKET", self.socket.address()),
            Variable::text("WATCHDOG_USEC", self.pace.interval.as_micros().to_string()),
            Variable::own_pid("WATCHDOG_PID"),
        ]
    }

    /// By when the worker has to speak.
    pub fn pace(&mut self) -> &mut Pace {
        &mut self.pace
    }

    /// When [`Pace::is_over`] is to be asked.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        self.pace.until()
    }

    /// The next message; `None`: there is none after all. Cancel safe.
    pub async fn next(&self) -> Option<Message> {
        let Ok(mut ready) = self.readable.readable().await else {
            // The reactor is gone only together with the loop.
            return std::future::pending().await;
        };
        let message = self.socket.receive();
        if message.is_none() {
            ready.clear_ready();
        }
        message
    }

    /// The messages that are there already, as many as a worker may send
    /// while nobody looks.
    pub fn waiting(&self) -> Vec<Message> {
        std::iter::from_fn(|| self.socket.receive())
            .take(WAITING)
            .collect()
    }
}

impl Pace {
    fn new(interval: Duration, stop_timeout: Duration) -> Self {
        Self {
            interval,
            stop_timeout,
            worker: Worker::Absent,
        }
    }

    /// A worker runs: its time begins.
    pub fn begin(&mut self, now: BootInstant) {
        self.worker = Worker::Running {
            until: now + self.interval,
        };
    }

    /// It could not speak (it was stopped from the terminal): its time begins
    /// anew.
    pub fn begin_anew(&mut self, now: BootInstant) {
        if let Worker::Running { .. } = self.worker {
            self.begin(now);
        }
    }

    /// There is no worker any more, or it is being stopped.
    pub fn end(&mut self) {
        self.worker = Worker::Absent;
    }

    /// The worker, or somebody below it, has said this.
    pub fn heard(&mut self, said: &Said, now: BootInstant) {
        match (said, self.worker) {
            (Said::Alive, Worker::Running { .. }) => self.begin(now),
            (Said::Stopping, Worker::Running { .. }) => {
                self.worker = Worker::Stopping {
                    until: now + self.stop_timeout.max(self.interval),
                };
            }
            (Said::Trigger, Worker::Running { .. } | Worker::Stopping { .. }) => {
                self.worker = Worker::Running { until: now };
            }
            // It has said that it ends: being alive is no news any more.
            (Said::Alive | Said::Stopping, Worker::Stopping { .. })
            | (Said::Alive | Said::Stopping | Said::Trigger, Worker::Absent)
            | (Said::Ready | Said::Status(_), _) => {}
        }
    }

    fn until(&self) -> Option<BootInstant> {
        match self.worker {
            Worker::Absent => None,
            Worker::Running { until } | Worker::Stopping { until } => Some(until),
        }
    }

    /// Whether the worker has said nothing for too long; said once. To be
    /// asked when all messages were heard.
    pub fn is_over(&mut self, now: BootInstant) -> bool {
        let Some(until) = self.until().filter(|until| now >= *until) else {
            return false;
        };
        if now >= until + STOOD_STILL {
            self.begin(now);
            return false;
        }
        self.end();
        true
    }
}

/// The lines of a message that mean something here.
pub fn said(text: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| match line.split_once('=')? {
        ("WATCHDOG", "1") => Some(Said::Alive),
        ("WATCHDOG", "trigger") => Some(Said::Trigger),
        ("READY", "1") => Some(Said::Ready),
        ("STOPPING", "1") => Some(Said::Stopping),
        ("STATUS", text) => Some(Said::Status(text.chars().take(STATUS).collect())),
        // The main process, descriptors to be kept and the like: a service
        // manager's business.
        _ => None,
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootInstant = BootInstant::from_nanos(5_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn begun() -> Pace {
        let mut pace = Pace::new(SECOND, SECOND * 20);
        pace.begin(START);
        pace
    }

    #[test]
    fn messages_are_read_line_by_line() {
        assert_eq!(
            said(b"READY=1\nSTATUS=half = done\nMAINPID=7\nWATCHDOG=1\nWATCHDOG=2\nx"),
            [
                Said::Ready,
                Said::Status("half = done".to_owned()),
                Said::Alive
            ]
        );
        assert_eq!(
            said(b"WATCHDOG=trigger\nSTOPPING=1\n"),
            [Said::Trigger, Said::Stopping]
        );
        assert_eq!(said(b"\xff\n=\n"), []);
    }

    #[test]
    fn silence_is_noticed_once() {
        let mut pace = begun();
        assert!(!pace.is_over(START + SECOND / 2));
        pace.heard(&Said::Alive, START + SECOND / 2);
        assert!(!pace.is_over(START + SECOND));
        assert!(pace.is_over(START + SECOND * 3 / 2));
        assert_eq!(pace.until(), None);
    }

    #[test]
    fn a_keeper_that_stood_still_gives_the_worker_its_time() {
        let mut pace = begun();
        assert!(!pace.is_over(START + SECOND * 60));
        assert!(pace.is_over(START + SECOND * 61));
    }

    #[test]
    fn a_trigger_counts_at_once_and_an_end_has_its_own_time() {
        let mut pace = begun();
        pace.heard(&Said::Stopping, START);
        pace.heard(&Said::Alive, START);
        assert!(!pace.is_over(START + SECOND * 19));
        pace.heard(&Said::Trigger, START + SECOND * 19);
        assert!(pace.is_over(START + SECOND * 19));
    }

    #[test]
    fn without_a_worker_nothing_is_awaited() {
        let mut pace = begun();
        pace.end();
        pace.heard(&Said::Trigger, START);
        pace.begin_anew(START);
        assert!(!pace.is_over(START + SECOND * 60));
    }
}
