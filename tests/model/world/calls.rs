//! Calls to the database: sent, executed, answered, given up; each of which
//! may fail or come late.

use std::time::Duration;

use leasewrap::lease::ids::{Incarnation, Token};
use leasewrap::lease::keeper::event::Event;
use leasewrap::lease::record::{
    Acquire, Acquired, Fault as Kind, Observed, Released, Renewed, Term, Unknown,
};

use super::host::{self, Host, Run};
use super::store::nanos;
use super::{Setup, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    Keeper(usize),
    Releaser(usize),
    /// Whoever sent it has given up or is gone.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Statement {
    Observe,
    Init,
    Acquire(Acquire),
    Renew(Term),
    Settle(Acquire),
    Release(Term, Incarnation),
    /// The releaser's, who knows of an attempt only.
    ReleaseAttempt(Acquire),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Progress {
    /// On its way to the server.
    Sent,
    /// The server takes its time.
    Executes { at: u64 },
    /// The answer is on its way.
    Answered { at: u64, answer: Event },
    /// There is no answer. It may be executed yet.
    Unanswered { executes_at: Option<u64> },
}

/// What can go wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// It never arrives.
    Lost,
    /// It is executed at once, and the answer never arrives.
    AnswerLost,
    /// It is executed at once, and the answer takes all the time there is.
    SlowAnswer,
    /// It is executed and answered when hardly any time is left.
    SlowExecution,
    /// It is executed long after its client has given up.
    Late,
    /// The server says no: a wrong password, say.
    Denied,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    pub caller: Caller,
    pub statement: Statement,
    pub sent_at: u64,
    pub gives_up_at: u64,
    pub progress: Progress,
}

impl Call {
    /// When something happens to it next.
    pub fn next_at(&self, hosts: &[Host]) -> Option<u64> {
        let heard = match self.caller {
            Caller::Keeper(host) => hosts[host].keeper_runs(),
            Caller::Releaser(_) | Caller::Nobody => true,
        };
        match &self.progress {
            Progress::Sent => Some(self.sent_at),
            Progress::Executes { at } => Some(*at),
            Progress::Answered { at, .. } => heard.then_some(*at),
            Progress::Unanswered { .. } => heard.then_some(self.gives_up_at),
        }
    }
}

impl World {
    pub fn send(&mut self, caller: Caller, statement: Statement, limit: Duration, setup: &Setup) {
        let limit = match caller {
            // Limits are measured by the host's clock.
            Caller::Keeper(host) => nanos(limit) * 1000 / setup.hosts[host].clock_rate,
            Caller::Releaser(_) | Caller::Nobody => nanos(limit),
        };
        let cut = match caller {
            Caller::Keeper(host) | Caller::Releaser(host) => self.hosts[host].cut_until.is_some(),
            Caller::Nobody => false,
        };
        self.calls.push(Call {
            caller,
            statement,
            sent_at: self.now,
            gives_up_at: self.now + limit,
            progress: if cut {
                Progress::Unanswered { executes_at: None }
            } else {
                Progress::Sent
            },
        });
    }

    pub fn is_calling(&self, host: usize) -> bool {
        self.calls
            .iter()
            .any(|call| call.caller == Caller::Keeper(host))
    }

    /// Whoever sent it hears nothing of it any more.
    pub fn forget_calls_of(&mut self, host: usize) {
        for call in &mut self.calls {
            if call.caller == Caller::Keeper(host) {
                call.caller = Caller::Nobody;
            }
        }
        self.drop_dead_calls();
    }

    /// No server is there to execute what is under way.
    pub fn lose_calls(&mut self, of: impl Fn(Caller) -> bool) {
        for call in &mut self.calls {
            if of(call.caller) {
                match call.progress {
                    Progress::Sent | Progress::Executes { .. } | Progress::Answered { .. } => {
                        call.progress = Progress::Unanswered { executes_at: None };
                    }
                    Progress::Unanswered { .. } => {}
                }
            }
        }
        self.drop_dead_calls();
    }

    fn drop_dead_calls(&mut self) {
        self.calls.retain(|call| {
            let dead = match call.progress {
                Progress::Sent | Progress::Executes { .. } => false,
                Progress::Answered { .. } => true,
                Progress::Unanswered { executes_at } => executes_at.is_none(),
            };
            !(dead && matches!(call.caller, Caller::Nobody | Caller::Releaser(_)))
        });
    }

