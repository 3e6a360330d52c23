//! Hosts, a database, and what can happen between them. Everything that is
//! left to chance is a [`Choice`]; the checker tries all, the simulation
//! draws.

pub mod calls;
pub mod faults;
pub mod guard_loop;
pub mod host;
mod keeper_loop;
mod kernel;
pub mod mischief;
pub mod relative;
pub mod store;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::ids::{Slot, Token};
use leasewrap::lease::time::BootInstant;
use leasewrap::lease::timing::Chance;

use crate::coverage::Pairs;

use self::calls::Call;
use self::faults::Fault;
use self::host::Run;
pub use self::host::{Host, HostSetup};
use self::relative::{REVISION_ORIGIN, Relative, START};
use self::store::{Store, nanos};

/// A rule that is broken on purpose: the checker must notice each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// A deadline counts from the reply, not from the sending.
    DeadlineFromTheReply,
    /// A time-out counts as a renewal.
    UnknownIsSuccess,
    /// A renewal that comes too late revives a worker that was told to stop.
    LateRenewalRevives,
    /// The guard starts a worker whenever it is told to.
    NoDeadlineAtSpawn,
    /// The guard leaves the deadline to the keeper, and that has no timer.
    GuardKeepsNoDeadline,
    /// The worker's end counts as the end of its tree.
    ReleaseBeforeEmpty,
    /// The guard has the lease released as soon as its keeper is gone.
    ReleaseWhenTheKeeperDies,
    /// Watching counts from the sending of the poll.
    WatchFromTheSend,
    /// A standby takes a row that it has watched for one ttl less a margin.
    ShortWatch,
    /// An acquisition that was not answered is forgotten.
    UnansweredIsForgotten,
    /// An acquisition does not compare what was watched.
    AcquisitionComparesNothing,
    /// A released row is free whatever incarnation it carries.
    IncarnationsDoNotMatter,
    /// A repeated release stamps the server's present incarnation.
    ReleaseStampsTheNewIncarnation,
    /// A holder whose time is up renews on a new incarnation.
    TooLateOnANewIncarnation,
    /// A token in doubt jumps by a fixed amount.
    FixedTokenJump,
    /// A missing row is free at once, on a promoted replica too.
    MissingRowOnPromotedReplica,
    /// An operator's requests count as signs of life.
    RequestsBumpTheRevision,
    /// An acquisition does not compare whether a row that is said to be
    /// released is.
    NoticesAreBelieved,
}

/// What never changes in a world.
#[derive(Debug, Clone)]
pub struct Setup {
    pub hosts: Vec<HostSetup>,
    /// How long SIGKILL takes.
    pub kill_time: Duration,
    /// From a fork to the child's readiness.
    pub fork_time: Duration,
    /// How long a worker that obeys takes to end.
    pub stop_time: Duration,
    /// How long after a client has given up its statement may yet run.
    pub late_by: Duration,
    /// How long a host is cut off or suspended, and a process stopped.
    pub away_for: Duration,
    /// An operator repeats a request so often while nobody runs.
    pub requests_every: Option<Duration>,
    /// What may happen,
    pub faults: Vec<Fault>,
    /// and how often in all.
    pub budget: u8,
    /// How long at most nobody runs although somebody could.
    pub longest_gap: Duration,
    /// Where it ends, in worlds that never come back to where they were.
    pub horizon: Option<Duration>,
    pub mutation: Option<Mutation>,
    /// Which pairs of state and event were driven.
    pub driven: Arc<Pairs>,
}

