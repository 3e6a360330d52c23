//! What the loop around a guard does, and the frames between it and the keeper.

use std::collections::VecDeque;
use std::time::Duration;

use leasewrap::lease::guard::{self, Action};
use leasewrap::lease::keeper::event::{Event, GuardEvent};
use leasewrap::lease::time::BootInstant;
use leasewrap::wire::{FromGuard, NotStarted, Start, StopReason, ToGuard};

use super::calls::{Caller, Statement};
use super::host::{Host, Run};
use super::store::nanos;
use super::{Mutation, Setup, World};
use crate::coverage;

impl World {
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
        } else if host.outcome.is_none() {
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
        if let Some((_, start)) = self.hosts[host].forked.take() {
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
            let state = coverage::first_name(&guard_before);
            let name = coverage::guard::event(&event);
            setup.driven.note(&coverage::guard::TABLE, &state, name);
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
            Action::Fork(start) => host.forked = Some((now + nanos(setup.fork_time), *start)),
            Action::Go { deadline } => {
                let start = host.child.take();
                if std::mem::take(&mut host.not_executable) {
                    events.push_back(guard::Event::NotExecuted(NotStarted::Exec { errno: 2 }));
                } else if self.at(setup, index) >= deadline {
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
            Action::SignalWorker(_) | Action::WakeWorker => {}
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
}

/// What the keeper's loop makes of a frame.
pub fn heard(frame: FromGuard) -> Option<GuardEvent> {
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
