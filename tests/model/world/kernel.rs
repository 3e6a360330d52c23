//! What loops and kernel do around the two machines of a host: carry events
//! in and commands out, start and kill processes.

use std::collections::VecDeque;
use std::time::Duration;

use leasewrap::lease::guard::{self, Action};
use leasewrap::lease::ids::{LeaseName, Slot};
use leasewrap::lease::keeper::Phase;
use leasewrap::lease::keeper::event::{Command, Event, GivenBack, GuardEvent, Outcome, Transition};
use leasewrap::lease::keeper::{self};
use leasewrap::lease::record::{Acquired, Observed, Refusal, Renewed, Term};
use leasewrap::lease::time::BootInstant;
use leasewrap::wire::{FromGuard, NotStarted, Start, StopReason, StopTo, ToGuard, WorkerEnd};

use super::calls::{Caller, Statement};
use super::host::{Host, Note, Run, Tree, fresh};
use super::store::nanos;
use super::{Mutation, Setup, World};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl World {
    fn mutated(setup: &Setup, mutation: Mutation) -> bool {
        setup.mutation == Some(mutation)
    }

    // ---- what the keeper's loop does -------------------------------------

    pub fn start(&mut self, setup: &Setup, host: usize) {
        let now = self.keeper_now(setup, host);
        self.hosts[host].start(&setup.hosts[host], &now);
        self.wake_keeper(setup, host);
    }

    /// Whoever started leasewrap starts it again, at once.
    pub fn restart(&mut self, setup: &Setup, host: usize) {
        let attempts = self.hosts[host].attempts;
        self.hosts[host] = Host::new(host, &setup.hosts[host]);
        self.hosts[host].attempts = attempts;
        self.hosts[host].first_attempt = attempts;
        self.start(setup, host);
    }

    pub fn wake_keeper(&mut self, setup: &Setup, host: usize) {
        self.keeper_hears(setup, host, Event::Wake, None);
    }

    /// A notification has come: a standby looks, a holder checks its row.
    pub fn notify(&mut self, setup: &Setup, host: usize) {
        self.hosts[host].notified = false;
        let event = match self.hosts[host].keeper.phase() {
            Phase::Standby | Phase::Acquiring => Event::Changed,
            Phase::Starting | Phase::Holding | Phase::Stopping | Phase::Releasing => {
                let Some(term) = self.hosts[host].keeper.term() else {
                    return;
                };
                Event::Checked(self.store.check(term))
            }
            Phase::Ended => return,
        };
        self.keeper_hears(setup, host, event, None);
    }

    /// The keeper's loop receives an event; `sent_at` is of its call, by the
    /// host's clock.
    pub fn keeper_hears(&mut self, setup: &Setup, host: usize, event: Event, sent_at: Option<u64>) {
        self.keeper_steps(setup, host, event, sent_at.map(BootInstant::from_nanos));
        self.pump(setup, host);
    }

    fn keeper_now(&self, setup: &Setup, host: usize) -> keeper::Now {
        let at = self.at(setup, host);
        keeper::Now {
            at,
            chance: self.chance,
            fresh: fresh(host, self.hosts[host].attempts),
        }
    }

    fn keeper_steps(
        &mut self,
        setup: &Setup,
        host: usize,
        event: Event,
        sent_at: Option<BootInstant>,
    ) {
        let mut now = self.keeper_now(setup, host);
        let event = self.as_heard(setup, host, event, sent_at, &mut now);
        let ends = matches!(event, Event::Guard(GuardEvent::WorkerEnded(_)));
        let unknown = matches!(
            event,
            Event::Renewed {
                reply: Renewed::Unknown(_),
                ..
            }
        );
        let granted = matches!(
            event,
            Event::Renewed {
                reply: Renewed::Granted { .. },
                ..
            }
        );
        let deadline = self.hosts[host].keeper.deadline();
        let commands = self.hosts[host].keeper.step(event, &now);
        if unknown && deadline.is_some() && self.hosts[host].keeper.deadline() > deadline {
            self.violates("an unknown answer moves a deadline");
        }
        for command in commands {
            self.perform(setup, host, command);
        }
        if granted && Self::mutated(setup, Mutation::LateRenewalRevives) {
            let deadline = self.hosts[host].keeper.deadline();
            self.hosts[host]
                .to_guard
                .extend(deadline.map(|deadline| ToGuard::Deadline { seq: 0, deadline }));
        }
        if ends && Self::mutated(setup, Mutation::ReleaseBeforeEmpty) {
            self.keeper_steps(setup, host, Event::Guard(GuardEvent::Empty), None);
        }
    }

    /// The event as the keeper gets it: with the instant of sending, and
    /// bent by the mutation under test.
    fn as_heard(
        &self,
        setup: &Setup,
        host: usize,
        event: Event,
        sent_at: Option<BootInstant>,
        now: &mut keeper::Now,
    ) -> Event {
        let keeper = &self.hosts[host].keeper;
        let is = |mutation| Self::mutated(setup, mutation);
        let sent = sent_at
            .filter(|_| !is(Mutation::DeadlineFromTheReply))
            .unwrap_or(now.at);
        match event {
            Event::Acquired {
                reply: Acquired::Unknown(_),
                ..
            } if is(Mutation::UnansweredIsForgotten) => Event::Acquired {
                sent_at: sent,
                reply: Acquired::Refused(Refusal::Changed),
            },
            Event::Acquired { reply, .. } => Event::Acquired {
                sent_at: sent,
                reply,
            },
            Event::Renewed {
                reply: Renewed::Unknown(unknown),
                ..
            } => {
                let reply = match keeper.grant() {
                    Some(grant) if is(Mutation::UnknownIsSuccess) => Renewed::Granted {
                        grant: grant.clone(),
                        request: None,
                    },
                    Some(_) | None => Renewed::Unknown(unknown),
                };
                Event::Renewed {
                    sent_at: sent,
                    reply,
                }
            }
            Event::Renewed { reply, .. } => Event::Renewed {
                sent_at: sent,
                reply,
            },
            Event::Observed(Observed::Seen(mut seen)) => {
                if is(Mutation::ShortWatch) {
                    for record in &mut seen.records {
                        record.ttl = record.ttl * 7 / 10;
                    }
                }
                if is(Mutation::WatchFromTheSend) {
                    now.at = sent_at.unwrap_or(now.at);
                }
                Event::Observed(Observed::Seen(seen))
            }
            other => other,
        }
    }

    fn perform(&mut self, setup: &Setup, host: usize, command: Command) {
        match command {
            Command::Observe { limit } => self.call(setup, host, Statement::Observe, limit),
            Command::Acquire { request, limit } => {
                self.hosts[host].attempts += 1;
                self.hosts[host].note = Note {
                    attempt: Some(request.clone()),
                    term: None,
                };
                self.call(setup, host, Statement::Acquire(request), limit);
            }
            Command::Renew { term, limit } => {
                self.call(setup, host, Statement::Renew(term), limit);
            }
            Command::Settle { request, limit } => {
                self.call(setup, host, Statement::Settle(request), limit);
            }
            Command::Release {
                term,
                incarnation,
                limit,
            } => {
                self.must_be_empty(host);
                self.call(setup, host, Statement::Release(term, incarnation), limit);
            }
            Command::Init { .. } | Command::Precheck => self.violates("nobody asked for that"),
            Command::Spawn { term, deadline } => self.order(setup, host, &term, deadline),
            Command::Extend { deadline } => {
                self.hosts[host]
                    .to_guard
                    .push_back(ToGuard::Deadline { seq: 0, deadline });
            }
            Command::StopTree { signal, kill_by } => {
                let signal = signal.unwrap_or(SIGTERM);
                self.hosts[host]
                    .to_guard
                    .push_back(ToGuard::Stop { signal, kill_by });
            }
            Command::KillTree if self.hosts[host].guard_run == Run::Frozen => {
                self.guard_dies(host);
            }
            Command::KillTree => self.hosts[host].to_guard.push_back(ToGuard::Kill),
            Command::Dismiss => {
                self.hosts[host].gone_told = true;
                self.hosts[host].to_guard.push_back(ToGuard::Dismiss);
            }
            Command::NewGuard => self.hosts[host].renew_guard(),
            Command::Tell(transition) => self.told(host, transition),
            Command::End(outcome) => self.ended(host, outcome),
        }
    }

    fn call(&mut self, setup: &Setup, host: usize, statement: Statement, limit: Duration) {
        if self.is_calling(host) {
            self.violates("two calls at once");
        }
        self.send(Caller::Keeper(host), statement, limit, setup);
    }

    fn order(&mut self, setup: &Setup, host: usize, term: &Term, deadline: BootInstant) {
        if deadline <= self.at(setup, host) {
            self.violates("a worker is ordered at its deadline");
        }
        let config = self.hosts[host].keeper.config();
        let Ok(name) = LeaseName::new("model") else {
            return;
        };
        let start = Start {
            name,
            slot: term.slot,
            holder: term.holder,
            token: term.token,
            ttl: config.timing.ttl(),
            pgoptions: leasewrap::wire::PgOptions::Leave,
            variables: Vec::new(),
            deadline,
            grace: config.timing.grace(),
            stop_signal: SIGTERM,
            stop_to: StopTo::Tree,
            stop_timeout: config.timing.stop_timeout(),
        };
        self.hosts[host].to_guard.push_back(ToGuard::Start(start));
    }

    fn told(&mut self, host: usize, transition: Transition) {
        let host = &mut self.hosts[host];
        match transition {
            Transition::Acquired { term, grant, .. } => {
                host.note.term = Some((term, grant.incarnation));
            }
            Transition::IncarnationChanged { to, .. } => {
                if let Some((_, incarnation)) = &mut host.note.term {
                    *incarnation = to;
                }
            }
            Transition::Lost { .. } => host.lost = true,
            Transition::Released {
                result: GivenBack::RunsOut { .. },
                ..
            } => host.ran_out = true,
            Transition::Waiting { .. }
            | Transition::Renewed { .. }
            | Transition::CallFailed { .. }
            | Transition::Losing { .. }
            | Transition::Stopping(_)
            | Transition::Released { .. }
            | Transition::HolderChanged { .. } => {}
        }
    }

    fn ended(&mut self, index: usize, outcome: Outcome) {
        let host = &self.hosts[index];
        if host.tree.is_alive() {
            self.violates("a keeper ends before its tree");
        }
        let host = &self.hosts[index];
        let says_so = matches!(outcome, Outcome::Lost { .. } | Outcome::GuardDied);
        if host.lost && !says_so {
            self.violates("a loss does not show in the exit code");
        }
        let host = &self.hosts[index];
        let held = self.store.rows.values().find(|row| !row.released);
        let held = held.and_then(|row| row.holder);
        let ours = held.is_some_and(|holder| {
            (host.first_attempt..host.attempts).any(|n| fresh(index, n) == holder)
        });
        if ours && !host.ran_out && host.cut_until.is_none() {
            self.violates("an acquisition is left unsettled");
        }
        self.hosts[index].outcome = Some(outcome);
        self.forget_calls_of(index);
    }

    fn must_be_empty(&mut self, host: usize) {
        if self.hosts[host].tree.is_alive() {
            self.violates("released before the tree was empty");
        }
    }

    // ---- the socketpair ----------------------------------------------------

    /// Carries frames until nobody has anything to say.
    pub fn pump(&mut self, setup: &Setup, index: usize) {
        loop {
            let host = &mut self.hosts[index];
            let keeper_is_there = host.keeper_run != Run::Dead && host.outcome.is_none();
            if host.guard_runs() {
                if let Some(frame) = host.to_guard.pop_front() {
                    self.guard_gets(setup, index, frame);
                    continue;
                }
                if !keeper_is_there {
                    self.guard_steps(setup, index, Host::keeper_lost());
                    if self.hosts[index].guard_runs() {
                        return;
                    }
                    continue;
                }
            }
            let host = &mut self.hosts[index];
            if !(keeper_is_there && host.keeper_runs()) {
                return;
            }
            if let Some(frame) = host.to_keeper.pop_front() {
                if let Some(event) = heard(frame) {
                    self.keeper_steps(setup, index, Event::Guard(event), None);
                }
            } else if host.guard_run == Run::Dead && !host.gone_told {
                host.gone_told = true;
                self.keeper_steps(setup, index, Event::Guard(GuardEvent::Gone), None);
                self.sweep(setup, index);
            } else {
                return;
            }
        }
    }

    /// The keeper kills what its dead guard has left.
    fn sweep(&mut self, setup: &Setup, index: usize) {
        let dies_at = self.now + nanos(setup.kill_time);
        let host = &mut self.hosts[index];
        if host.tree.is_alive() {
            host.sweeping = true;
            host.tree.dies_at = Some(host.tree.dies_at.map_or(dies_at, |at| at.min(dies_at)));
        } else {
            self.keeper_steps(setup, index, Event::Guard(GuardEvent::Swept), None);
        }
    }

    fn guard_gets(&mut self, setup: &Setup, host: usize, frame: ToGuard) {
        let is = |mutation| Self::mutated(setup, mutation);
        let far = self.at(setup, host) + Duration::from_secs(1000);
        let frame = match frame {
            ToGuard::Start(start)
                if is(Mutation::GuardKeepsNoDeadline)
                    || (is(Mutation::NoDeadlineAtSpawn)
                        && self.at(setup, host) >= start.deadline - start.grace) =>
            {
                ToGuard::Start(Start {
                    deadline: far,
                    ..start
                })
            }
            ToGuard::Deadline { seq, .. } if is(Mutation::GuardKeepsNoDeadline) => {
                ToGuard::Deadline { seq, deadline: far }
            }
            other => other,
        };
        self.guard_steps(setup, host, guard::Event::Frame(frame));
    }

    // ---- what the guard's loop does ----------------------------------------

    pub fn wake_guard(&mut self, setup: &Setup, index: usize) {
        let host = &self.hosts[index];
        // A keeper that runs says something in time after `Empty`.
        let answers = host.keeper_runs() && host.outcome.is_none() && !host.tree.is_alive();
        let event = if answers && !host.guard.has_tree() {
            guard::Event::Frame(ToGuard::Ping { seq: 0 })
        } else {
            guard::Event::Wake
        };
        self.guard_steps(setup, index, event);
        self.pump(setup, index);
    }

    pub fn child_ready(&mut self, setup: &Setup, host: usize) {
        if let Some(start) = self.hosts[host].forked.take() {
            self.hosts[host].child = Some(start);
            self.guard_steps(setup, host, guard::Event::Forked { pid: 1 });
            self.hosts[host].child = None;
            self.pump(setup, host);
        }
    }

    pub fn guard_steps(&mut self, setup: &Setup, host: usize, event: guard::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.at(setup, host);
            let before = self.hosts[host].guard.self_kill_at();
            let is_deadline = matches!(event, guard::Event::Frame(ToGuard::Deadline { .. }));
            if is_deadline && Self::mutated(setup, Mutation::LateRenewalRevives) {
                self.revive(host, &event);
            }
            let lost = matches!(event, guard::Event::KeeperLost(_));
            let guard_before = self.hosts[host].guard.clone();
            let mut actions = self.hosts[host].guard.step(event, now);
            let losing = Action::Send(FromGuard::Stopping(StopReason::DeadlineNear));
            if Self::mutated(setup, Mutation::LateRenewalRevives) && actions.contains(&losing) {
                self.hosts[host].before_losing = Some(Box::new(guard_before));
            }
            if lost && Self::mutated(setup, Mutation::ReleaseWhenTheKeeperDies) {
                actions = vec![Action::Release(guard::Keeper::Lost(
                    guard::KeeperLoss::Closed,
                ))];
            }
            for action in actions {
                self.act(setup, host, action, &mut events);
            }
            let guard = &self.hosts[host].guard;
            let later = guard.self_kill_at() > before && !guard.is_killing();
            if self.hosts[host].losing && later {
                self.violates("a worker that was told to stop is given more time");
            }
        }
    }

    /// Puts the guard back to before it told its worker to stop.
    fn revive(&mut self, host: usize, extension: &guard::Event) {
        if let Some(mut guard) = self.hosts[host].before_losing.take() {
            let _nothing_due = guard.step(extension.clone(), BootInstant::ZERO);
            self.hosts[host].guard = *guard;
        }
    }

    fn act(
        &mut self,
        setup: &Setup,
        index: usize,
        action: Action,
        events: &mut VecDeque<guard::Event>,
    ) {
        let (kill_time, stop_time) = (nanos(setup.kill_time), nanos(setup.stop_time));
        let now = self.now;
        let host = &mut self.hosts[index];
        match action {
            Action::Send(frame) => {
                if matches!(frame, FromGuard::Stopping(StopReason::DeadlineNear)) {
                    host.losing = true;
                }
                host.to_keeper.push_back(frame);
            }
            Action::Fork(start) => host.forked = Some(*start),
            Action::Go { deadline } => {
                let start = host.child.take();
                if self.at(setup, index) >= deadline {
                    events.push_back(guard::Event::NotExecuted(NotStarted::Late));
                } else if let Some(start) = start {
                    self.executed(setup, index, &start);
                    events.push_back(guard::Event::Executed);
                }
            }
            Action::StopTree { .. } | Action::StopLeftBehind { .. } => {
                if setup.hosts[index].obeys && host.tree.is_alive() {
                    host.tree.ends_at.get_or_insert(now + stop_time);
                }
            }
            Action::KillTree if host.tree.is_alive() => {
                host.tree.dies_at.get_or_insert(now + kill_time);
            }
            // What is being forked is there only when that is reported.
            Action::KillTree if host.forked.is_some() => {}
            Action::KillTree => events.push_back(guard::Event::TreeEmpty { killed: 0 }),
            Action::SignalWorker(_) => {}
            Action::Release(keeper) => self.release_for(setup, index, keeper),
            Action::Exit => {
                host.guard_run = Run::Dead;
                host.gone_told = true;
            }
        }
    }

    /// The guard has become the releaser.
    fn release_for(&mut self, setup: &Setup, index: usize, keeper: guard::Keeper) {
        self.must_be_empty(index);
        let host = &mut self.hosts[index];
        host.guard_run = Run::Dead;
        if keeper == guard::Keeper::StandsStill && host.keeper_run == Run::Frozen {
            (host.keeper_run, host.thaws_at) = (Run::Running, None);
        }
        let note = host.note.clone();
        let limit = host.keeper.config().timing.call_timeout();
        let statement = match (note.term, note.attempt) {
            (Some((term, incarnation)), _) => Statement::Release(term, incarnation),
            (None, Some(attempt)) => Statement::ReleaseAttempt(attempt),
            (None, None) => return,
        };
        self.send(Caller::Releaser(index), statement, limit, setup);
    }

    // ---- the kernel ----------------------------------------------------------

    fn executed(&mut self, setup: &Setup, index: usize, start: &Start) {
        let now = self.now;
        let others = self.hosts.iter().filter(|host| host.index != index);
        // A host that was suspended kills on waking, within milliseconds.
        let two = others
            .filter(|host| !host.is_suspended() && host.woke_at != Some(now))
            .any(|host| host.tree.is_alive());
        if two {
            self.violates("two trees at once");
        }
        if start.token <= self.highest {
            self.violates("tokens do not increase");
        }
        self.highest = self.highest.max(start.token);
        self.hosts[index].tree = Tree {
            worker: true,
            rest: setup.hosts[index].leaves_behind,
            ..Tree::default()
        };
    }

    /// Nothing of it is left.
    pub fn end_tree(&mut self, setup: &Setup, index: usize) {
        let host = &mut self.hosts[index];
        let tree = std::mem::take(&mut host.tree);
        host.ended_by = tree
            .worker
            .then_some(WorkerEnd::Signaled(SIGKILL))
            .or(host.ended_by);
        if host.sweeping && host.keeper_runs() {
            host.sweeping = false;
            self.keeper_steps(setup, index, Event::Guard(GuardEvent::Swept), None);
        }
        self.reap(setup, index);
    }

    pub fn worker_exits(&mut self, setup: &Setup, index: usize) {
        let host = &mut self.hosts[index];
        host.tree.worker = false;
        host.ended_by = Some(WorkerEnd::Exited(0));
        if !host.tree.rest {
            host.tree = Tree::default();
        }
        self.reap(setup, index);
    }

    /// The guard hears of what has ended, if it is there to hear.
    fn reap(&mut self, setup: &Setup, index: usize) {
        if self.hosts[index].guard_runs() {
            if let Some(end) = self.hosts[index].ended_by.take() {
                self.guard_steps(setup, index, guard::Event::WorkerEnded(end));
            }
            let host = &self.hosts[index];
            if !host.tree.is_alive() && host.guard.has_tree() && host.forked.is_none() {
                self.guard_steps(setup, index, guard::Event::TreeEmpty { killed: 0 });
            }
        }
        self.pump(setup, index);
    }

    pub fn kill_keeper(&mut self, setup: &Setup, index: usize) {
        (self.hosts[index].keeper_run, self.hosts[index].thaws_at) = (Run::Dead, None);
        self.forget_calls_of(index);
        self.pump(setup, index);
    }

    pub fn kill_guard(&mut self, setup: &Setup, index: usize) {
        self.guard_dies(index);
        self.pump(setup, index);
    }

    /// The worker, and a child that is to become it, die by their
    /// parent-death signal; what they have started does not.
    fn guard_dies(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        (host.guard_run, host.thaws_at) = (Run::Dead, None);
        (host.forked, host.ended_by) = (None, None);
        host.to_guard.clear();
        host.tree.worker = false;
        if !host.tree.is_alive() {
            host.tree = Tree::default();
        }
    }

    pub fn power_off(&mut self, index: usize) {
        self.forget_calls_of(index);
        let host = &mut self.hosts[index];
        (host.keeper_run, host.guard_run) = (Run::Dead, Run::Dead);
        (host.tree, host.forked, host.sweeping) = (Tree::default(), None, false);
        (host.suspended_until, host.cut_until, host.thaws_at) = (None, None, None);
        host.to_guard.clear();
        host.to_keeper.clear();
    }

    /// A host or a process of it goes on.
    pub fn resume(&mut self, setup: &Setup, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if host.suspended_until.take().is_some() {
            host.woke_at = Some(now);
        }
        host.thaws_at = None;
        for run in [&mut host.keeper_run, &mut host.guard_run] {
            if *run == Run::Frozen {
                *run = Run::Running;
            }
        }
        if host.sweeping && !host.tree.is_alive() {
            host.sweeping = false;
            self.keeper_steps(setup, index, Event::Guard(GuardEvent::Swept), None);
        }
        self.reap(setup, index);
    }

    // ---- the database's notifications, and operators -------------------------

    pub fn notify_all(&mut self) {
        for host in &mut self.hosts {
            let listens = host.keeper_run != Run::Dead && host.outcome.is_none();
            host.notified = listens && host.started && host.cut_until.is_none();
        }
    }

    pub fn request(&mut self, setup: &Setup) {
        self.requests_at = setup.requests_every.map(|every| self.now + nanos(every));
        let runs = self.hosts.iter().any(|host| host.tree.is_alive());
        let held = self
            .store
            .rows
            .get(&Slot(0))
            .is_some_and(|row| !row.released);
        if held && !runs {
            self.store.request(Slot(0));
            self.notify_all();
        }
    }
}

/// What the keeper's loop makes of a frame.
fn heard(frame: FromGuard) -> Option<GuardEvent> {
    match frame {
        FromGuard::Hello(_) => Some(GuardEvent::Ready),
        FromGuard::Started { pid } => Some(GuardEvent::Started { pid }),
        FromGuard::NotStarted(reason) => Some(GuardEvent::NotStarted(reason)),
        FromGuard::WorkerEnded(end) => Some(GuardEvent::WorkerEnded(end)),
        FromGuard::Stopping(reason) => Some(GuardEvent::Stopping(reason)),
        FromGuard::Empty { .. } => Some(GuardEvent::Empty),
        FromGuard::Ack { .. }
        | FromGuard::WorkerStopped { .. }
        | FromGuard::WorkerContinued
        | FromGuard::LeftBehind { .. }
        | FromGuard::Unkillable { .. } => None,
    }
}
