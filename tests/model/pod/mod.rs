//! Pods that are drawn from a seed: the real machine of `attach` with a real
//! guard, and a `serve` that mostly says what it should. Whatever it says
//! and whenever it goes, the worker's tree is dead by the last deadline that
//! it has named, and it hears that nothing is left only when that is so.

mod tree;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::attach::{Action, Attach, Event, Now, ServeLoss};
use leasewrap::lease::guard::{self, Guard};
use leasewrap::lease::ids::{HolderId, LeaseName, Slot, Token};
use leasewrap::lease::time::BootInstant;
use leasewrap::lease::timing::Chance;
use leasewrap::wire::attach::{FromAttach, Peer, TermEnd, ToAttach};
use leasewrap::wire::{FromGuard, PgOptions, Start, StopTo, ToGuard, VERSION, WorkerEnd};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::coverage::{self, Pairs};
use crate::world::host::hello;

const SECOND: Duration = Duration::from_secs(1);

/// From SIGKILL to the last process's end.
const KILL_TIME: Duration = Duration::from_millis(100);

/// So many steps end every pod, or it never ends.
const STEPS: usize = 2000;

/// Lets these pods run.
pub fn drawn(seeds: std::ops::Range<u64>, driven: &Arc<Pairs>) {
    for seed in seeds {
        let mut pod = Pod::new(seed, Arc::clone(driven));
        for _ in 0..STEPS {
            if !pod.ended {
                pod.goes_on();
            }
        }
        assert!(pod.ended, "seed {seed}: it never ends: {pod:?}");
    }
}

#[derive(Debug)]
struct Pod {
    rng: StdRng,
    driven: Arc<Pairs>,
    seed: u64,
    at: BootInstant,
    attach: Attach,
    ended: bool,
    /// What its guard, if it has one, is and does.
    guard: Option<Guard>,
    /// What is heard of it is reported.
    reported: bool,
    forked: Option<Start>,
    /// The child has had its go, and what became of it is not heard of yet.
    went: Option<bool>,
    worker: bool,
    rest: bool,
    dies_at: Option<BootInstant>,
    sweeping: bool,
    workers: u32,
    /// There is a connection to `serve`.
    connected: bool,
    /// What `serve` is about to say.
    says: VecDeque<ToAttach>,
    /// The last deadline that it has named, and whether it has heard that
    /// nothing is left.
    named: Option<BootInstant>,
    signaled: bool,
}

impl Pod {
    fn new(seed: u64, driven: Arc<Pairs>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let at = BootInstant::from_nanos(1 << 50);
        let wait = rng.random_ratio(1, 4).then_some(SECOND * 20);
        let now = Now {
            at,
            chance: Chance::MIDDLE,
        };
        Self {
            attach: Attach::new(hello(), rng.random(), wait, &now),
            rng,
            driven,
            seed,
            at,
            ended: false,
            guard: None,
            reported: false,
            forked: None,
            went: None,
            worker: false,
            rest: false,
            dies_at: None,
            sweeping: false,
            workers: 0,
            connected: false,
            says: VecDeque::new(),
            named: None,
            signaled: false,
        }
    }

