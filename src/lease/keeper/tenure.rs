//! A term, from the grant to the release: what is known of it, and its
//! renewals. Only one call is under way at a time.

use std::time::Duration;

use super::event::{Command, Transition};
use super::search::{Attempt, Search};
use super::{Commands, Context};
use crate::lease::record::{Acquire, Grant, Request, RequestKind, Term, Unknown};
use crate::lease::time::BootInstant;
use crate::lease::timing::Timing;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tenure {
    pub(super) term: Term,
    pub(super) grant: Grant,
    /// When the acquisition (or what settled it) was sent.
    pub(super) since: BootInstant,
    /// Until when the last grant gives a right: counted from its sending.
    pub(super) deadline: BootInstant,
    /// How many renewals in a row have failed.
    pub(super) failures: u32,
    /// The acquisition that began it.
    request: Acquire,
    /// A renewal is under way.
    pub(super) calling: bool,
    /// A precheck is under way.
    pub(super) prechecking: bool,
    /// When the next renewal is sent.
    next: BootInstant,
    /// When the next regular renewal was to be sent.
    due: BootInstant,
}

impl Tenure {
    pub(super) fn new(
        attempt: &Attempt,
        grant: &Grant,
        sent_at: BootInstant,
        search: &Search,
        context: &Context<'_>,
    ) -> Self {
        let request = &attempt.request;
        let next = sent_at + context.timing().next_renewal(context.now.chance);
        Self {
            term: Term {
                slot: request.slot,
                holder: request.holder,
                token: grant.token,
            },
            grant: grant.clone(),
            since: sent_at,
            deadline: sent_at + context.timing().trust(),
            failures: 0,
            request: request.clone(),
            calling: false,
            prechecking: search.prechecking,
            next,
            due: next,
        }
    }

    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        (!self.calling).then_some(self.next)
    }

    /// Sends a renewal if one is due. Returns whether it did.
    pub(super) fn renew(&mut self, context: &Context<'_>, out: &mut Commands) -> bool {
        let due = !self.calling && context.at() >= self.next;
        if due {
            self.calling = true;
            out.push(self.renewal(context));
        }
        due
    }

    /// With nothing left of its right, another one may have taken the lease,
    /// and a failover may have lost that. A renewal on the new incarnation
    /// would then hide the doubt from everybody, and free the lease by its
    /// release while that other one lives: on a new incarnation there must
    /// be none. Settling compares the incarnation.
    fn renewal(&self, context: &Context<'_>) -> Command {
        let limit = self.call_limit(context.timing(), context.at());
        if context.at() < self.deadline {
            return Command::Renew {
                term: self.term.clone(),
                limit,
            };
        }
        let request = Acquire {
            server_incarnation: self.grant.incarnation.clone(),
            ..self.request.clone()
        };
        Command::Settle { request, limit }
    }

    /// At most a third of what is left, so that another one can follow; with
    /// nothing left, where a call only keeps others out, of a whole term.
    pub(super) fn call_limit(&self, timing: &Timing, at: BootInstant) -> Duration {
        match self.deadline.saturating_since(at) {
            Duration::ZERO => timing.call_limit(timing.trust()),
            left => timing.call_limit(left),
        }
    }

    /// A renewal sent at `sent_at` was granted. Whether that is still worth
    /// anything to the worker is for the caller to decide.
    pub(super) fn granted(
        &mut self,
        grant: Grant,
        sent_at: BootInstant,
        context: &Context<'_>,
        out: &mut Commands,
    ) {
        let timing = context.timing();
        self.calling = false;
        self.deadline = self.deadline.max(sent_at + timing.trust());
        if grant.incarnation != self.grant.incarnation {
            out.push(Command::Tell(Transition::IncarnationChanged {
                from: self.grant.incarnation.clone(),
                to: grant.incarnation.clone(),
            }));
        }
        let behind = context.at().saturating_since(self.due);
        let late = self.failures > 0 || behind > timing.retry_pause(context.now.chance);
        out.push(Command::Tell(Transition::Renewed {
            grant: grant.clone(),
            deadline: self.deadline,
            took: context.at().saturating_since(sent_at),
            late: late.then_some(behind),
        }));
        self.grant = grant;
        self.failures = 0;
        self.next = sent_at + timing.next_renewal(context.now.chance);
        self.due = self.next;
    }

    /// A renewal was not answered: it moves no deadline.
    pub(super) fn failed(&mut self, unknown: Unknown, context: &Context<'_>, out: &mut Commands) {
        self.calling = false;
        self.failures = self.failures.saturating_add(1);
        self.next = context.retry_at();
        self.tell_failure("renew the lease", unknown, context, out);
    }

    pub(super) fn tell_failure(
        &self,
        what: &'static str,
        unknown: Unknown,
        context: &Context<'_>,
        out: &mut Commands,
    ) {
        let left = Some(self.deadline.saturating_since(context.at()));
        out.push(Command::Tell(Transition::CallFailed {
            what,
            unknown,
            left,
        }));
    }

    /// Whether a request is for this very term: it is void for any other.
    pub(super) fn steps_down(&self, request: Option<&Request>) -> bool {
        request.is_some_and(|request| match request.kind {
            RequestKind::StepDown { .. } => request.token == self.term.token,
        })
    }
}
