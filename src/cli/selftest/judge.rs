//! What the witnesses have written, and what it means: pure.

use serde::Serialize;

use crate::exit;
use crate::lease::time::BootInstant;

/// One sign of life of a worker or of a descendant of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Read right before it was written.
    pub at: BootInstant,
    /// The fencing token that it lives under.
    pub token: i64,
    /// Whose.
    pub pid: u32,
}

impl Stamp {
    /// Bytes of one.
    pub const BYTES: usize = 20;

    /// As it is written.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.at.as_nanos().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        bytes[16..].copy_from_slice(&self.pid.to_le_bytes());
        bytes
    }

    /// As it is read.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [at, token] = [0, 8].map(|from| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[from..from + 8]);
            field
        });
        let mut pid = [0; 4];
        pid.copy_from_slice(&bytes[16..]);
        Self {
            at: BootInstant::from_nanos(u64::from_le_bytes(at)),
            token: i64::from_le_bytes(token),
            pid: u32::from_le_bytes(pid),
        }
    }
}

/// From one worker to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HandOver {
    /// From a new worker's first sign of life to the last one of any worker
    /// before it, the worst of all changes: positive, and two have lived.
    pub overlap_ms: f64,
    /// How long nobody worked after the first worker.
    pub gap_ms: f64,
}

/// What the log says of the change from the first token in it. `None`: there
/// is no other.
pub fn hand_over(stamps: &[Stamp]) -> Option<HandOver> {
    let mut spans = std::collections::BTreeMap::new();
    for stamp in stamps {
        let (first, last) = spans.entry(stamp.token).or_insert((stamp.at, stamp.at));
        *first = stamp.at.min(*first);
        *last = stamp.at.max(*last);
    }
    let mut spans = spans.into_values();
    let (_, mut latest) = spans.next()?;
    let mut overlaps = Vec::new();
    for (first, last) in spans {
        overlaps.push(millis_between(first, latest));
        latest = latest.max(last);
    }
    let change = overlaps.first()?;
    Some(HandOver {
        gap_ms: (-change).max(0.0),
        overlap_ms: overlaps.iter().copied().fold(f64::MIN, f64::max),
    })
}

/// From `earlier` to `later`, negative when they are the other way round; to
/// the tenth, away from zero: what is positive stays so.
pub fn millis_between(earlier: BootInstant, later: BootInstant) -> f64 {
    let (length, sign) = if later >= earlier {
        (later.saturating_since(earlier), 1.0)
    } else {
        (earlier.saturating_since(later), -1.0)
    };
    let tenths = length.as_nanos().div_ceil(100_000);
    // Some five days are more than any self-test takes.
    let tenths = f64::from(u32::try_from(tenths).unwrap_or(u32::MAX));
    if tenths == 0.0 {
        0.0
    } else {
        sign * tenths / 10.0
    }
}

/// What came of one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The lease passed on, and never did two workers live.
    Holds,
    /// Two workers lived at the same time.
    Overlap,
    /// It was not seen to the end.
    Failed,
    /// There is no such fault here (said why).
    NotRun,
}

impl Verdict {
    /// Of a change of holder that was seen.
    pub fn of(seen: HandOver) -> Self {
        if seen.overlap_ms > 0.0 {
            Self::Overlap
        } else {
            Self::Holds
        }
    }
}

/// 0 only when no overlap was positive and every fault that there is here was
/// seen to its end.
pub fn exit_code(verdicts: impl IntoIterator<Item = Verdict>) -> u8 {
    let mut any = false;
    for verdict in verdicts {
        match verdict {
            Verdict::Overlap | Verdict::Failed => return NOT_PROVEN,
            Verdict::Holds => any = true,
            Verdict::NotRun => {}
        }
    }
    if any { 0 } else { exit::FAILED }
}

/// An overlap, or a fault that was not seen to its end.
pub const NOT_PROVEN: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A witness that stamps from one millisecond to another one.
    fn worker(token: i64, from_ms: u64, to_ms: u64) -> Vec<Stamp> {
        let stamp = |ms: u64| Stamp {
            at: BootInstant::from_nanos(ms * 1_000_000),
            token,
            pid: 7,
        };
        (from_ms..=to_ms).map(stamp).collect()
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            at: BootInstant::from_nanos(u64::MAX - 3),
            token: -5,
            pid: 70_000,
        };
        assert_eq!(Stamp::decode(&stamp.encode()), stamp);
    }

    #[test]
    fn a_gap_is_no_overlap() {
        let seen = hand_over(&[worker(8, 140, 200), worker(7, 1, 100)].concat());
        let wanted = HandOver {
            overlap_ms: -40.0,
            gap_ms: 40.0,
        };
        assert_eq!(seen, Some(wanted));
        assert_eq!(seen.map(Verdict::of), Some(Verdict::Holds));
        assert_eq!(hand_over(&worker(7, 1, 100)), None);
        assert_eq!(exit_code([Verdict::Holds, Verdict::NotRun]), 0);
    }

    #[test]
    fn two_workers_at_once_are_an_overlap_and_end_with_1() {
        let seen = hand_over(&[worker(7, 1, 100), worker(8, 90, 200)].concat());
        let wanted = HandOver {
            overlap_ms: 10.0,
            gap_ms: 0.0,
        };
        assert_eq!(seen, Some(wanted));
        let verdict = seen.map_or(Verdict::Failed, Verdict::of);
        assert_eq!(verdict, Verdict::Overlap);
        assert_eq!(exit_code([Verdict::Holds, verdict]), 1);
    }

    #[test]
    fn an_overlap_with_any_later_or_earlier_worker_counts() {
        // The first one is still there when the third begins.
        let log = [
            worker(7, 1, 100),
            worker(7, 300, 301),
            worker(8, 140, 200),
            worker(9, 250, 260),
        ];
        let seen = hand_over(&log.concat()).map(|seen| seen.overlap_ms);
        assert_eq!(seen, Some(161.0));
        // A hair's breadth is one too.
        let near = [
            worker(7, 1, 100),
            vec![Stamp {
                at: BootInstant::from_nanos(99_999_999),
                token: 8,
                pid: 1,
            }],
        ];
        let seen = hand_over(&near.concat()).map(Verdict::of);
        assert_eq!(seen, Some(Verdict::Overlap));
    }

    #[test]
    fn what_was_not_seen_to_its_end_proves_nothing() {
        assert_eq!(exit_code([Verdict::Holds, Verdict::Failed]), 1);
        assert_ne!(exit_code([Verdict::NotRun]), 0);
        assert_ne!(exit_code([]), 0);
    }
}