/// Something that happens by itself when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pending {
    Start(usize),
    KeeperWakes(usize),
    GuardWakes(usize),
    /// The guard's own SIGKILL.
    GuardTimer(usize),
    /// The keeper's own SIGKILL.
    KeeperTimer(usize),
    TreeEnds(usize),
    TreeDies(usize),
    ChildReady(usize),
    Notification(usize),
    /// A suspended host, or a stopped process on it, goes on.
    Resumes(usize),
    Reconnects(usize),
    /// A precheck ends.
    Prechecked(usize),
    /// The answer of a reading of one's own row has come late.
    Checked(usize),
    /// The next thing that happens to a call.
    Call(usize),
    Request,
    /// A pause or a recovery.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Happens(Pending),
    Fault(Fault),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// The model's clock, in nanoseconds.
    pub now: u64,
    pub hosts: Vec<Host>,
    pub store: Store,
    pub calls: Vec<Call>,
    /// How many faults may yet happen.
    pub left: u8,
    /// The highest token that a worker was started with, by slot.
    pub highest: BTreeMap<Slot, Token>,
    /// How many workers were started (not hashed: it grows for ever).
    pub terms: u64,
    /// Since when nobody runs.
    pub idle_since: u64,
    pub requests_at: Option<u64>,
    /// When a pause and a recovery are over.
    pub over_at: Option<u64>,
    /// Drawn anew for each step of a keeper (simulation only).
    pub chance: Chance,
    /// What was found to be wrong.
    pub violation: Option<&'static str>,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        Self {
            now: START,
            hosts: (0..)
                .zip(&setup.hosts)
                .map(|(index, host)| Host::new(index, host))
                .collect(),
            store: Store::new(setup.mutation),
            calls: Vec::new(),
            left: setup.budget,
            highest: BTreeMap::new(),
            terms: 0,
            idle_since: START,
            requests_at: setup.requests_every.map(|every| START + nanos(every)),
            over_at: None,
            chance: Chance::MIDDLE,
            violation: None,
        }
    }

    /// Since the beginning.
    pub fn passed(&self) -> Duration {
        Duration::from_nanos(self.now - START)
    }

    pub fn violates(&mut self, what: &'static str) {
        self.violation.get_or_insert(what);
    }

    pub fn at(&self, setup: &Setup, host: usize) -> BootInstant {
        BootInstant::from_nanos(host::local(self.now, setup.hosts[host].clock_rate))
    }

    /// Everything that comes next by itself: more than one thing where they
    /// come at the same instant.
    pub fn next(&self, setup: &Setup) -> Vec<Pending> {
        let pending = self.pending(setup);
        let Some(first) = pending.iter().map(|(at, _)| (*at).max(self.now)).min() else {
            return Vec::new();
        };
        pending
            .into_iter()
            .filter(|(at, _)| *at <= first)
            .map(|(_, pending)| pending)
            .collect()
    }

    fn pending(&self, setup: &Setup) -> Vec<(u64, Pending)> {
        let mut pending = Vec::new();
        for (host, host_setup) in self.hosts.iter().zip(&setup.hosts) {
            self.pending_of_host(host, host_setup, &mut pending);
        }
        for (index, call) in self.calls.iter().enumerate() {
            if let Some(at) = call.next_at(&self.hosts) {
                pending.push((at, Pending::Call(index)));
            }
        }
        if let Some(at) = self.requests_at {
            pending.push((at, Pending::Request));
        }
        pending.extend(self.over_at.map(|at| (at, Pending::Over)));
        pending
    }

    fn pending_of_host(&self, host: &Host, setup: &HostSetup, pending: &mut Vec<(u64, Pending)>) {
        let index = host.index;
        let rate = setup.clock_rate;
        let global = |at: BootInstant| host::global(at.as_nanos(), rate);
        let mut push = |at: Option<u64>, what: Pending| pending.extend(at.map(|at| (at, what)));
        if !host.started {
            push(
                Some(host.starts_at.max(START + nanos(setup.starts_after))),
                Pending::Start(index),
            );
            return;
        }
        push(
            host.suspended_until.or(host.thaws_at),
            Pending::Resumes(index),
        );
        push(host.cut_until, Pending::Reconnects(index));
        if host.is_suspended() {
            return;
        }
        if host.keeper_run == Run::Running && host.outcome.is_none() {
            push(
                host.keeper.next_wakeup().map(global),
                Pending::KeeperWakes(index),
            );
            push(
                host.notified.then_some(self.now),
                Pending::Notification(index),
            );
            push(host.prechecked_at, Pending::Prechecked(index));
            let checked_at = host.checked.as_ref().map(|(at, _)| *at);
            push(checked_at, Pending::Checked(index));
        }
        let has_timer = self.store.mutation != Some(Mutation::GuardKeepsNoDeadline);
        if host.keeper_run == Run::Frozen && has_timer {
            let timer = host
                .keeper
                .deadline()
                .map(|at| global(at + Duration::from_secs(1)));
            push(timer, Pending::KeeperTimer(index));
        }
        if host.guard_run == Run::Running {
            push(
                host.guard.next_wakeup().map(global),
                Pending::GuardWakes(index),
            );
            push(
                host.forked.as_ref().map(|(ready_at, _)| *ready_at),
                Pending::ChildReady(index),
            );
        }
        if host.guard_run == Run::Frozen {
            push(
                host.guard.self_kill_at().map(global),
                Pending::GuardTimer(index),
            );
        }
        push(host.tree.ends_at, Pending::TreeEnds(index));
        push(host.tree.dies_at, Pending::TreeDies(index));
    }

    pub fn choices(&self, setup: &Setup) -> Vec<Choice> {
        let mut choices: Vec<_> = self.next(setup).into_iter().map(Choice::Happens).collect();
        if self.left > 0 {
            let faults = setup.faults.iter().flat_map(|fault| self.possible(*fault));
            choices.extend(faults.map(Choice::Fault));
        }
        choices
    }

    pub fn apply(&mut self, setup: &Setup, choice: &Choice) {
        match choice {
            Choice::Happens(pending) => {
                let at = self
                    .pending(setup)
                    .into_iter()
                    .find(|(_, what)| what == pending);
                self.now = self.now.max(at.map_or(self.now, |(at, _)| at));
                self.happens(setup, *pending);
            }
            Choice::Fault(fault) => {
                self.left -= 1;
                self.idle_since = self.now;
                self.strike(setup, *fault);
            }
        }
        self.note_gap(setup);
    }

    /// For people.
    pub fn describe(&self, choice: &Choice) -> String {
        let call = |index: usize| {
            self.calls.get(index).map(|call| {
                let statement = format!("{:?}", call.statement);
                let name = statement
                    .split(['(', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let progress = format!("{:?}", call.progress);
                let progress = progress
                    .split(['(', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                format!("{:?} {name} {progress}", call.caller)
            })
        };
        match choice {
            Choice::Happens(Pending::Call(index)) => format!("{:?}", call(*index)),
            Choice::Fault(Fault::Call(index, mishap)) => {
                format!("FAULT {mishap:?} {:?}", call(*index))
            }
            Choice::Happens(pending) => format!("{pending:?}"),
            Choice::Fault(fault) => format!("FAULT {fault:?}"),
        }
    }

    fn happens(&mut self, setup: &Setup, pending: Pending) {
        match pending {
            Pending::Start(host) => self.start(setup, host),
            Pending::KeeperWakes(host) => self.wake_keeper(setup, host),
            Pending::GuardWakes(host) => self.wake_guard(setup, host),
            Pending::GuardTimer(host) => self.kill_guard(setup, host),
            Pending::KeeperTimer(host) => self.kill_keeper(setup, host),
            Pending::TreeEnds(host) | Pending::TreeDies(host) => self.end_tree(setup, host),
            Pending::ChildReady(host) => self.child_ready(setup, host),
            Pending::Notification(host) => self.notify(setup, host),
            Pending::Resumes(host) => self.resume(setup, host),
            Pending::Reconnects(host) => self.hosts[host].cut_until = None,
            Pending::Prechecked(host) => self.prechecked(setup, host),
            Pending::Checked(host) => self.checked(setup, host),
            Pending::Call(index) => self.call_goes_on(setup, index),
            Pending::Request => self.request(setup),
            Pending::Over => {
                (self.store.paused, self.store.in_recovery) = (false, false);
                self.over_at = None;
                self.notify_all();
            }
        }
    }

    /// Somebody must run if somebody could, within bounds.
    fn note_gap(&mut self, setup: &Setup) {
        let runs = self.hosts.iter().any(|host| host.tree.is_alive());
        let could =
            self.hosts.iter().any(Host::contends) && !self.store.paused && !self.store.in_recovery;
        if runs || !could {
            self.idle_since = self.now;
        } else if self.now - self.idle_since > nanos(setup.longest_gap) {
            self.violates("nobody runs");
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let revision = self
            .store
            .rows
            .values()
            .map(|row| row.revision.0)
            .max()
            .unwrap_or(REVISION_ORIGIN);
        for host in &self.hosts {
            let rate = host.clock_rate;
            host.hash_into(state, host::local(self.now, rate), self.now, revision);
        }
        let mut state = Relative {
            inner: state,
            now: self.now,
            revision,
        };
        (&self.store.rows, &self.store.before, self.store.timeline).hash(&mut state);
        (
            self.store.in_recovery,
            self.store.paused,
            &self.store.granted,
        )
            .hash(&mut state);
        self.store.ahead.hash(&mut state);
        (&self.calls, self.left, &self.highest, self.violation).hash(&mut state);
        (self.requests_at, self.over_at).hash(&mut state);
        // In full: the longest gap is longer than every watch.
        state.inner.write_u64(self.now - self.idle_since);
    }
}
