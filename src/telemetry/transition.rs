//! The keeper's transitions as lines of the log. The names of events and
//! fields are stable: people search for them and alert on them.

use std::time::Duration;

use crate::lease::ids::{LeaseName, Slot};
use crate::lease::keeper::event::{GivenBack, StopCause, Transition};
use crate::lease::record::{Fault, Grant, Loss, Record, Term, Unknown};
use crate::lease::time::BootInstant;
use crate::lease::watch::{Basis, Reason};
use crate::sys::signals;

use super::format::{millis, span};

/// What is known beside the transition.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The lease.
    pub name: &'a LeaseName,
    /// The term, where one is held.
    pub term: Option<&'a Term>,
    /// When it happened.
    pub now: BootInstant,
    /// The longest outage that the times in use ride out.
    pub rides_out: Duration,
    /// Whether a worker that lost its lease is killed; it may have ended in
    /// time when it was told to stop.
    pub killed: bool,
    /// What ends the worker's tree.
    pub containment: Containment,
}

/// What ends the worker's tree when leasewrap's processes cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// Nothing: each of them finds and kills it, and each is there for the other.
    Tree,
    /// The kernel, with the PID namespace in which it lives.
    PidNamespace,
}

impl Containment {
    /// For machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::PidNamespace => "pid-namespace",
        }
    }
}

impl Context<'_> {
    fn slot(&self) -> Option<u32> {
        self.term.map(|term| term.slot.0)
    }

    fn holder(&self) -> Option<String> {
        self.term.map(|term| term.holder.to_string())
    }

    fn token(&self) -> Option<i64> {
        self.term.map(|term| term.token.0)
    }

    fn left(&self, deadline: BootInstant) -> Duration {
        deadline.saturating_since(self.now)
    }
}

/// Logs what happened.
pub fn log(transition: &Transition, context: &Context<'_>) {
    match transition {
        Transition::Waiting {
            holder,
            why,
            attempts,
        } => {
            waiting(context, holder.as_ref(), why, *attempts);
        }
        Transition::HolderChanged { record } => holder_changed(context, record),
        Transition::Acquired {
            term,
            grant,
            deadline,
            basis,
        } => {
            acquired(context, term, grant, *deadline, basis);
        }
        Transition::Renewed {
            grant,
            deadline,
            took,
            late,
        } => {
            renewed(context, grant, *deadline, *took, *late);
        }
        Transition::CallFailed {
            what,
            unknown,
            left,
        } => call_failed(context, what, unknown, *left),
        Transition::IncarnationChanged { from, to } => tracing::warn!(
            event = "incarnation-changed",
            name = %context.name,
            slot = context.slot(),
            token = context.token(),
            %from,
            %to,
            "the database failed over or was restored; this lease survived"
        ),
        Transition::Losing { deadline } => losing(context, *deadline),
        Transition::Lost { loss } => lost(context, loss.as_ref()),
        Transition::Stopping(cause) => stopping(context, cause),
        Transition::Released { slot, result } => released(context, *result, *slot),
    }
}

fn waiting(context: &Context<'_>, holder: Option<&Record>, why: &Reason, attempts: u64) {
    let by = holder
        .filter(|record| !record.released)
        .map_or_else(String::new, |record| {
            format!(
                "; {} has it, for {} now",
                shown_label(&record.label),
                span(record.held_for)
            )
        });
    tracing::info!(
        event = "waiting",
        name = %context.name,
        slot = holder.map(|record| record.slot.0),
        holder = holder.and_then(|record| record.holder).map(|holder| holder.to_string()),
        label = holder.map(|record| record.label.as_str()),
        token = holder.map(|record| record.token.0),
        held_ms = holder.map(|record| millis(record.held_for)),
        reason = reason_name(why),
        attempts,
        "standing by: {why}{by}"
    );
}

fn holder_changed(context: &Context<'_>, record: &Record) {
    tracing::info!(
        event = "holder-changed",
        name = %context.name,
        slot = record.slot.0,
        holder = record.holder.map(|holder| holder.to_string()),
        label = record.label,
        token = record.token.0,
        revision = record.revision.0,
        "{} holds the lease now",
        shown_label(&record.label)
    );
}

fn acquired(
    context: &Context<'_>,
    term: &Term,
    grant: &Grant,
    deadline: BootInstant,
    basis: &Basis,
) {
    // Taken from somebody who did not give it back: worth a second look.
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(
                event = "acquired",
                name = %context.name,
                slot = term.slot.0,
                holder = %term.holder,
                token = grant.token.0,
                revision = grant.revision.0,
                incarnation = %grant.incarnation,
                deadline_ms = millis(context.left(deadline)),
                basis = basis.name(),
                rides_out_ms = millis(context.rides_out),
                containment = context.containment.name(),
                "lease acquired: {basis}; an outage of the database of up to {} will pass unnoticed",
                span(context.rides_out)
            )
        };
    }
    match basis {
        Basis::New | Basis::Released => say!(info),
        Basis::Silent { .. } | Basis::Expired | Basis::Doubted { .. } => say!(warn),
    }
}

fn renewed(
    context: &Context<'_>,
    grant: &Grant,
    deadline: BootInstant,
    took: Duration,
    late: Option<Duration>,
) {
    let deadline_ms = millis(context.left(deadline));
    match late {
        Some(late) => tracing::warn!(
            event = "renewed-late",
            name = %context.name,
            slot = context.slot(),
            token = grant.token.0,
            revision = grant.revision.0,
            deadline_ms,
            took_ms = millis(took),
            late_ms = millis(late),
            "renewed, {} late",
            span(late)
        ),
        None => tracing::debug!(
            event = "renewed",
            name = %context.name,
            slot = context.slot(),
            token = grant.token.0,
            revision = grant.revision.0,
            deadline_ms,
            took_ms = millis(took),
            "renewed"
        ),
    }
}

