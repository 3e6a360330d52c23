//! What `--on-event` is told: six events, in the words of the log.

use std::time::Duration;

use serde_json::json;

use crate::lease::ids::{HolderId, Label, LeaseName, Slot, Token, Value};
use crate::lease::keeper::event::{GivenBack, Transition};
use crate::lease::record::{Term, Terms};
use crate::lease::time::BootInstant;
use crate::lease::timing::Rounded;
use crate::wire::Variable;

/// Longer sentences are cut, in bytes: a guard's frame has to hold them all,
/// and labels and values of others are what somebody has put into their row.
const MESSAGE: usize = 1000;

/// Something that a hook is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What has happened.
    pub event: Happening,
    /// Why, for machines: a word, as in the log's `reason`.
    reason: &'static str,
    /// Why, for people.
    message: String,
    /// Whose lease it is about.
    holder: Holder,
    /// Until whoever is left of the tree is killed, or until a lease that could
    /// not be given back runs out.
    left: Option<Duration>,
    /// How much later than planned.
    late: Option<Duration>,
}

/// The events that there are hooks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The lease is ours.
    Acquired,
    /// A renewal has come through late.
    RenewedLate,
    /// None has come through in time.
    Losing,
    /// The lease is lost.
    Lost,
    /// It was given back.
    Released,
    /// Standing by: somebody else holds it now.
    HolderChanged,
}

impl Happening {
    /// `LEASEWRAP_EVENT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquired => "acquired",
            Self::RenewedLate => "renewed-late",
            Self::Losing => "losing",
            Self::Lost => "lost",
            Self::Released => "released",
            Self::HolderChanged => "holder-changed",
        }
    }
}

/// A holder, as a hook is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    slot: Slot,
    token: Token,
    id: Option<HolderId>,
    label: String,
    value: String,
}

/// Why a term has ended: for machines, and for people.
pub type Why = (&'static str, String);

/// What is known beside a transition.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// Our term, or the last one.
    pub term: Option<&'a Term>,
    /// Our own label and value.
    pub terms: &'a Terms,
    /// Why the term has ended.
    pub why: Option<&'a Why>,
    /// It was told of as lost.
    pub lost: bool,
    /// When it happened.
    pub now: BootInstant,
}

impl Notice {
    /// What a hook is told of it, if anything.
    pub fn of(transition: &Transition, beside: &Beside<'_>) -> Option<Self> {
        let ours = beside.term.map(|term| Holder {
            slot: term.slot,
            token: term.token,
            id: Some(term.holder),
            label: beside.terms.label.to_string(),
            value: beside.terms.value.to_string(),
        });
        let notice = |event, reason, message| Some(Self::new(event, reason, message, ours?));
        match transition {
            Transition::Acquired { basis, .. } => {
                notice(Happening::Acquired, basis.name(), basis.to_string())
            }
            Transition::Renewed {
                late: Some(late), ..
            } => {
                let message = format!("renewed {} late", Rounded(*late));
                let notice = notice(Happening::RenewedLate, "late", message)?;
                Some(Self {
                    late: Some(*late),
                    ..notice
                })
            }
            Transition::Losing { deadline } => {
                let left = deadline.saturating_since(beside.now);
                let message = format!(
                    "no renewal has come through; the worker is killed in {}",
                    Rounded(left)
                );
                let notice = notice(Happening::Losing, "deadline", message)?;
                Some(Self {
                    left: Some(left),
                    ..notice
                })
            }
            Transition::Lost { loss: Some(loss) } => {
                notice(Happening::Lost, loss.name(), loss.to_string())
            }
            Transition::Lost { loss: None } => {
                let message = "no renewal came through in time".to_owned();
                notice(Happening::Lost, "deadline", message)
            }
            Transition::Released { result, .. } => {
                let (reason, why) = match beside.why {
                    Some((reason, why)) => (*reason, why.as_str()),
                    None => ("worker", "the worker has ended"),
                };
                // Where the loss was told of, this is the same end again.
                let (reason, message, left) = match result {
                    GivenBack::Done => (reason, why.to_owned(), None),
                    GivenBack::NotOurs | GivenBack::RunsOut { .. } if beside.lost => return None,
                    GivenBack::NotOurs => {
                        let message = format!("{why}; it was no longer ours to give back");
                        ("not-ours", message, None)
                    }
                    GivenBack::RunsOut { left } => {
                        let message = format!(
                            "{why}; it could not be given back, and runs out in {}",
                            Rounded(*left)
                        );
                        ("runs-out", message, Some(*left))
                    }
                };
                let notice = notice(Happening::Released, reason, message)?;
                Some(Self { left, ..notice })
            }
            Transition::HolderChanged { record } => {
                let message = match record.label.as_str() {
                    "" => "a holder without a label has it now".to_owned(),
                    label => format!("\"{label}\" has it now"),
                };
                let holder = Holder {
                    slot: record.slot,
                    token: record.token,
                    id: record.holder,
                    label: at_most(Label::MAX_BYTES, record.label.clone()),
                    value: at_most(Value::MAX_BYTES, record.value.clone()),
                };
                let event = Happening::HolderChanged;
                Some(Self::new(event, "other-holder", message, holder))
            }
            Transition::Renewed { late: None, .. }
            | Transition::Waiting { .. }
            | Transition::CallFailed { .. }
            | Transition::IncarnationChanged { .. }
            | Transition::Stopping(_) => None,
        }
    }

