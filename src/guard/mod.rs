//! The guard: a small synchronous process that owns the worker.
//!
//! One `poll`, four descriptors: the keeper's channel, SIGCHLD, the alarm and
//! the forked child's report. What they say becomes an event of
//! [`crate::lease::guard`]; that machine decides, `perform` acts.

mod outbox;
mod perform;

use std::collections::VecDeque;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::{self, End, LastLine};
use crate::lease::guard::{Action, Event, Guard, KeeperLoss};
use crate::lease::ids::LeaseName;
use crate::sys::memfd::Setup;
use crate::sys::namespace::Namespace;
use crate::sys::process::{self, Change, Waited};
use crate::sys::role::GuardStart;
use crate::sys::signals::{self, ChildSignals};
use crate::sys::socket::{Buffer, Received};
use crate::sys::timer::{BootTimer, SelfKill, SelfWake};
use crate::sys::tree::{self, Round, Sweep};
use crate::sys::worker::{Report, Worker};
use crate::sys::{SysError, clock};
use crate::wire::{Hello, MAX_FRAME, ToGuard, VERSION, WorkerEnd};

use outbox::Outbox;
use perform::Performed;

/// So many frames are read before everybody else gets a look.
const FRAMES_AT_ONCE: usize = 64;

/// Runs this process as the guard, to its end.
pub fn run(start: GuardStart) -> End {
    let setup = start.setup.read();
    let json = setup.as_ref().is_ok_and(|setup| setup.json_log);
    let cannot = |name, error| failed(json, name, format!("the guard cannot {error}"));
    match Running::set_up(start, setup, json) {
        Ok(mut running) => running
            .run()
            .unwrap_or_else(|error| cannot(running.name.take(), error)),
        Err(error) => cannot(None, error),
    }
}

/// Nothing runs yet, or the parent-death signal ends it: the keeper sees that
/// the guard is gone, and does the rest.
fn failed(json: bool, name: Option<LeaseName>, message: String) -> End {
    End {
        code: exit::FAILED,
        last: Some(LastLine {
            json,
            name,
            outcome: "failed",
            killed: None,
            message,
        }),
    }
}

struct Running {
    machine: Guard,
    given: GuardStart,
    /// The worker's command, or why it cannot be read.
    setup: Result<Setup, SysError>,
    json_log: bool,
    /// The lease, once there is a worker to start.
    name: Option<LeaseName>,
    outbox: Outbox,
    child_signals: ChildSignals,
    alarm: BootTimer,
    self_wake: SelfWake,
    self_kill: SelfKill,
    worker: Option<Worker>,
    /// What the tree lives in, with `--pid-namespace`, until its init is reaped.
    namespace: Option<Namespace>,
    sweep: Option<Sweep>,
    /// A round of the sweep is due.
    round_due: bool,
    /// How many of the tree got SIGKILL, once it is empty.
    killed: u32,
    /// Who was reported as unkillable.
    unkillable: Vec<String>,
}

impl Running {
    fn set_up(
        mut given: GuardStart,
        setup: Result<Setup, SysError>,
        json_log: bool,
    ) -> Result<Self, SysError> {
        signals::ignore_all_but_faults();
        process::become_subreaper()?;
        tree::children::hold_own();
        if let Some(probe) = given.probe.take() {
            probe.run(&given.kept);
        }
        let hello = Hello {
            version: VERSION,
            time_namespace: clock::time_namespace(),
        };
        let (machine, actions) = Guard::new(hello);
        let mut running = Self {
            machine,
            setup,
            json_log,
            name: None,
            given,
            outbox: Outbox::default(),
            child_signals: ChildSignals::new()?,
            alarm: BootTimer::new()?,
            self_wake: SelfWake::new()?,
            self_kill: SelfKill::new()?,
            worker: None,
            namespace: None,
            sweep: None,
            round_due: false,
            killed: 0,
            unkillable: Vec::new(),
        };
        for action in actions {
            // A greeting has no reply and ends nothing.
            let _ = running.perform(action);
        }
        Ok(running)
    }

    fn run(&mut self) -> Result<End, SysError> {
        loop {
            let ready = self.wait()?;
            if let Some(end) = self.take_in(ready)? {
                return Ok(end);
            }
        }
    }

