//! What can go wrong, apart from what goes wrong with calls.

use leasewrap::lease::ids::{HolderId, Slot};
use leasewrap::lease::keeper::event::{Event, StopCause};
use uuid::Uuid;

use super::calls::{Caller, Mishap, Progress};
use super::host::Run;
use super::mischief::Mischief;
use super::store::{LAG, Store, nanos};
use super::{Setup, World};

/// One hour, by which the database's clock is stepped.
const HOUR: i64 = 3_600_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Of any call: `usize` is its index, or `usize::MAX` in a list of kinds.
    Call(usize, Mishap),
    /// SIGKILL or a crash.
    KillKeeper(usize),
    KillGuard(usize),
    /// SIGSTOP, for a while.
    StopKeeper(usize),
    StopGuard(usize),
    /// The host is gone for good.
    PowerOff(usize),
    Suspend(usize),
    CutOff(usize),
    /// The database is gone for a while, with what is under way.
    Outage,
    /// A replica takes over that has missed so many commits.
    FailOver(usize),
    ClockForward,
    ClockBack,
    /// TERM to the keeper.
    Term(usize),
    WorkerExits(usize),
    /// The row is taken by SQL.
    Steal,
    Break,
    StepDown,
    /// `leasewrap pause`, and `resume` after a while.
    Pause,
    /// Only a standby server is there for a while.
    Recovery,
    /// A notification that nothing has caused: anybody can send one.
    Notice,
    Of(usize, Mischief),
}

impl World {
    /// Where a fault of this kind could strike now.
    pub fn possible(&self, kind: Fault) -> Vec<Fault> {
        let hosts = |can: &dyn Fn(&super::Host) -> bool, fault: fn(usize) -> Fault| {
            let hosts = self.hosts.iter().filter(|host| host.started && can(host));
            hosts.map(|host| fault(host.index)).collect()
        };
        let held = self.store.held().is_some();
        let when = |possible: bool| if possible { vec![kind] } else { Vec::new() };
        match kind {
            Fault::Call(_, mishap) => {
                let calls = self.calls.iter().enumerate();
                let sent = calls.filter(|(_, call)| {
                    call.progress == Progress::Sent && call.caller != Caller::Nobody
                });
                sent.map(|(index, _)| Fault::Call(index, mishap)).collect()
            }
            Fault::KillKeeper(_) => hosts(
                &|host| !host.hurt && host.keeper_runs() && host.outcome.is_none(),
                Fault::KillKeeper,
            ),
            Fault::StopKeeper(_) => hosts(
                &|host| !host.hurt && host.keeper_runs() && host.outcome.is_none(),
                Fault::StopKeeper,
            ),
            Fault::KillGuard(_) => hosts(&|host| !host.hurt && host.guard_runs(), Fault::KillGuard),
            Fault::StopGuard(_) => hosts(&|host| !host.hurt && host.guard_runs(), Fault::StopGuard),
            Fault::PowerOff(_) => hosts(&|host| host.keeper_run != Run::Dead, Fault::PowerOff),
            Fault::Suspend(_) => hosts(&|host| !host.hurt && host.keeper_runs(), Fault::Suspend),
            Fault::CutOff(_) => hosts(
                &|host| host.cut_until.is_none() && host.outcome.is_none(),
                Fault::CutOff,
            ),
            Fault::Term(_) => hosts(
                &|host| host.keeper_runs() && host.outcome.is_none(),
                Fault::Term,
            ),
            Fault::WorkerExits(_) => hosts(
                &|host| host.tree.worker && !host.is_suspended(),
                Fault::WorkerExits,
            ),
            Fault::FailOver(_) => (0..=self.store.before.len().min(LAG))
                .map(Fault::FailOver)
                .collect(),
            Fault::ClockForward => when(self.store.ahead <= 0),
            Fault::ClockBack => when(self.store.ahead >= 0),
            Fault::Outage => when(self.hosts.iter().all(|host| host.cut_until.is_none())),
            Fault::Steal | Fault::Break | Fault::StepDown | Fault::Notice => when(held),
            Fault::Pause | Fault::Recovery => when(self.over_at.is_none()),
            Fault::Of(_, mischief) => {
                let hosts = self.hosts.iter().filter(|host| host.started);
                let hosts = hosts.filter(|host| mischief.can(host));
                hosts.map(|host| Fault::Of(host.index, mischief)).collect()
            }
        }
    }

    pub fn strike(&mut self, setup: &Setup, fault: Fault) {
        let back_at = self.now + nanos(setup.away_for);
        match fault {
            Fault::Call(index, mishap) => self.mishap(setup, index, mishap),
            Fault::KillKeeper(host) => {
                self.hosts[host].hurt = true;
                self.kill_keeper(setup, host);
            }
            Fault::KillGuard(host) => {
                self.hosts[host].hurt = true;
                self.kill_guard(setup, host);
            }
            Fault::StopKeeper(host) => {
                (self.hosts[host].hurt, self.hosts[host].keeper_run) = (true, Run::Frozen);
                self.hosts[host].thaws_at = Some(back_at);
            }
            Fault::StopGuard(host) => {
                (self.hosts[host].hurt, self.hosts[host].guard_run) = (true, Run::Frozen);
                self.hosts[host].thaws_at = Some(back_at);
            }
            Fault::PowerOff(host) => self.power_off(host),
            Fault::Suspend(host) => {
                self.hosts[host].hurt = true;
                self.hosts[host].suspended_until = Some(back_at);
            }
            Fault::CutOff(host) => self.cut_off(host, back_at),
            Fault::Outage => {
                for host in 0..self.hosts.len() {
                    self.cut_off(host, back_at);
                }
            }
            Fault::FailOver(lost) => {
                self.lose_calls(|_| true);
                self.store.fail_over(lost);
            }
            Fault::ClockForward => self.store.ahead += HOUR,
            Fault::ClockBack => self.store.ahead -= HOUR,
            Fault::Term(host) => {
                let event = Event::Stop(StopCause::Signal(15));
                self.keeper_hears(setup, host, event, None);
            }
            Fault::WorkerExits(host) => self.worker_exits(setup, host),
            Fault::Steal => self.meddle(|store, slot, now| {
                store.steal(slot, HolderId(Uuid::from_u128(99)), now);
            }),
            Fault::Break => self.meddle(|store, slot, _| store.close(slot)),
            Fault::StepDown => self.meddle(|store, slot, _| store.request(slot)),
            Fault::Pause => {
                (self.store.paused, self.over_at) = (true, Some(back_at));
                self.notify_all();
            }
            Fault::Recovery => {
                (self.store.in_recovery, self.over_at) = (true, Some(back_at));
            }
            Fault::Notice => self.notify_all(),
            Fault::Of(host, mischief) => self.mischief(setup, host, mischief),
        }
    }

    /// People do something to a row that is held.
    fn meddle(&mut self, act: impl Fn(&mut Store, Slot, u64)) {
        if let Some(slot) = self.store.held() {
            act(&mut self.store, slot, self.now);
            self.notify_all();
        }
    }

    fn cut_off(&mut self, host: usize, until: u64) {
        self.hosts[host].cut_until = Some(until);
        self.lose_calls(|caller| {
            caller == Caller::Keeper(host) || caller == Caller::Releaser(host)
        });
    }
}
