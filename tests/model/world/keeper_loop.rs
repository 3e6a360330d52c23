//! What the loop around a keeper does: it carries events in and commands out.

use std::time::Duration;

use leasewrap::lease::ids::{LeaseName, Slot};
use leasewrap::lease::keeper::event::{Command, Event, GivenBack, GuardEvent, Outcome, Transition};
use leasewrap::lease::keeper::{self, Phase};
use leasewrap::lease::record::{Acquired, Freed, Observed, Refusal, Renewed, Term};
use leasewrap::lease::time::BootInstant;
use leasewrap::wire::{PgOptions, Start, StopTo, ToGuard};

use super::calls::{Caller, Statement};
use super::host::{Host, Note, Run, fresh};
use super::store::{Row, nanos};
use super::{Mutation, Setup, World};
use crate::coverage;

/// `signal(7)`.
const SIGTERM: i32 = 15;

/// Until whoever started a leasewrap that has ended starts it again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How long a precheck takes.
const PRECHECK_TIME: Duration = Duration::from_millis(300);

impl World {
    pub fn start(&mut self, setup: &Setup, host: usize) {
        let now = self.keeper_now(setup, host);
        self.hosts[host].start(&setup.hosts[host], &now);
        self.wake_keeper(setup, host);
    }

    /// Whoever started leasewrap starts it again, soon.
    pub fn restart(&mut self, setup: &Setup, host: usize) {
        let attempts = self.hosts[host].attempts;
        self.hosts[host] = Host::new(host, &setup.hosts[host]);
        self.hosts[host].attempts = attempts;
        self.hosts[host].first_attempt = attempts;
        self.hosts[host].starts_at = self.now + nanos(RESTART_PAUSE);
    }

    pub fn wake_keeper(&mut self, setup: &Setup, host: usize) {
        self.keeper_hears(setup, host, Event::Wake, None);
    }

    /// A notification has come: a standby looks, or tries at once what it is
    /// told; a holder checks its row. It is told of a release whether there
    /// was one or not.
    pub fn notify(&mut self, setup: &Setup, host: usize) {
        self.hosts[host].notified = false;
        let told = self.store.rows.first_key_value();
        let told = told.map(|(slot, row)| Freed {
            slot: *slot,
            token: row.token,
            revision: row.revision,
        });
        let event = match self.hosts[host].keeper.phase() {
            Phase::Standby | Phase::Acquiring => Event::Changed(told),
            Phase::Starting | Phase::Holding | Phase::Stopping | Phase::Releasing => {
                let Some(term) = self.hosts[host].keeper.term() else {
                    return;
                };
                Event::Checked(self.reading(term))
            }
            Phase::Ended => return,
        };
        self.keeper_hears(setup, host, event, None);
    }

    /// The same, with an answer that comes late.
    pub fn checked(&mut self, setup: &Setup, host: usize) {
        if let Some((_, reply)) = self.hosts[host].checked.take() {
            self.keeper_hears(setup, host, Event::Checked(reply), None);
        }
    }

    pub fn prechecked(&mut self, setup: &Setup, host: usize) {
        self.hosts[host].prechecked_at = None;
        let unfit = std::mem::take(&mut self.hosts[host].unfit);
        self.keeper_hears(setup, host, Event::Fit(!unfit), None);
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

    pub fn keeper_steps(
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
        self.note_pair(setup, host, &event);
        let looks = matches!(event, Event::Observed(Observed::Seen(_)));
        let commands = self.hosts[host].keeper.step(event, &now);
        self.note_conclusion(setup, host, looks, &commands);
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

    fn note_pair(&self, setup: &Setup, host: usize, event: &Event) {
        let keeper = &self.hosts[host].keeper;
        let state = coverage::keeper::state(keeper.phase());
        let name = coverage::keeper::event(event);
        setup.driven.note(&coverage::keeper::TABLE, state, name);
        let Event::Observed(Observed::Seen(now)) = event else {
            return;
        };
        if keeper.phase() == Phase::Standby {
            let before = keeper.observation().map(|(_, seen)| seen);
            for slot in (0..keeper.config().slots).map(Slot) {
                let state = coverage::watch::state(before, slot);
                let event = coverage::watch::event(before, now, slot);
                setup.driven.note(&coverage::watch::TABLE, state, event);
            }
        }
    }

    fn note_conclusion(&self, setup: &Setup, host: usize, looked: bool, commands: &[Command]) {
        let keeper = &self.hosts[host].keeper;
        let waits = keeper.reason().filter(|_| looked);
        let mut concluded: Vec<_> = waits.and_then(coverage::watch::waits).into_iter().collect();
        concluded.extend(commands.iter().filter_map(|command| match command {
            Command::Tell(Transition::Acquired { basis, .. }) => {
                Some(coverage::watch::taken(basis))
            }
            _ => None,
        }));
        for name in concluded {
            setup
                .driven
                .note(&coverage::watch::CONCLUSIONS, "times", name);
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
            Command::Init { limit } => self.call(setup, host, Statement::Init, limit),
            Command::Precheck => {
                if self.hosts[host].prechecked_at.is_some() {
                    self.violates("two prechecks at once");
                }
                self.hosts[host].prechecked_at = Some(self.now + nanos(PRECHECK_TIME));
            }
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
            Command::Dismiss(_) => {
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
        let start = self.start_frame(setup, host, term, deadline);
        self.hosts[host].to_guard.push_back(ToGuard::Start(start));
    }

    pub fn start_frame(
        &self,
        setup: &Setup,
        host: usize,
        term: &Term,
        deadline: BootInstant,
    ) -> Start {
        let config = &setup.hosts[host].config;
        Start {
            name: LeaseName::new("model").expect("a name"),
            slot: term.slot,
            holder: term.holder,
            token: term.token,
            ttl: config.timing.ttl(),
            pgoptions: PgOptions::Leave,
            deadline,
            grace: config.timing.grace(),
            stop_signal: SIGTERM,
            stop_to: StopTo::Tree,
            stop_timeout: config.timing.stop_timeout(),
            variables: Vec::new(),
        }
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
        // What a failover has lost of a release is nobody's fault, and what
        // was closed by `break` is settled.
        let present = self.store.incarnation();
        let held = |row: &&Row| !row.released && row.incarnation == present && row.closed.is_none();
        let held = self.store.rows.values().find(held);
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

    pub fn must_be_empty(&mut self, host: usize) {
        if self.hosts[host].tree.is_alive() {
            self.violates("released before the tree was empty");
        }
    }
}
