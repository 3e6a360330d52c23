//! The service manager's protocol, sd_notify(3): READY, STATUS, WATCHDOG,
//! STOPPING, EXTEND_TIMEOUT_USEC.
//!
//! Words and format are those of the crate `sd-notify`; sending is done here,
//! since that crate's socket blocks when the service manager does not read,
//! and nothing of that kind may hold up a renewal.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::snapshot::Snapshot;
use crate::lease::keeper::Phase;
use crate::lease::time::BootInstant;

/// How often STATUS may change, and how often it is looked whether the
/// worker still winds down.
const TICK: Duration = Duration::from_secs(1);

/// How often the time left is told anew.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// How much longer a stop is asked to be allowed, each time. Three ticks may
/// be missed.
const EXTENSION: Duration = Duration::from_secs(5);

/// What the service manager has been told.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    clock: fn() -> BootInstant,
    ready: bool,
    stopping: bool,
    told: Option<Told>,
}

/// The last STATUS.
#[derive(Debug)]
struct Told {
    at: BootInstant,
    /// Role, own token, other's token, what the worker says.
    about: About,
}

type About = (&'static str, Option<i64>, Option<i64>, Option<String>);

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as
    /// `environment` gives them; `None` where there is no service manager.
    ///
    /// # Errors
    /// A socket that cannot be one, or that the system does not give.
    pub fn new(
        environment: impl Fn(&str) -> Option<OsString>,
        clock: fn() -> BootInstant,
    ) -> io::Result<Option<Self>> {
        let Some(path) = environment("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Self {
            socket,
            address: address(&path)?,
            watchdog: watchdog(&environment),
            clock,
            ready: false,
            stopping: false,
            told: None,
        }))
    }

    /// Follows the keeper until it ends. To be spawned on the keeper's own
    /// runtime: a loop that is blocked feeds no watchdog.
    pub async fn follow(mut self, mut keeper: watch::Receiver<Snapshot>) {
        let feeding = self
            .watchdog
            .map_or(TICK, |limit| limit / 3)
            .max(Duration::from_millis(1));
        let mut ticks = interval(feeding.min(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut phase = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let snapshot = keeper.borrow_and_update().clone();
                    phase = Some(snapshot.phase);
                    self.tick(&snapshot);
                }
                changed = keeper.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What changes within a phase may wait for the tick.
                    let snapshot = keeper.borrow_and_update().clone();
                    if phase.replace(snapshot.phase) != Some(snapshot.phase) {
                        self.tick(&snapshot);
                    }
                }
            }
        }
    }

    /// Says what is new.
    fn tick(&mut self, snapshot: &Snapshot) {
        let now = (self.clock)();
        let status = status(snapshot, now);
        let mut news = Vec::new();
        if !self.ready {
            self.ready = true;
            news.push(NotifyState::Ready);
        }
        if snapshot.ending && !self.stopping {
            self.stopping = true;
            news.push(NotifyState::Stopping);
        }
        if winds_down(snapshot) {
            let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
            news.push(NotifyState::ExtendTimeoutUsec(micros));
        }
        if self.watchdog.is_some() && snapshot.live(now).is_ok() {
            news.push(NotifyState::Watchdog);
        }
        let about = about(snapshot);
        let fresh = self
            .told
            .as_ref()
            .is_some_and(|told| told.about == about && now < told.at + STATUS_EVERY);
        if !fresh {
            news.push(NotifyState::Status(&status));
        }
        let sent = self.send(&news);
        // What was not taken is said again at the next tick.
        if sent.is_ok() {
            if !fresh {
                self.told = Some(Told { at: now, about });
            }
        } else {
            self.ready &= !news.iter().any(|state| matches!(state, NotifyState::Ready));
            self.stopping &= !news
                .iter()
                .any(|state| matches!(state, NotifyState::Stopping));
        }
    }

    fn send(&self, news: &[NotifyState<'_>]) -> io::Result<()> {
        if news.is_empty() {
            return Ok(());
        }
        let message: String = news.iter().map(|state| format!("{state}\n")).collect();
        self.socket
            .send_to_addr(message.as_bytes(), &self.address)
            .map(drop)
    }
}

/// A path, or a name in the abstract namespace.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(path),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a path nor an abstract name",
        )),
    }
}

fn watchdog(environment: &impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name: &str| environment(name)?.to_str()?.parse::<u64>().ok();
    let ours = match environment("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(u64::from(std::process::id())),
        None => true,
    };
    number("WATCHDOG_USEC")
        .filter(|micros| ours && *micros > 0)
        .map(Duration::from_micros)
}