    fn new(event: Happening, reason: &'static str, message: String, holder: Holder) -> Self {
        Self {
            event,
            reason,
            message: at_most(MESSAGE, message),
            holder,
            left: None,
            late: None,
        }
    }

    /// Its part of the hook's environment.
    pub fn variables(&self) -> Vec<Variable> {
        let holder = &self.holder;
        vec![
            Variable::text("LEASEWRAP_EVENT", self.event.name()),
            Variable::text("LEASEWRAP_REASON", self.reason),
            Variable::text("LEASEWRAP_MESSAGE", &self.message),
            Variable::text("LEASEWRAP_SLOT", holder.slot.to_string()),
            Variable::text("LEASEWRAP_TOKEN", holder.token.to_string()),
            match holder.id {
                Some(id) => Variable::text("LEASEWRAP_HOLDER", id.to_string()),
                None => Variable::absent("LEASEWRAP_HOLDER"),
            },
            Variable::text("LEASEWRAP_HOLDER_LABEL", &holder.label),
            Variable::text("LEASEWRAP_HOLDER_VALUE", &holder.value),
            // The worker's business.
            Variable::absent("LEASEWRAP_TTL_MS"),
        ]
    }

    /// The same as one line of JSON, for the hook's standard input.
    pub fn json(&self, name: &LeaseName) -> String {
        let holder = &self.holder;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut text = json!({
            "event": self.event.name(),
            "reason": self.reason,
            "message": self.message,
            "name": name.as_str(),
            "slot": holder.slot.0,
            "token": holder.token.0,
            "holder": holder.id.map(|id| id.to_string()),
            "label": holder.label,
            "value": holder.value,
            "left_ms": self.left.map(millis),
            "late_ms": self.late.map(millis),
        })
        .to_string();
        text.push('\n');
        text
    }
}

fn at_most(bytes: usize, mut text: String) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cleans_up_can_tell_a_lease_that_is_free_from_one_that_is_not() {
        let term = Term {
            slot: Slot(0),
            holder: HolderId(uuid::Uuid::from_u128(7)),
            token: Token(5),
        };
        let terms = Terms {
            ttl: Duration::from_secs(30),
            takeover_delay: Duration::ZERO,
            hold_at_least: Duration::ZERO,
            label: Label::new("h/1").expect("a label"),
            value: Value::new("").expect("a value"),
        };
        let left = Duration::from_secs(4);
        let why = ("signal", "SIGTERM came".to_owned());
        for (result, reason, left_ms) in [
            (GivenBack::Done, "signal", None),
            (GivenBack::NotOurs, "not-ours", None),
            (GivenBack::RunsOut { left }, "runs-out", Some(4_000)),
        ] {
            let slot = Slot(0);
            let mut beside = Beside {
                term: Some(&term),
                terms: &terms,
                why: Some(&why),
                lost: false,
                now: BootInstant::from_nanos(0),
            };
            let released = Transition::Released { slot, result };
            let notice = Notice::of(&released, &beside).expect("it is told");
            assert!(notice.message.starts_with("SIGTERM came"));
            let name = LeaseName::new("mailer").expect("a name");
            let json: serde_json::Value =
                serde_json::from_str(&notice.json(&name)).expect("one line of JSON");
            assert_eq!(
                (&json["reason"], json["left_ms"].as_u64()),
                (&reason.into(), left_ms)
            );
            // The loss was an event of its own.
            beside.lost = true;
            let again = Notice::of(&released, &beside).is_some();
            assert_eq!(again, result == GivenBack::Done);
        }
    }
}
