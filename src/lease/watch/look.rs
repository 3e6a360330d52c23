//! One look at one row: whether it may be taken.

use std::time::Duration;

use super::{Basis, Contender, Reason, Status, Takeover};
use crate::lease::record::Record;
use crate::lease::time::BootInstant;
use crate::lease::timing::{long_watch, watch};

/// The instants that count when a row is judged.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Since when the row has stood still.
    pub(super) since: BootInstant,
    /// When the reply that shows it was received.
    pub(super) seen_at: BootInstant,
    /// Now.
    pub(super) at: BootInstant,
}

impl Look {
    pub(super) fn reached(self, instant: BootInstant) -> Result<(), BootInstant> {
        if self.at >= instant {
            Ok(())
        } else {
            Err(instant)
        }
    }

    /// Whether the row has stood still for long enough; else when to look again.
    pub(super) fn ripe(
        self,
        record: &Record,
        ttl: Duration,
        takeover_delay: Duration,
    ) -> Result<(), BootInstant> {
        let once = self.since + watch(ttl, takeover_delay);
        if record.expired {
            return self.reached(once);
        }
        // It takes another look to know that the database's clock agrees. If
        // that clock was stepped back, it would say no for hours.
        let twice = self.since + long_watch(ttl, takeover_delay);
        let look_again = once.max(self.seen_at + record.expires_in).min(twice);
        self.reached(twice).map_err(|_| look_again)
    }

    /// A row that was given back, without a doubt or watched for long enough.
    pub(super) fn released(
        self,
        record: &Record,
        contender: &Contender<'_>,
        basis: Basis,
    ) -> Status {
        // If the database's clock was stepped back, it would say for hours what
        // is over by ours. What is kept back was, when it was first seen.
        let held_back = (self.seen_at + record.held_back()).min(self.since + record.hold_at_least);
        if self.at < held_back {
            let left = held_back.saturating_since(self.at);
            let clock_set_back = record.clock_set_back();
            let reason = Reason::HeldBack {
                left,
                clock_set_back,
            };
            return Status::Taken(reason, Some(held_back));
        }
        match &record.reserved {
            Some(to) if to.label != contender.label => {
                let until = (self.seen_at + to.remaining).min(self.since + record.ttl);
                if self.at >= until {
                    return Status::Free(basis);
                }
                let (label, left) = (to.label.clone(), until.saturating_since(self.at));
                Status::Taken(Reason::Reserved { label, left }, Some(until))
            }
            Some(_) | None => Status::Free(basis),
        }
    }

    /// A row that was not given back.
    pub(super) fn unreleased(
        self,
        record: &Record,
        expired_since: Option<BootInstant>,
        takeover: Takeover,
    ) -> Status {
        let delay = record.takeover_delay;
        let (ripe, basis) = match (takeover, expired_since) {
            (Takeover::Observed, _) => {
                let watched = self.at.saturating_since(self.since);
                (
                    self.ripe(record, record.ttl, delay),
                    Basis::Silent { watched },
                )
            }
            (Takeover::Clock, Some(expired_since)) => {
                (self.reached(expired_since + delay), Basis::Expired)
            }
            (Takeover::Clock, None) => (Err(self.seen_at + record.expires_in), Basis::Expired),
        };
        let Err(until) = ripe else {
            return Status::Free(basis);
        };
        let reason = if record.expired {
            Reason::Watching {
                left: until.saturating_since(self.at),
            }
        } else {
            let expires_in = (self.seen_at + record.expires_in).saturating_since(self.at);
            Reason::Held {
                label: record.label.clone(),
                expires_in,
            }
        };
        Status::Taken(reason, Some(until))
    }
}