fn winds_down(snapshot: &Snapshot) -> bool {
    match snapshot.phase {
        // At the very end hooks are waited for.
        Phase::Stopping | Phase::Releasing | Phase::Ended => snapshot.ending,
        Phase::Standby | Phase::Acquiring | Phase::Starting | Phase::Holding => false,
    }
}

fn about(snapshot: &Snapshot) -> About {
    let own = snapshot.term.as_ref().map(|term| term.token.0);
    let other = snapshot.other.as_ref().map(|other| other.record.token.0);
    (snapshot.role(), own, other, snapshot.worker_status.clone())
}

/// Role, holder and time left, in one line.
fn status(snapshot: &Snapshot, now: BootInstant) -> String {
    let name = snapshot.name.as_str();
    let text = match (&snapshot.term, &snapshot.other) {
        (Some(term), _) => format!(
            "{} lease {name} (token {}), {} s left",
            snapshot.role(),
            term.token,
            snapshot.left(now).as_secs()
        ),
        (None, _) if snapshot.phase == Phase::Ended => format!("ended for lease {name}"),
        (None, Some(other)) => format!(
            "{} for lease {name}, held by {} (token {}): {}",
            snapshot.role(),
            other.record.label,
            other.record.token,
            reason(snapshot)
        ),
        (None, None) => format!("{} for lease {name}: {}", snapshot.role(), reason(snapshot)),
    };
    let text = match &snapshot.worker_status {
        Some(worker) => format!("{text}; the worker: {worker}"),
        None => text,
    };
    // One datagram holds one line for each state.
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

fn reason(snapshot: &Snapshot) -> &str {
    snapshot.reason.as_deref().unwrap_or("nothing is known yet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::snapshot::tests::{at, holding, standby};

    fn now() -> BootInstant {
        at(100)
    }

    fn notifier(dir: &std::path::Path, watchdog: &str) -> (Notifier, UnixDatagram) {
        let path = dir.join("notify");
        let manager = UnixDatagram::bind(&path).expect("free");
        manager
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a limit");
        let environment = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into_os_string()),
            "WATCHDOG_USEC" => Some(watchdog.into()),
            _ => None,
        };
        let notifier = Notifier::new(environment, now)
            .expect("a socket")
            .expect("a manager");
        (notifier, manager)
    }

    fn told(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_standby_is_ready_and_says_what_it_waits_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut notifier, manager) = notifier(dir.path(), "0");
        notifier.tick(&standby());
        assert_eq!(
            told(&manager),
            "READY=1\nSTATUS=standby for lease job: it is held\n"
        );
        notifier.tick(&holding());
        assert_eq!(
            told(&manager),
            "STATUS=holding lease job (token 7), 20 s left\n"
        );
    }

    #[test]
    fn only_a_healthy_loop_feeds_the_watchdog() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut notifier, manager) = notifier(dir.path(), "3000000");
        notifier.tick(&holding());
        assert!(told(&manager).contains("WATCHDOG=1\n"));
        let mut stuck = holding();
        stuck.next_wakeup = Some(at(90));
        stuck.value = crate::lease::ids::Value::new("x").expect("a value");
        stuck.phase = Phase::Starting;
        notifier.tick(&stuck);
        assert!(!told(&manager).contains("WATCHDOG=1"));
    }

    #[test]
    fn a_stop_is_told_and_its_time_is_extended() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut notifier, manager) = notifier(dir.path(), "0");
        let mut stopping = holding();
        stopping.phase = Phase::Stopping;
        stopping.ending = true;
        notifier.tick(&stopping);
        let said = told(&manager);
        assert!(
            said.contains("STOPPING=1\n") && said.contains("EXTEND_TIMEOUT_USEC=5000000\n"),
            "{said}"
        );
        notifier.tick(&stopping);
        let said = told(&manager);
        assert!(
            !said.contains("STOPPING=1") && said.contains("EXTEND_TIMEOUT_USEC"),
            "{said}"
        );
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut notifier, manager) = notifier(dir.path(), "0");
        for _ in 0..5_000 {
            notifier.tick(&standby());
            notifier.tick(&holding());
        }
        assert!(told(&manager).contains("READY=1"));
    }

    #[test]
    fn without_a_manager_there_is_nothing_to_do() {
        assert!(Notifier::new(|_| None, now).expect("no socket").is_none());
        let odd = |name: &str| (name == "NOTIFY_SOCKET").then(|| OsString::from("vsock:1"));
        assert!(Notifier::new(odd, now).is_err());
    }
}
