//! Why a lease may be taken, or may not: values, so that the log, the status
//! page and the last line say the same.

use std::fmt;
use std::time::Duration;

use crate::lease::ids::Slot;
use crate::lease::timing::Rounded;

/// What gives the right to take a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Nobody has ever held it.
    New,
    /// Its holder has given it back.
    Released,
    /// Its holder has not renewed it, for at least as long as this.
    Silent {
        /// How long it was watched.
        watched: Duration,
    },
    /// `--takeover clock`: the database's clock says that it has expired.
    Expired,
    /// Later writes may have been lost; nobody has renewed it for as long as this.
    Doubted {
        /// Why.
        doubt: Doubt,
        /// How long it was watched.
        watched: Duration,
    },
}

/// Why later writes of a row may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// The row carries another incarnation than the server's.
    OtherIncarnation,
    /// A row that was there is gone.
    Gone,
    /// A row shows an older state than before.
    GoneBack,
    /// There is no row, on a server that was promoted lately.
    YoungTimeline,
}

/// Why a lease is not ours (yet).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing has been tried yet.
    Starting,
    /// No guard is there that could start a worker.
    NoGuard,
    /// It is held.
    Held {
        /// By whom.
        label: String,
        /// By the database's clock, until then if it is not renewed.
        expires_in: Duration,
    },
    /// It was not given back, and is watched.
    Watching {
        /// For so long yet.
        left: Duration,
    },
    /// It is watched because later writes may have been lost.
    Doubting {
        /// Why.
        doubt: Doubt,
        /// For so long yet.
        left: Duration,
    },
    /// It is kept taken by its last holder's `--hold-at-least`.
    HeldBack {
        /// For so long yet.
        left: Duration,
        /// [`Record::clock_set_back`](crate::lease::record::Record::clock_set_back).
        clock_set_back: Option<Duration>,
    },
    /// A step-down has left it to another standby.
    Reserved {
        /// For whom.
        label: String,
        /// For so long yet.
        left: Duration,
    },
    /// A slot above our `--slots` is still taken.
    SlotAbove {
        /// Which.
        slot: Slot,
    },
    /// The lease is paused.
    Paused {
        /// The operator's words.
        reason: String,
    },
    /// Its row is locked, or another lock is not to be had.
    Locked {
        /// By whom, where somebody is seen.
        by: String,
    },
    /// Another one was faster.
    Overtaken,
    /// The precheck says that we are not fit to hold it.
    Unfit,
    /// The database does not answer, or says no.
    Unreachable {
        /// One line for people.
        message: String,
    },
    /// After a step-down others go first.
    SteppedDown {
        /// For so long yet.
        left: Duration,
    },
}

impl Basis {
    /// For machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Released => "released",
            Self::Silent { .. } => "silent",
            Self::Expired => "expired",
            Self::Doubted { .. } => "in-doubt",
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it was never held"),
            Self::Released => f.write_str("it was released"),
            Self::Silent { watched } => {
                write!(f, "its holder has not renewed it for {}", Rounded(*watched))
            }
            Self::Expired => f.write_str("it has expired by the database's clock"),
            Self::Doubted { doubt, watched } => {
                write!(
                    f,
                    "{doubt}, and nobody has renewed it for {}",
                    Rounded(*watched)
                )
            }
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherIncarnation => {
                "the database has failed over or was restored since its last renewal"
            }
            Self::Gone => "its row has vanished",
            Self::GoneBack => "its row shows an older state than before",
            Self::YoungTimeline => "it has no row, on a database that has failed over lately",
        })
    }
}

/// A label as a word of a sentence.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str("somebody without a label"),
            label => write!(f, "{label:?}"),
        }
    }
}

