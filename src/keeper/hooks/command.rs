//! One hook that runs: a command of the shell, below a guard of its own, so
//! that it is killed with all that it started by the very code that kills a
//! worker, in time whatever this process does.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::notice::Notice;
use super::output::Output;
use crate::keeper::link::Link;
use crate::keeper::news::News;
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::GuardEvent;
use crate::lease::time::BootInstant;
use crate::lease::timing::Rounded;
use crate::sys::guard_process::{self, HookStreams, THIS_PROGRAM};
use crate::sys::memfd::{InputFile, Setup};
use crate::sys::{Result, SysError, inherited, signals};
use crate::wire::{NotStarted, Start, ToGuard, WorkerEnd};

/// A guard that stands still ends itself half a second after its deadline.
/// What is there so long after it cannot be killed.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// The most lines that are kept for the end.
const KEPT: usize = 128;

/// A hook that runs, or whose processes are being killed.
pub struct Running {
    /// What for.
    pub what: What,
    lease: LeaseName,
    link: Link,
    output: Output,
    began: BootInstant,
    deadline: BootInstant,
    verdict: Option<Verdict>,
    late: bool,
    /// Of a precheck: what it said is logged when it is known how it ended.
    kept: Vec<String>,
}

/// What a hook runs for.
#[derive(Debug)]
pub enum What {
    /// `--precheck`.
    Precheck,
    /// `--on-event`.
    Event(Box<Notice>),
}

/// How a hook has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// By itself.
    Ended(WorkerEnd),
    /// It was not done in time.
    TimedOut,
    /// It never ran.
    NotStarted(String),
    /// Its guard died, and it with it. (What it had started may live on.)
    GuardDied,
}

/// What is heard of a hook.
#[derive(Debug)]
pub enum Heard {
    /// Of its guard.
    News(News),
    /// It has said something.
    Output,
}

/// What has come of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// How it ended is known since now.
    pub concluded: bool,
    /// Nothing is left of it.
    pub gone: bool,
}

impl Verdict {
    /// Exit code 0.
    pub fn passed(&self) -> bool {
        *self == Self::Ended(WorkerEnd::Exited(0))
    }
}

impl Running {
    /// Starts `command`; `input` is its standard input.
    ///
    /// # Errors
    /// No process, no descriptors.
    pub fn start(
        what: What,
        command: &OsStr,
        start: Start,
        input: &[u8],
        began: BootInstant,
    ) -> Result<Self> {
        let setup = Setup {
            path: b"/bin/sh".to_vec(),
            arguments: [b"sh".as_slice(), b"-c", command.as_bytes()]
                .map(<[u8]>::to_vec)
                .to_vec(),
            pid_namespace: false,
            // What its guard says is the hook's output.
            json_log: false,
        };
        let input = InputFile::create(input)?;
        let (output, theirs) = Output::new().map_err(SysError::on("create a pipe for a hook"))?;
        let streams = HookStreams {
            input: input.as_fd(),
            output: theirs.as_fd(),
        };
        let guard = guard_process::spawn_for_hook(THIS_PROGRAM, inherited::get(), &setup, streams)?;
        let mut link = Link::of_hook(guard)?;
        let deadline = start.deadline;
        let lease = start.name.clone();
        link.send(&ToGuard::Start(start));
        Ok(Self {
            what,
            lease,
            link,
            output,
            began,
            deadline,
            verdict: None,
            late: false,
            kept: Vec::new(),
        })
    }