    /// One thing happens.
    fn goes_on(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => self.time_passes(),
            45..65 => self.serve_goes_on(),
            65..80 => self.tree_goes_on(),
            80..82 => {
                let signal = if self.rng.random() { 15 } else { 2 };
                self.hears(Event::Stop(signal));
            }
            82..83 if self.signaled => self.hears(Event::HurryUp),
            83..86 => self.serve_says_anything(),
            86..88 => self.serve_is_lost(),
            88 => self.guard_dies(),
            89 => self.serve_orders(),
            _ => self.serve_renews(),
        }
        let alive = self.worker || self.rest;
        let over = self.named.is_some_and(|named| self.at >= named + KILL_TIME);
        assert!(!(alive && over), "alive past the deadline: {self:?}");
        assert!(!(alive && self.ended), "ended before its tree: {self:?}");
        assert!(self.workers <= 1, "a second worker: {self:?}");
    }

    /// Until something is due, or for a while.
    fn time_passes(&mut self) {
        let guard = self.guard.as_ref().and_then(Guard::next_wakeup);
        let due = [self.attach.next_wakeup(), guard, self.dies_at];
        let due = due.into_iter().flatten().min();
        let later = self.at + Duration::from_millis(self.rng.random_range(0..4000));
        self.at = due.map_or(later, |due| later.min(due.max(self.at)));
        if self.dies_at.is_some_and(|dies_at| self.at >= dies_at) {
            let worker = self.worker.then_some(WorkerEnd::Signaled(9));
            (self.worker, self.rest) = (false, false);
            self.dies_at = None;
            self.is_empty(worker);
        }
        if guard.is_some_and(|due| self.at >= due) {
            self.guard_hears(guard::Event::Wake);
        }
        if self.attach.next_wakeup().is_some_and(|due| self.at >= due) || self.rng.random() {
            self.hears(Event::Wake);
        }
    }

    fn serve_goes_on(&mut self) {
        if self.connected
            && let Some(frame) = self.says.pop_front()
        {
            self.serve_says(frame);
        }
    }

    /// A deadline, or what keeps the line alive.
    fn serve_renews(&mut self) {
        if !self.connected {
            return;
        }
        let frame = match self.named {
            Some(_) if self.rng.random() => ToGuard::Deadline {
                seq: 1,
                deadline: self.at + SECOND * self.rng.random_range(3..12),
            },
            _ => ToGuard::Ping { seq: 2 },
        };
        self.serve_says(ToAttach::Guard(frame));
    }

    /// An order within a term.
    fn serve_orders(&mut self) {
        if self.connected && self.named.is_some() {
            let kill_by = self.at + SECOND * self.rng.random_range(0..5);
            let orders = [
                ToGuard::Stop {
                    signal: 15,
                    kill_by,
                },
                ToGuard::Kill,
                ToGuard::Signal(10),
            ];
            let order = orders[self.rng.random_range(0..orders.len())].clone();
            self.serve_says(ToAttach::Guard(order));
        }
    }

    /// What makes no sense, most of the time. A deadline in there counts.
    fn serve_says_anything(&mut self) {
        if !self.connected {
            return;
        }
        let other = leasewrap::wire::Hello {
            version: VERSION + 1,
            ..hello()
        };
        let frames = [
            ToAttach::Hello(hello()),
            ToAttach::Hello(other),
            ToAttach::Attached,
            ToAttach::Taken(PEER),
            ToAttach::Over {
                end: TermEnd::Lost,
                message: String::new(),
            },
            ToAttach::Guard(ToGuard::Hello(hello())),
            ToAttach::Guard(ToGuard::Start(self.start())),
            ToAttach::Guard(ToGuard::Deadline {
                seq: 3,
                deadline: self.at + SECOND,
            }),
            ToAttach::Guard(ToGuard::Stop {
                signal: 2,
                kill_by: self.at,
            }),
            ToAttach::Guard(ToGuard::Kill),
            ToAttach::Guard(ToGuard::Signal(12)),
            ToAttach::Guard(ToGuard::Ping { seq: 4 }),
            ToAttach::Guard(ToGuard::Dismiss),
        ];
        let frame = frames[self.rng.random_range(0..frames.len())].clone();
        self.serve_says(frame);
    }

    fn serve_says(&mut self, frame: ToAttach) {
        match &frame {
            ToAttach::Guard(ToGuard::Start(start)) => {
                self.named = self.named.max(Some(start.deadline));
            }
            ToAttach::Guard(ToGuard::Deadline { deadline, .. }) if self.named.is_some() => {
                self.named = self.named.max(Some(*deadline));
            }
            _ => {}
        }
        self.hears(Event::Serve(frame));
    }

    fn serve_is_lost(&mut self) {
        if !self.connected {
            return;
        }
        let losses = [
            ServeLoss::Closed,
            ServeLoss::Malformed,
            ServeLoss::Version(VERSION + 1),
            ServeLoss::TimeNamespace { theirs: 1, ours: 0 },
        ];
        let loss = losses[self.rng.random_range(0..losses.len())];
        self.connected = false;
        self.says.clear();
        self.hears(Event::ServeLost(loss));
    }

    fn hears(&mut self, event: Event) {
        if self.ended {
            return;
        }
        self.signaled |= matches!(event, Event::Stop(_));
        let state = coverage::first_name(&self.attach);
        let name = coverage::attach::event(&event);
        self.driven.note(&coverage::attach::TABLE, &state, name);
        let now = Now {
            at: self.at,
            chance: Chance(self.rng.random()),
        };
        for action in self.attach.step(event, &now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => self.connect(),
            Action::Disconnect => {
                self.connected = false;
                self.says.clear();
            }
            Action::StartGuard if self.rng.random_ratio(1, 20) => {
                self.hears(Event::NoGuard("no memory".to_owned()));
            }
            Action::StartGuard => {
                let (guard, actions) = Guard::new(hello());
                (self.guard, self.reported) = (Some(guard), true);
                self.guard_acts(actions);
                self.guard_hears(guard::Event::Frame(ToGuard::Hello(hello())));
            }
            Action::DismissGuard => {
                self.reported = false;
                self.guard_hears(guard::Event::Frame(ToGuard::Dismiss));
            }
            Action::ToServe(frame) => self.serve_hears(&frame),
            Action::ToGuard(frame) => self.guard_hears(guard::Event::Frame(frame)),
            Action::Extend(deadline) => {
                let frame = ToGuard::Deadline { seq: 0, deadline };
                self.guard_hears(guard::Event::Frame(frame));
            }
            Action::Kill => self.guard_hears(guard::Event::Frame(ToGuard::Kill)),
            Action::Tell(_) => {}
            Action::End(_) => self.ended = true,
        }
    }

    fn connect(&mut self) {
        if self.rng.random_ratio(1, 5) {
            self.hears(Event::NotConnected("connect".to_owned()));
        } else {
            self.connected = true;
            self.hears(Event::Connected);
        }
    }

    fn serve_hears(&mut self, frame: &FromAttach) {
        match frame {
            FromAttach::Hello(_) => {
                self.named = None;
                self.says.push_back(ToAttach::Hello(hello()));
            }
            FromAttach::Attach { .. } if self.rng.random_ratio(1, 5) => {
                self.says.push_back(ToAttach::Taken(PEER));
            }
            FromAttach::Attach { .. } => {
                self.says.push_back(ToAttach::Attached);
                let start = self.start();
                self.says.push_back(ToAttach::Guard(ToGuard::Start(start)));
            }
            FromAttach::Guard(FromGuard::Empty { .. } | FromGuard::NotStarted(_)) => {
                let alive = self.worker || self.rest || self.forked.is_some();
                assert!(!alive, "said to be empty: {self:?}");
                self.named = None;
                let end = match self.rng.random_range(0..4) {
                    0 => TermEnd::Lost,
                    1 => TermEnd::SteppedDown,
                    2 => TermEnd::Failed,
                    _ => TermEnd::Worker(WorkerEnd::Exited(0)),
                };
                self.says.clear();
                let message = String::new();
                self.says.push_back(ToAttach::Over { end, message });
            }
            FromAttach::Guard(_) | FromAttach::Stopping { .. } => {}
        }
    }

    fn start(&mut self) -> Start {
        Start {
            name: LeaseName::new("pod").expect("a name"),
            slot: Slot(0),
            holder: HolderId(Uuid::from_u64_pair(1, self.seed)),
            token: Token(1),
            ttl: SECOND * 10,
            pgoptions: PgOptions::Leave,
            deadline: self.at + SECOND * self.rng.random_range(1..10),
            grace: SECOND,
            stop_signal: 15,
            stop_to: if self.rng.random() {
                StopTo::Tree
            } else {
                StopTo::Worker
            },
            stop_timeout: SECOND * 3,
            variables: Vec::new(),
        }
    }
}

const PEER: Peer = Peer {
    pid: 1,
    uid: 2,
    gid: 3,
};