impl Reason {
    /// Whether somebody should know even where it is no failure that the
    /// lease is not ours.
    pub fn is_odd(&self) -> bool {
        matches!(
            self,
            Self::HeldBack {
                clock_set_back: Some(_),
                ..
            }
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("nothing is known of it yet"),
            Self::NoGuard => f.write_str("no guard is there (yet)"),
            Self::Held { label, expires_in } => {
                write!(
                    f,
                    "{} holds it, for {} more if it is not renewed",
                    Named(label),
                    Rounded(*expires_in)
                )
            }
            Self::Watching { left } => write!(
                f,
                "it was not released, and is free when nobody has renewed it for {} more",
                Rounded(*left)
            ),
            Self::Doubting { doubt, left } => {
                write!(
                    f,
                    "{doubt}: it is free when nobody has renewed it for {} more",
                    Rounded(*left)
                )
            }
            Self::HeldBack {
                left,
                clock_set_back,
            } => {
                let left = Rounded(*left);
                write!(f, "its last holder keeps it taken for {left} more")?;
                match clock_set_back {
                    Some(by) => write!(
                        f,
                        " (the database's clock was set back by {} or more, and until it has caught up, \
                         a --wait below --hold-at-least is in vain)",
                        Rounded(*by)
                    ),
                    None => Ok(()),
                }
            }
            Self::Reserved { label, left } => {
                write!(
                    f,
                    "a step-down leaves it to {label:?} for {} more",
                    Rounded(*left)
                )
            }
            Self::SlotAbove { slot } => write!(f, "slot {slot}, above --slots, is still taken"),
            Self::Paused { reason } if reason.is_empty() => f.write_str("it is paused"),
            Self::Paused { reason } => write!(f, "it is paused: {reason}"),
            Self::Locked { by } if by.is_empty() => f.write_str(
                "other acquisitions of it are under way, or one of leasewrap's tables is locked",
            ),
            Self::Locked { by } => write!(f, "its row is locked by {by}"),
            Self::Overtaken => f.write_str("another one was faster"),
            Self::Unfit => f.write_str("the precheck does not pass"),
            Self::Unreachable { message } => f.write_str(message),
            Self::SteppedDown { left } => {
                write!(
                    f,
                    "others go first after a step-down, for {} more",
                    Rounded(*left)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(4);

    #[test]
    fn a_basis_is_named_for_machines_and_told_to_people() {
        let doubt = Doubt::Gone;
        for (basis, name, words) in [
            (Basis::New, "new", "it was never held"),
            (Basis::Released, "released", "it was released"),
            (
                Basis::Silent { watched: LEFT },
                "silent",
                "its holder has not renewed it for 4s",
            ),
            (
                Basis::Expired,
                "expired",
                "it has expired by the database's clock",
            ),
            (
                Basis::Doubted {
                    doubt,
                    watched: LEFT,
                },
                "in-doubt",
                "its row has vanished, and nobody has renewed it for 4s",
            ),
        ] {
            assert_eq!((basis.name(), basis.to_string().as_str()), (name, words));
        }
    }

    #[test]
    fn a_reason_names_whom_and_what_it_waits_for() {
        let held = |label: &str| Reason::Held {
            label: label.to_owned(),
            expires_in: LEFT,
        };
        let paused = |reason: &str| Reason::Paused {
            reason: reason.to_owned(),
        };
        for (reason, words) in [
            (
                held("db-2"),
                "\"db-2\" holds it, for 4s more if it is not renewed",
            ),
            (
                held(""),
                "somebody without a label holds it, for 4s more if it is not renewed",
            ),
            (paused("a migration"), "it is paused: a migration"),
            (paused(""), "it is paused"),
            (
                Reason::HeldBack {
                    left: LEFT,
                    clock_set_back: None,
                },
                "its last holder keeps it taken for 4s more",
            ),
            (
                Reason::HeldBack {
                    left: LEFT,
                    clock_set_back: Some(LEFT * 900),
                },
                "its last holder keeps it taken for 4s more (the database's clock was set back by 1h or \
                 more, and until it has caught up, a --wait below --hold-at-least is in vain)",
            ),
            (
                Reason::SlotAbove { slot: Slot(3) },
                "slot 3, above --slots, is still taken",
            ),
        ] {
            assert_eq!(reason.to_string(), words);
        }
    }
}