    /// Sleeps until something happens; says what.
    fn wait(&mut self) -> Result<Ready, SysError> {
        let report = self.worker.as_ref().and_then(Worker::report_fd);
        let channel = (!self.machine.has_lost_keeper()).then(|| self.given.channel.as_fd());
        let channel_wants = if self.outbox.is_empty() {
            PollFlags::POLLIN
        } else {
            PollFlags::POLLIN | PollFlags::POLLOUT
        };
        // A place without a descriptor is given one that is asked nothing.
        let asked_nothing = (self.child_signals.as_fd(), PollFlags::empty());
        let places = [
            channel.map_or(asked_nothing, |fd| (fd, channel_wants)),
            report.map_or(asked_nothing, |fd| (fd, PollFlags::POLLIN)),
            (self.child_signals.as_fd(), PollFlags::POLLIN),
            (self.alarm.as_fd(), PollFlags::POLLIN),
        ];
        let mut waited = places.map(|(fd, wants)| PollFd::new(fd, wants));
        let timeout = if self.round_due {
            PollTimeout::ZERO
        } else {
            PollTimeout::NONE
        };
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(SysError::on("wait for events")(error)),
        }
        let is_ready = |place: usize| waited[place].any().unwrap_or(false);
        Ok(Ready {
            channel: channel.is_some() && is_ready(0),
            report: report.is_some() && is_ready(1),
            child: is_ready(2),
            alarm: is_ready(3),
        })
    }

    /// Turns what has happened into events. `Some`: the end.
    fn take_in(&mut self, ready: Ready) -> Result<Option<End>, SysError> {
        let mut events = VecDeque::new();
        // First of all: what the keeper has said counts before its silence.
        if ready.channel {
            self.outbox.flush(&self.given.channel);
            self.read_frames(&mut events);
        }
        if ready.alarm {
            self.alarm.consume();
            events.push_back(Event::Wake);
        }
        if ready.report {
            self.read_report(&mut events);
        }
        if ready.child {
            self.child_signals.consume();
            self.reap(&mut events);
        }
        loop {
            while let Some(event) = events.pop_front() {
                if let Some(end) = self.step(event, &mut events)? {
                    return Ok(Some(end));
                }
            }
            if !self.round_due {
                return Ok(None);
            }
            self.sweep_round(&mut events);
            // While it is due again, the keeper gets a look in between.
            if events.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Lets the machine decide on one event, and does what it says.
    fn step(
        &mut self,
        event: Event,
        events: &mut VecDeque<Event>,
    ) -> Result<Option<End>, SysError> {
        let actions = self.machine.step(event, clock::now());
        if actions.contains(&Action::KillTree) {
            // With the old timers: the new ones leave the killing its time,
            // and who is stopped before it has begun has none to give.
            self.strike();
        }
        // Before anything else is done: the timers are what holds if this
        // process is stopped in the middle of it.
        self.set_timers()?;
        for action in actions {
            match self.perform(action) {
                Performed::Done => {}
                Performed::Event(event) => events.push_back(event),
                Performed::End(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    fn set_timers(&mut self) -> Result<(), SysError> {
        let next = self.machine.next_wakeup();
        self.alarm.set(next)?;
        self.self_wake.set(next)?;
        self.self_kill.set(self.machine.self_kill_at())
    }

    fn read_frames(&mut self, events: &mut VecDeque<Event>) {
        let mut buffer: Buffer = [0; MAX_FRAME];
        for _ in 0..FRAMES_AT_ONCE {
            let event = match self.given.channel.receive(&mut buffer) {
                Received::Frame(frame) => match ToGuard::decode(frame) {
                    Ok(frame) => Event::Frame(frame),
                    Err(_) => Event::KeeperLost(KeeperLoss::Malformed),
                },
                Received::TooLong => Event::KeeperLost(KeeperLoss::Malformed),
                Received::Nothing => return,
                Received::Closed => Event::KeeperLost(KeeperLoss::Closed),
            };
            let is_last = matches!(event, Event::KeeperLost(_));
            events.push_back(event);
            if is_last {
                return;
            }
        }
    }

    fn read_report(&mut self, events: &mut VecDeque<Event>) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        match worker.report() {
            Report::Pending => {}
            Report::Executed => events.push_back(Event::Executed),
            Report::NotExecuted(why) => events.push_back(Event::NotExecuted(why)),
        }
    }

    /// Reaps everybody who has ended, and reports what concerns the worker.
    fn reap(&mut self, events: &mut VecDeque<Event>) {
        loop {
            match process::wait_any() {
                Waited::Changed { pid, change } => {
                    if let Change::Exited(_) | Change::Killed(_) = change
                        && let Some(sweep) = &mut self.sweep
                    {
                        self.round_due |= sweep.reaped(pid);
                    }
                    self.report_change(pid, change, events);
                }
                Waited::Nothing => return,
                Waited::NoChild => break,
            }
        }
        if self.machine.has_tree() {
            self.round_due = false;
            let killed = self.sweep.take().map_or(0, |sweep| sweep.killed());
            self.killed = killed;
            events.push_back(Event::TreeEmpty { killed });
        }
    }

    /// What has become of a child is reported where the child is the worker.
    fn report_change(&mut self, pid: i32, change: Change, events: &mut VecDeque<Event>) {
        if let Change::Exited(_) | Change::Killed(_) = change {
            self.namespace.take_if(|namespace| namespace.init() == pid);
        }
        if self.worker.as_ref().is_none_or(|worker| worker.pid != pid) {
            return;
        }
        let end = match change {
            Change::Stopped(signal) => return events.push_back(Event::WorkerStopped { signal }),
            Change::Continued => return events.push_back(Event::WorkerContinued),
            Change::Exited(code) => WorkerEnd::Exited(code),
            Change::Killed(signal) => WorkerEnd::Signaled(signal),
        };
        // Its report comes first, however close the two are.
        self.read_report(events);
        events.push_back(Event::WorkerEnded(end));
        // The number is free for another process from here on.
        self.worker = None;
        if let Some(namespace) = &self.namespace {
            namespace.worker_has_ended();
        }
    }

    /// A round of the sweep; it reaps as it goes.
    fn sweep_round(&mut self, events: &mut VecDeque<Event>) {
        let Some(mut sweep) = self.sweep.take() else {
            return;
        };
        let round = sweep.round(&mut || {
            let (pid, change) = process::reap_any()?;
            self.report_change(pid, change, events);
            Some(pid)
        });
        self.round_due = round == Round::Again;
        self.sweep = Some(sweep);
        // It may have reaped the last one, and no signal comes for that.
        self.reap(events);
    }
}

/// What `poll` said.
struct Ready {
    channel: bool,
    report: bool,
    child: bool,
    alarm: bool,
}