    /// Waits for news. Cancel safe.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            news = self.link.next() => Heard::News(news),
            () = self.output.ready() => Heard::Output,
        }
    }

    /// Takes in what was heard.
    pub fn take(&mut self, heard: Heard, now: BootInstant) -> Progress {
        let news = match heard {
            Heard::Output => {
                self.read(now, false);
                return Progress::default();
            }
            Heard::News(news) => news,
        };
        let knew = self.verdict.is_some();
        match news {
            News::Event(event) => self.guard(event),
            News::LeftBehind(processes) => tracing::warn!(
                event = "hook-left-behind",
                name = %self.lease,
                hook = self.name(),
                trigger = self.trigger(),
                processes = processes.join(", "),
                "the {self} has ended and left processes behind, which are killed: {}",
                processes.join(", ")
            ),
            News::Unkillable(process) => tracing::warn!(
                event = "hook-unkillable",
                name = %self.lease,
                hook = self.name(),
                trigger = self.trigger(),
                process,
                "cannot kill {process} of the {self}"
            ),
            News::WorkerStopped(_) | News::StopAsked(_) | News::Nothing => {}
        }
        Progress {
            concluded: !knew && self.verdict.is_some(),
            gone: self.link.is_gone(),
        }
    }

    fn guard(&mut self, event: GuardEvent) {
        let nothing_left = matches!(event, GuardEvent::Empty | GuardEvent::NotStarted(_));
        let verdict = match event {
            GuardEvent::Ready | GuardEvent::Started { .. } => None,
            GuardEvent::WorkerEnded(end) => Some(Verdict::Ended(end)),
            GuardEvent::Stopping(_) | GuardEvent::NotStarted(NotStarted::Late) => {
                Some(Verdict::TimedOut)
            }
            GuardEvent::NotStarted(NotStarted::Exec { errno }) => {
                let why = std::io::Error::from_raw_os_error(errno);
                Some(Verdict::NotStarted(format!(
                    "cannot execute /bin/sh: {why}"
                )))
            }
            GuardEvent::NotStarted(NotStarted::Failed { message }) => {
                Some(Verdict::NotStarted(message))
            }
            // It says how the command ended first, if it can say anything.
            GuardEvent::Empty | GuardEvent::Gone | GuardEvent::Swept => Some(Verdict::GuardDied),
        };
        if self.verdict.is_none() {
            self.verdict = verdict;
        }
        if nothing_left {
            self.link.dismiss();
        }
    }

    /// Reads what it has said by now; `all`: a begun line too.
    pub fn read(&mut self, now: BootInstant, all: bool) {
        for line in self.output.read(now, all) {
            match self.what {
                What::Precheck if self.kept.len() < KEPT => self.kept.push(line),
                What::Precheck => {}
                What::Event(_) => tracing::info!(
                    event = "hook-output",
                    name = %self.lease,
                    hook = self.name(),
                    trigger = self.trigger(),
                    "{self}: {line}"
                ),
            }
        }
    }

    /// What a precheck has said, once.
    pub fn take_kept(&mut self) -> Vec<String> {
        std::mem::take(&mut self.kept)
    }

    /// What was wrong with its end, if anything was, with its own last words.
    pub fn complaint(&self) -> Option<String> {
        let how = match &self.verdict {
            Some(verdict) if verdict.passed() => return None,
            Some(Verdict::Ended(WorkerEnd::Exited(code))) => format!("exit code {code}"),
            Some(Verdict::Ended(WorkerEnd::Signaled(signal))) => {
                format!("ended by {}", signals::name(*signal))
            }
            Some(Verdict::TimedOut) => format!(
                "not done within {}, so it was killed with all that it started",
                Rounded(self.deadline.saturating_since(self.began))
            ),
            Some(Verdict::NotStarted(why)) => why.clone(),
            Some(Verdict::GuardDied) => "its guard process died, and it with it".to_owned(),
            None => "cut short".to_owned(),
        };
        match self.output.last_words() {
            "" => Some(how),
            words => Some(format!("{how}: {words}")),
        }
    }

    /// For how long it runs, or ran.
    pub fn took(&self, now: BootInstant) -> Duration {
        now.saturating_since(self.began)
    }

    /// Whether it is a precheck.
    pub fn is_precheck(&self) -> bool {
        matches!(self.what, What::Precheck)
    }

    /// Whether it is still there long after it should have been dead: then it
    /// holds up nobody any more.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Its guard's process, while others must not reap it.
    pub fn child(&self) -> Option<i32> {
        self.link.child()
    }

    /// SIGKILL to all of it.
    pub fn kill(&mut self, now: BootInstant) {
        self.link.kill(now);
    }

    /// Its guard may have been stopped: then it is woken.
    pub fn child_changed(&mut self, now: BootInstant) {
        // A hook's link sweeps nothing, and has nothing to tell here.
        let _ = self.link.child_changed(now, &[]);
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        let late = (!self.late).then(|| self.deadline + LATE_AFTER);
        let all = [late, self.link.next_wakeup(), self.output.next_wakeup()];
        all.into_iter().flatten().min()
    }

    /// Does what has become due.
    pub fn wake(&mut self, now: BootInstant) -> Progress {
        // As above.
        let _ = self.link.wake(now, &[]);
        self.output.wake(now);
        if self.late || now < self.deadline + LATE_AFTER {
            return Progress::default();
        }
        self.late = true;
        let concluded = self.verdict.is_none();
        if concluded {
            self.verdict = Some(Verdict::TimedOut);
            self.kill(now);
        }
        Progress {
            concluded,
            gone: false,
        }
    }

    /// Of which lease.
    pub fn lease(&self) -> &LeaseName {
        &self.lease
    }

    /// Which option it is of.
    pub fn name(&self) -> &'static str {
        match self.what {
            What::Precheck => "precheck",
            What::Event(_) => "on-event",
        }
    }

    /// Which event it is told of.
    pub fn trigger(&self) -> Option<&'static str> {
        match &self.what {
            What::Precheck => None,
            What::Event(notice) => Some(notice.event.name()),
        }
    }
}

/// Reads after "the".
impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trigger() {
            None => f.write_str("precheck"),
            Some(event) => write!(f, "hook for {event}"),
        }
    }
}
