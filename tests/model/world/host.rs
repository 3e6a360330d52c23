//! One host: a real keeper, a real guard, and what the kernel and the loops
//! around them do.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::guard::{self, Guard, KeeperLoss};
use leasewrap::lease::ids::{HolderId, Incarnation};
use leasewrap::lease::keeper::event::Outcome;
use leasewrap::lease::keeper::{Config, Keeper, Now};
use leasewrap::lease::record::{Acquire, Renewed, Term};
use leasewrap::lease::time::BootInstant;
use leasewrap::lease::timing::Chance;
use leasewrap::wire::{FromGuard, Hello, Start, ToGuard, VERSION, WorkerEnd};
use uuid::Uuid;

use super::relative::{CLOCK_ORIGIN, Relative};
use super::store::nanos;

/// What a host is like; it never changes.
#[derive(Debug, Clone)]
pub struct HostSetup {
    pub config: Arc<Config>,
    /// When its keeper starts, after the beginning.
    pub starts_after: Duration,
    /// How its boot clock runs: nanoseconds by it per thousand of the model's.
    pub clock_rate: u64,
    /// The worker ends when it is told to.
    pub obeys: bool,
    /// The worker leaves something behind when it ends by itself.
    pub leaves_behind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Run {
    Running,
    /// SIGSTOP.
    Frozen,
    Dead,
}

/// The worker's tree, as the kernel sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// Whose place it works in.
    pub slot: u32,
    pub worker: bool,
    pub rest: bool,
    /// When it ends because it was told to.
    pub ends_at: Option<u64>,
    /// When SIGKILL has taken effect.
    pub dies_at: Option<u64>,
}

impl Tree {
    pub fn is_alive(&self) -> bool {
        self.worker || self.rest
    }
}

/// What the releaser finds in the descriptor that it inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Note {
    pub attempt: Option<Acquire>,
    pub term: Option<(Term, Incarnation)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub index: usize,
    pub clock_rate: u64,
    pub keeper: Keeper,
    pub keeper_run: Run,
    pub started: bool,
    /// Not before then, when it is started again.
    pub starts_at: u64,
    pub guard: Guard,
    pub guard_run: Run,
    pub to_guard: VecDeque<ToGuard>,
    pub to_keeper: VecDeque<FromGuard>,
    /// A child was forked, and reports then.
    pub forked: Option<(u64, Start)>,
    /// The child that waits for its go, within one step.
    pub child: Option<Start>,
    /// The guard as it was before it told its worker to stop (mutation only).
    pub before_losing: Option<Box<Guard>>,
    pub tree: Tree,
    pub note: Note,
    pub attempts: u64,
    /// The first one of this process.
    pub first_attempt: u64,
    /// How the worker has ended, until the guard hears of it.
    pub ended_by: Option<WorkerEnd>,
    /// The keeper is told of the death of its guard.
    pub gone_told: bool,
    /// The keeper kills what a dead guard has left.
    pub sweeping: bool,
    /// A notification is on its way.
    pub notified: bool,
    /// Nothing runs here until then; its boot clock goes on.
    pub suspended_until: Option<u64>,
    /// When it was suspended last, it woke then.
    pub woke_at: Option<u64>,
    /// When its stopped process goes on.
    pub thaws_at: Option<u64>,
    /// No call gets through until then.
    pub cut_until: Option<u64>,
    /// When a precheck under way ends, and whether the next one fails.
    pub prechecked_at: Option<u64>,
    pub unfit: bool,
    /// What a reading of one's own row has said, and when that is heard of.
    pub checked: Option<(u64, Renewed)>,
    /// The worker is stopped, as by Ctrl-Z.
    pub worker_stopped: bool,
    /// What was forked last cannot be executed.
    pub not_executable: bool,
    /// A process of it was killed or stopped: two at once are not promised.
    pub hurt: bool,
    pub losing: bool,
    pub lost: bool,
    /// It has said that the lease has to run out.
    pub ran_out: bool,
    pub outcome: Option<Outcome>,
}

impl Host {
    pub fn new(index: usize, setup: &HostSetup) -> Self {
        let now = Now {
            at: BootInstant::ZERO,
            chance: Chance::MIDDLE,
            fresh: fresh(index, 0),
        };
        let (guard, hello) = Guard::new(hello());
        let mut host = Self {
            index,
            clock_rate: setup.clock_rate,
            keeper: Keeper::new(Arc::clone(&setup.config), &now),
            keeper_run: Run::Running,
            started: false,
            starts_at: 0,
            guard,
            guard_run: Run::Running,
            to_guard: VecDeque::from([ToGuard::Hello(self::hello())]),
            to_keeper: VecDeque::new(),
            forked: None,
            child: None,
            before_losing: None,
            tree: Tree::default(),
            note: Note::default(),
            attempts: 0,
            first_attempt: 0,
            ended_by: None,
            gone_told: false,
            sweeping: false,
            notified: false,
            suspended_until: None,
            woke_at: None,
            thaws_at: None,
            cut_until: None,
            prechecked_at: None,
            unfit: false,
            checked: None,
            worker_stopped: false,
            not_executable: false,
            hurt: false,
            losing: false,
            lost: false,
            ran_out: false,
            outcome: None,
        };
        host.hear_of_guard(hello);
        host
    }

