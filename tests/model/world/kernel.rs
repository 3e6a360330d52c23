//! What the kernel does: processes start, end, stop and go on.

use leasewrap::lease::guard;
use leasewrap::lease::ids::Token;
use leasewrap::lease::keeper::event::{Event, GuardEvent};
use leasewrap::wire::{Start, WorkerEnd};

use super::host::{Run, Tree};
use super::store::nanos;
use super::{Mutation, Setup, World};

/// `signal(7)`.
const SIGKILL: i32 = 9;

impl World {
    pub fn mutated(setup: &Setup, mutation: Mutation) -> bool {
        setup.mutation == Some(mutation)
    }

    pub fn executed(&mut self, setup: &Setup, index: usize, start: &Start) {
        let now = self.now;
        let others = self.hosts.iter().filter(|host| host.index != index);
        // A host that was suspended kills on waking, within milliseconds.
        let two = others
            .filter(|host| !host.is_suspended() && !host.is_waking(now, setup.kill_time))
            .any(|host| host.tree.is_alive() && host.tree.slot == start.slot.0);
        if two {
            self.violates("two trees at once");
        }
        let highest = self.highest.entry(start.slot).or_insert(Token(0));
        let increases = start.token > *highest;
        *highest = start.token.max(*highest);
        if !increases {
            self.violates("tokens do not increase");
        }
        self.terms += 1;
        self.hosts[index].tree = Tree {
            slot: start.slot.0,
            worker: true,
            rest: setup.hosts[index].leaves_behind,
            ..Tree::default()
        };
        self.hosts[index].worker_stopped = false;
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
    pub fn guard_dies(&mut self, index: usize) {
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

    pub fn notify_all(&mut self) {
        for host in &mut self.hosts {
            let listens = host.keeper_run != Run::Dead && host.outcome.is_none();
            host.notified = listens && host.started && host.cut_until.is_none();
        }
    }

    pub fn request(&mut self, setup: &Setup) {
        self.requests_at = setup.requests_every.map(|every| self.now + nanos(every));
        let runs = self.hosts.iter().any(|host| host.tree.is_alive());
        if let Some(slot) = self.store.held().filter(|_| !runs) {
            self.store.request(slot);
            self.notify_all();
        }
    }
}