    pub fn call_goes_on(&mut self, setup: &Setup, index: usize) {
        let call = self.calls.remove(index);
        match call.progress {
            Progress::Sent | Progress::Executes { .. } => {
                let answer = self.execute(&call.statement);
                self.answer(setup, call.caller, answer, call.sent_at);
            }
            Progress::Answered { answer, .. } => {
                self.answer(setup, call.caller, answer, call.sent_at);
            }
            Progress::Unanswered { executes_at } => {
                let answer = unknown(&call.statement, Kind::Transient);
                if let Some(at) = executes_at {
                    self.calls.push(Call {
                        caller: Caller::Nobody,
                        progress: Progress::Executes { at },
                        ..call
                    });
                }
                self.answer(setup, call.caller, answer, call.sent_at);
            }
        }
    }

    fn answer(&mut self, setup: &Setup, caller: Caller, answer: Event, sent_at: u64) {
        let Caller::Keeper(host) = caller else { return };
        if self.hosts[host].keeper_run == Run::Dead {
            return;
        }
        let sent_at = host::local(sent_at, setup.hosts[host].clock_rate);
        self.keeper_hears(setup, host, answer, Some(sent_at));
    }

    pub fn mishap(&mut self, setup: &Setup, index: usize, mishap: Mishap) {
        let call = &self.calls[index];
        let last = call.gives_up_at - (call.gives_up_at - call.sent_at) / 10;
        let (statement, late) = (
            call.statement.clone(),
            call.gives_up_at + nanos(setup.late_by),
        );
        let progress = match mishap {
            Mishap::Lost => Progress::Unanswered { executes_at: None },
            Mishap::AnswerLost => {
                self.execute(&statement);
                Progress::Unanswered { executes_at: None }
            }
            Mishap::SlowAnswer => Progress::Answered {
                at: last,
                answer: self.execute(&statement),
            },
            Mishap::SlowExecution => Progress::Executes { at: last },
            Mishap::Denied => Progress::Answered {
                at: self.now,
                answer: unknown(&statement, Kind::Final),
            },
            Mishap::Late => Progress::Unanswered {
                executes_at: Some(late),
            },
        };
        self.calls[index].progress = progress;
    }

    /// Does at the server what it says. `sent_at` is filled in on arrival.
    fn execute(&mut self, statement: &Statement) -> Event {
        let sent_at = leasewrap::lease::time::BootInstant::ZERO;
        let before = self.store.shown();
        if self.store.in_recovery && *statement != Statement::Observe {
            return unknown(statement, Kind::ReadOnly);
        }
        let answer = match statement {
            Statement::Observe => Event::Observed(self.store.observe(self.now)),
            Statement::Init => {
                self.store.schema = true;
                Event::Initialised(Ok(()))
            }
            Statement::Acquire(request) => {
                let reply = self.store.acquire(request, self.now);
                if let Acquired::Granted(grant) = &reply {
                    self.granted(grant.token);
                }
                Event::Acquired { sent_at, reply }
            }
            Statement::Renew(term) => Event::Renewed {
                sent_at,
                reply: self.store.renew(term, self.now),
            },
            Statement::Settle(request) => Event::Renewed {
                sent_at,
                reply: self.store.settle(request, self.now),
            },
            Statement::Release(term, incarnation) => Event::Released(self.store.release(
                term.slot,
                term.holder,
                Some(term.token),
                incarnation,
            )),
            Statement::ReleaseAttempt(request) => Event::Released(self.store.release(
                request.slot,
                request.holder,
                None,
                &request.server_incarnation,
            )),
        };
        if self.store.shown() != before {
            self.notify_all();
        }
        answer
    }

    fn granted(&mut self, token: Token) {
        // Whoever waits for the last holder has a new one to wait for.
        self.idle_since = self.now;
        if !self.store.granted.insert(token) {
            self.violates("a token is handed out twice");
        }
    }
}

fn unknown(statement: &Statement, fault: Kind) -> Event {
    let sent_at = leasewrap::lease::time::BootInstant::ZERO;
    let unknown = Unknown {
        fault,
        message: String::new(),
    };
    match statement {
        Statement::Observe => Event::Observed(Observed::Unknown(unknown)),
        Statement::Init => Event::Initialised(Err(unknown)),
        Statement::Acquire(_) => Event::Acquired {
            sent_at,
            reply: Acquired::Unknown(unknown),
        },
        Statement::Renew(_) | Statement::Settle(_) => Event::Renewed {
            sent_at,
            reply: Renewed::Unknown(unknown),
        },
        Statement::Release(..) | Statement::ReleaseAttempt(_) => {
            Event::Released(Released::Unknown(unknown))
        }
    }
}
