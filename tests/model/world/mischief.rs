//! What else can come to one host: nothing of it must ever do harm.

use leasewrap::lease::guard::{self, KeeperLoss};
use leasewrap::lease::ids::{HolderId, Revision, Slot, Token};
use leasewrap::lease::keeper::event::{Event, StopCause};
use leasewrap::lease::record::{Fault as Kind, Grant, Loss, Renewed, Term, Unknown};
use leasewrap::wire::ToGuard;
use uuid::Uuid;

use super::store::nanos;
use super::{Host, Setup, World};
use crate::coverage::first_name;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mischief {
    /// A further signal after one that has asked for a stop.
    HurryUp,
    /// The worker has not fed its watchdog.
    Watchdog,
    /// The next precheck fails.
    Unfit,
    NotForked,
    NotExecuted,
    WorkerStops,
    WorkerGoesOn,
    /// A signal that is passed on.
    PassedOn,
    /// Is it there?
    Ping,
    /// An order to stop that has crossed what the guard says.
    LateStop,
    /// The answer of a reading of one's own row comes late, or never came.
    LateCheck,
    /// A keeper out of its mind: a second greeting,
    SecondHello,
    /// a second start,
    SecondStart,
    /// a farewell while something runs,
    EarlyDismiss,
    /// and what is no frame.
    Malformed,
}

pub const ALL: [Mischief; 15] = [
    Mischief::HurryUp,
    Mischief::Watchdog,
    Mischief::Unfit,
    Mischief::NotForked,
    Mischief::NotExecuted,
    Mischief::WorkerStops,
    Mischief::WorkerGoesOn,
    Mischief::PassedOn,
    Mischief::Ping,
    Mischief::LateStop,
    Mischief::LateCheck,
    Mischief::SecondHello,
    Mischief::SecondStart,
    Mischief::EarlyDismiss,
    Mischief::Malformed,
];

impl Mischief {
    pub fn can(self, host: &Host) -> bool {
        let keeper_runs = host.keeper_runs() && host.outcome.is_none();
        let guard = || first_name(&host.guard);
        match self {
            Self::HurryUp | Self::Watchdog => keeper_runs,
            Self::Unfit => host.keeper.config().precheck && !host.unfit,
            Self::NotForked | Self::NotExecuted => host.guard_runs() && host.forked.is_some(),
            Self::WorkerStops => host.guard_runs() && host.tree.worker && !host.worker_stopped,
            Self::WorkerGoesOn => host.guard_runs() && host.tree.worker && host.worker_stopped,
            Self::PassedOn | Self::Ping => keeper_runs && host.guard_runs(),
            Self::LateStop => keeper_runs && host.guard_runs() && guard() != "Idle",
            Self::LateCheck => keeper_runs && host.checked.is_none(),
            Self::SecondHello | Self::Malformed => !host.hurt && host.guard_runs(),
            // To one that has nothing yet it would be the first.
            Self::SecondStart => !host.hurt && host.guard_runs() && guard() != "Idle",
            Self::EarlyDismiss => {
                let idle = ["Idle", "Empty", "Ended"];
                !host.hurt && host.guard_runs() && !idle.contains(&guard().as_str())
            }
        }
    }
}

impl World {
    pub fn mischief(&mut self, setup: &Setup, index: usize, mischief: Mischief) {
        let host = &mut self.hosts[index];
        let frame = guard::Event::Frame;
        match mischief {
            Mischief::HurryUp => self.keeper_hears(setup, index, Event::HurryUp, None),
            Mischief::Watchdog => {
                let event = Event::Stop(StopCause::Watchdog);
                self.keeper_hears(setup, index, event, None);
            }
            Mischief::Unfit => host.unfit = true,
            Mischief::NotForked => {
                host.forked = None;
                let message = "no memory".to_owned();
                self.guard_hears(setup, index, guard::Event::NotForked { message });
            }
            Mischief::NotExecuted => host.not_executable = true,
            Mischief::WorkerStops => {
                host.worker_stopped = true;
                self.guard_hears(setup, index, guard::Event::WorkerStopped { signal: 20 });
            }
            Mischief::WorkerGoesOn => {
                host.worker_stopped = false;
                self.guard_hears(setup, index, guard::Event::WorkerContinued);
            }
            Mischief::PassedOn => self.guard_hears(setup, index, frame(ToGuard::Signal(10))),
            Mischief::Ping => self.guard_hears(setup, index, frame(ToGuard::Ping { seq: 1 })),
            Mischief::LateStop => {
                let kill_by = self.at(setup, index) + setup.stop_time;
                let stop = ToGuard::Stop {
                    signal: 15,
                    kill_by,
                };
                self.guard_hears(setup, index, frame(stop));
            }
            Mischief::LateCheck => self.check_late(setup, index),
            Mischief::SecondHello => {
                self.hosts[index].hurt = true;
                self.guard_hears(setup, index, frame(ToGuard::Hello(super::host::hello())));
            }
            Mischief::SecondStart => {
                host.hurt = true;
                let term = Term {
                    slot: Slot(0),
                    holder: HolderId(Uuid::nil()),
                    token: Token(1),
                };
                let start = self.start_frame(setup, index, &term, self.at(setup, index));
                self.guard_hears(setup, index, frame(ToGuard::Start(start)));
            }
            Mischief::EarlyDismiss => {
                host.hurt = true;
                self.guard_hears(setup, index, frame(ToGuard::Dismiss));
            }
            Mischief::Malformed => {
                host.hurt = true;
                let lost = guard::Event::KeeperLost(KeeperLoss::Malformed);
                self.guard_hears(setup, index, lost);
            }
        }
    }

    fn guard_hears(&mut self, setup: &Setup, index: usize, event: guard::Event) {
        self.guard_steps(setup, index, event);
        self.pump(setup, index);
    }

    /// In a term its row is read now, and what it says is heard later; without
    /// one it is heard now, of the term before.
    fn check_late(&mut self, setup: &Setup, index: usize) {
        let host = &self.hosts[index];
        let answers = host.cut_until.is_none() && !self.store.in_recovery;
        let reply = match host.keeper.term() {
            Some(term) if answers => self.reading(term),
            None if self.chance.0 % 4 == 2 => Renewed::Lost(Loss::Missing),
            None if self.chance.0 % 4 == 3 => Renewed::Granted {
                grant: Grant {
                    token: Token(1),
                    revision: Revision(1),
                    incarnation: self.store.incarnation(),
                },
                request: None,
            },
            Some(_) | None => no_answer(),
        };
        if host.keeper.term().is_none() {
            self.keeper_hears(setup, index, Event::Checked(reply), None);
        } else {
            let at = self.now + nanos(setup.late_by);
            self.hosts[index].checked = Some((at, reply));
        }
    }

    /// What a look at one's own row says. It fails too (never for the checker).
    pub fn reading(&self, term: &Term) -> Renewed {
        if self.chance.0 % 4 == 1 {
            no_answer()
        } else {
            self.store.check(term)
        }
    }
}

fn no_answer() -> Renewed {
    Renewed::Unknown(Unknown {
        fault: Kind::Transient,
        message: String::new(),
    })
}