    /// Its keeper begins at `now`, by its own clock.
    pub fn start(&mut self, setup: &HostSetup, now: &Now) {
        self.keeper = Keeper::new(Arc::clone(&setup.config), now);
        self.started = true;
    }

    /// A guard for the next term (`--rejoin`).
    pub fn renew_guard(&mut self) {
        let (guard, hello) = Guard::new(self::hello());
        self.guard = guard;
        self.guard_run = Run::Running;
        self.to_guard = VecDeque::from([ToGuard::Hello(self::hello())]);
        self.to_keeper.clear();
        (self.gone_told, self.losing, self.lost) = (false, false, false);
        self.hear_of_guard(hello);
    }

    fn hear_of_guard(&mut self, actions: Vec<guard::Action>) {
        for action in actions {
            if let guard::Action::Send(frame) = action {
                self.to_keeper.push_back(frame);
            }
        }
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended_until.is_some()
    }

    pub fn keeper_runs(&self) -> bool {
        self.started && self.keeper_run == Run::Running && !self.is_suspended()
    }

    pub fn guard_runs(&self) -> bool {
        self.started && self.guard_run == Run::Running && !self.is_suspended()
    }

    /// It was suspended until a moment ago: what is overdue is being killed.
    pub fn is_waking(&self, now: u64, kill_time: Duration) -> bool {
        self.woke_at
            .is_some_and(|woke_at| now <= woke_at + nanos(kill_time))
    }

    /// Nothing of it is left.
    pub fn is_over(&self) -> bool {
        let keeper_is_gone = self.outcome.is_some() || self.keeper_run == Run::Dead;
        keeper_is_gone && self.guard_run == Run::Dead && !self.tree.is_alive()
    }

    /// Whether its keeper may yet come to run a worker.
    pub fn contends(&self) -> bool {
        self.keeper_runs()
            && self.outcome.is_none()
            && self.guard_run != Run::Frozen
            && self.cut_until.is_none()
    }

    /// What the guard is told when nobody holds the other end any more.
    pub fn keeper_lost() -> guard::Event {
        guard::Event::KeeperLost(KeeperLoss::Closed)
    }

    /// Hashes what matters for what happens next.
    pub fn hash_into<H: Hasher>(&self, inner: &mut H, local: u64, global: u64, revision: i64) {
        let mut state = Relative {
            inner: &mut *inner,
            now: local,
            revision,
        };
        if self.outcome.is_none() && self.keeper_run != Run::Dead {
            self.keeper.hash(&mut state);
        }
        if self.guard_run != Run::Dead {
            self.guard.hash(&mut state);
        }
        (&self.to_guard, &self.to_keeper).hash(&mut state);
        let forked = self.forked.as_ref();
        forked.map(|(_, start)| start).hash(&mut state);
        self.note.hash(&mut state);
        let mut state = Relative {
            inner,
            now: global,
            revision,
        };
        (self.keeper_run, self.guard_run, self.started, &self.tree).hash(&mut state);
        (self.gone_told, self.sweeping, self.notified, self.hurt).hash(&mut state);
        (self.suspended_until, self.cut_until, self.thaws_at).hash(&mut state);
        (&self.before_losing, self.ended_by, self.woke_at).hash(&mut state);
        (self.losing, self.lost, self.ran_out, &self.outcome).hash(&mut state);
        (self.prechecked_at, self.unfit, &self.checked).hash(&mut state);
        forked.map(|(ready_at, _)| ready_at).hash(&mut state);
        (self.worker_stopped, self.not_executable).hash(&mut state);
    }
}

/// The identity of a host's `attempt`th attempt.
pub fn fresh(host: usize, attempt: u64) -> HolderId {
    HolderId(Uuid::from_u64_pair(host as u64 + 1, attempt))
}

pub fn hello() -> Hello {
    Hello {
        version: VERSION,
        time_namespace: 0,
    }
}

/// A host's boot clock when the model's shows `global`.
pub fn local(global: u64, clock_rate: u64) -> u64 {
    CLOCK_ORIGIN + (global - CLOCK_ORIGIN) * clock_rate / 1000
}

/// When a host's boot clock comes to show `local`: the first instant of the
/// model's that is not before.
pub fn global(local: u64, clock_rate: u64) -> u64 {
    CLOCK_ORIGIN + ((local.saturating_sub(CLOCK_ORIGIN)) * 1000).div_ceil(clock_rate)
}