fn call_failed(context: &Context<'_>, what: &str, unknown: &Unknown, left: Option<Duration>) {
    let until = until_words(what, left);
    tracing::warn!(
        event = "call-failed",
        name = %context.name,
        slot = context.slot(),
        token = context.token(),
        call = what,
        fault = fault_name(unknown.fault),
        deadline_ms = left.map(millis),
        "cannot {what}: {}{until}",
        unknown.message
    );
}

/// What happens unless a further call succeeds.
fn until_words(what: &str, left: Option<Duration>) -> String {
    match left {
        // There is no worker any more.
        Some(_) if what == "release the lease" => {
            "; the lease runs out if none succeeds".to_owned()
        }
        Some(left) => format!(
            "; the worker has to be dead in {} if none succeeds",
            span(left)
        ),
        None => String::new(),
    }
}

fn losing(context: &Context<'_>, deadline: BootInstant) {
    let left = context.left(deadline);
    tracing::warn!(
        event = "losing",
        name = %context.name,
        slot = context.slot(),
        token = context.token(),
        deadline_ms = millis(left),
        "no renewal has come through: the worker is told to stop, and is killed in {}",
        span(left)
    );
}

fn lost(context: &Context<'_>, loss: Option<&Loss>) {
    tracing::error!(
        event = "lost",
        name = %context.name,
        slot = context.slot(),
        holder = context.holder(),
        token = context.token(),
        reason = loss_name(loss),
        "lease lost: {}; {}",
        loss_words(loss),
        if context.killed {
            "killing the worker and everything it started"
        } else {
            "the worker was told to stop and has ended"
        }
    );
}

fn stopping(context: &Context<'_>, cause: &StopCause) {
    tracing::info!(
        event = "stopping",
        name = %context.name,
        slot = context.slot(),
        token = context.token(),
        reason = cause.name(),
        "stopping the worker: {}",
        cause_words(cause)
    );
}

fn released(context: &Context<'_>, result: GivenBack, slot: Slot) {
    match result {
        GivenBack::Done => tracing::info!(
            event = "released",
            name = %context.name,
            slot = slot.0,
            holder = context.holder(),
            token = context.token(),
            "lease released"
        ),
        GivenBack::NotOurs => tracing::info!(
            event = "not-ours",
            name = %context.name,
            slot = slot.0,
            holder = context.holder(),
            token = context.token(),
            "the lease was no longer ours to give back"
        ),
        GivenBack::RunsOut { left } => tracing::warn!(
            event = "release-failed",
            name = %context.name,
            slot = slot.0,
            holder = context.holder(),
            token = context.token(),
            runs_out_in_ms = millis(left),
            "the lease could not be given back; it runs out by itself in {}",
            span(left)
        ),
    }
}

/// A label as a word of a sentence.
pub fn shown_label(label: &str) -> String {
    if label.is_empty() {
        "a holder without a label".to_owned()
    } else {
        format!("\"{label}\"")
    }
}

/// For people: reads after "because".
pub fn cause_words(cause: &StopCause) -> String {
    match cause {
        StopCause::Signal(signal) => format!("{} came", signals::name(*signal)),
        StopCause::Attach(signal) => format!("{} came to attach", signals::name(*signal)),
        StopCause::StepDown => "an operator asked for it (step-down)".to_owned(),
        StopCause::Unfit => "the precheck says that this host is not fit to hold it".to_owned(),
        StopCause::Watchdog => "the worker has not fed its watchdog".to_owned(),
    }
}

/// For people: reads after "lease lost:".
pub fn loss_words(loss: Option<&Loss>) -> String {
    loss.map_or_else(
        || "no renewal came through in time".to_owned(),
        Loss::to_string,
    )
}

/// For machines.
pub fn loss_name(loss: Option<&Loss>) -> &'static str {
    loss.map_or("deadline", Loss::name)
}

/// For machines.
pub fn reason_name(reason: &Reason) -> &'static str {
    match reason {
        Reason::Starting => "starting",
        Reason::NoGuard => "no-guard",
        Reason::Held { .. } => "held",
        Reason::Watching { .. } => "watching",
        Reason::Doubting { .. } => "in-doubt",
        Reason::HeldBack { .. } => "held-back",
        Reason::Reserved { .. } => "reserved",
        Reason::SlotAbove { .. } => "slot-above",
        Reason::Paused { .. } => "paused",
        Reason::Locked { .. } => "locked",
        Reason::Overtaken => "overtaken",
        Reason::Unfit => "precheck",
        Reason::Unreachable { .. } => "unreachable",
        Reason::SteppedDown { .. } => "stepped-down",
    }
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Transient => "transient",
        Fault::ReadOnly => "read-only",
        Fault::Final => "final",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_says_what_hangs_on_the_next_one() {
        let left = Some(Duration::from_secs(3));
        let renewal = until_words("renew the lease", left);
        assert!(renewal.contains("worker has to be dead in 3s"), "{renewal}");
        let release = until_words("release the lease", left);
        assert!(release.contains("the lease runs out"), "{release}");
        assert!(!release.contains("worker"), "{release}");
        assert_eq!(until_words("look at the lease", None), "");
    }
}
