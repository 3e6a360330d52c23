//! What the workers of one lease witnessed, and what may never be in it:
//! two at once, a token again or a smaller one, nobody for long.

use std::collections::BTreeMap;
use std::fmt;

use crate::support::witness::{Stamp, ms_between};

/// What is wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Wrong {
    /// Workers of two tokens lived at once.
    Overlap {
        slot: usize,
        old: i64,
        new: i64,
        ms: f64,
    },
    /// A later worker had a smaller token.
    WentBack { slot: usize, before: i64, then: i64 },
    /// Two terms had the same token.
    Reused { token: i64, terms: [String; 2] },
    /// Nobody has worked since all was mended.
    Dead { slot: usize, for_ms: f64 },
}

impl fmt::Display for Wrong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap { slot, old, new, ms } => write!(
                out,
                "two workers lived in slot {slot}: the one with token {old} {ms:.1} ms beside the one with {new}"
            ),
            Self::WentBack { slot, before, then } => {
                write!(
                    out,
                    "the token of slot {slot} went back from {before} to {then}"
                )
            }
            Self::Reused { token, terms } => {
                write!(
                    out,
                    "token {token} was used twice: by {} and {}",
                    terms[0], terms[1]
                )
            }
            Self::Dead { slot, for_ms } => write!(
                out,
                "nobody has worked in slot {slot} for {for_ms:.0} ms since all was mended"
            ),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
}

/// The judge of one lease.
#[derive(Debug)]
pub struct Judge {
    /// The spans of each slot's tokens.
    slots: Vec<BTreeMap<i64, Span>>,
    /// Which slot and holder had a token.
    terms: BTreeMap<i64, String>,
    reused: Vec<Wrong>,
}

impl Judge {
    /// A judge of a lease with this many slots.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: vec![BTreeMap::new(); slots],
            terms: BTreeMap::new(),
            reused: Vec::new(),
        }
    }

    /// Signs of life in one slot.
    pub fn stamps(&mut self, slot: usize, stamps: &[Stamp]) {
        for stamp in stamps {
            let at = stamp.at_ns;
            let span = self.slots[slot].entry(stamp.token);
            let span = span.or_insert(Span {
                first: at,
                last: at,
            });
            // Whoever read the clock first need not have written first.
            span.first = span.first.min(at);
            span.last = span.last.max(at);
        }
    }

    /// A worker starts: `term` is its slot and the UUID of its holder.
    pub fn term(&mut self, token: i64, term: &str) {
        let known = self.terms.entry(token).or_insert_with(|| term.to_owned());
        if known != term {
            self.reused.push(Wrong::Reused {
                token,
                terms: [known.clone(), term.to_owned()],
            });
        }
    }

    /// How many terms there were.
    pub fn terms(&self) -> usize {
        self.slots.iter().map(BTreeMap::len).sum()
    }

    /// From each start of a worker to the last sign of those before, in ms:
    /// the overlap, negative where it is a gap.
    pub fn overlaps(&self) -> Vec<f64> {
        let slots = (0..self.slots.len()).flat_map(|slot| self.hand_overs(slot));
        slots.map(|(_, _, overlap)| overlap).collect()
    }

    /// The old token, the new one, and the overlap, in the order of time.
    fn hand_overs(&self, slot: usize) -> Vec<(i64, i64, f64)> {
        let mut spans: Vec<_> = self.slots[slot].iter().collect();
        spans.sort_by_key(|(_, span)| span.first);
        let Some(((token, span), later)) = spans.split_first() else {
            return Vec::new();
        };
        // The last of all that came before counts, not the one before alone.
        let mut last = (**token, span.last);
        let mut found = Vec::new();
        for (token, span) in later {
            found.push((last.0, **token, ms_between(span.first, last.1)));
            if span.last >= last.1 {
                last = (**token, span.last);
            }
        }
        found
    }

    /// All that is wrong so far.
    pub fn wrongs(&self) -> Vec<Wrong> {
        let mut found = self.reused.clone();
        for slot in 0..self.slots.len() {
            let mut highest = i64::MIN;
            let mut starts: Vec<_> = self.slots[slot].iter().collect();
            starts.sort_by_key(|(_, span)| span.first);
            for (&token, _) in starts {
                if token < highest {
                    let before = highest;
                    let then = token;
                    found.push(Wrong::WentBack { slot, before, then });
                }
                highest = highest.max(token);
            }
            let over = self.hand_overs(slot).into_iter();
            found.extend(
                over.filter(|(_, _, ms)| *ms > 0.0)
                    .map(|(old, new, ms)| Wrong::Overlap { slot, old, new, ms }),
            );
        }
        found
    }

    /// The slots in which nobody has worked in the last `recent_ms`, or
    /// nobody since `mended`: what is wrong once their time is over.
    pub fn dead(&self, mended: u64, now: u64, recent_ms: f64) -> Vec<Wrong> {
        let dead = |slot: &usize| {
            let last = self.slots[*slot].values().map(|span| span.last).max();
            last.is_none_or(|last| last <= mended || ms_between(last, now) > recent_ms)
        };
        let slots = (0..self.slots.len()).filter(dead);
        let for_ms = ms_between(mended, now);
        slots.map(|slot| Wrong::Dead { slot, for_ms }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that stamps every 2 ms.
    fn worker(token: i64, from_ms: u64, to_ms: u64) -> Vec<Stamp> {
        let times = (from_ms..=to_ms).step_by(2);
        let stamp = |ms| Stamp {
            at_ns: ms * 1_000_000,
            token,
            pid: 1,
            generation: 0,
        };
        times.map(stamp).collect()
    }

    fn seen(workers: &[(i64, u64, u64)]) -> Judge {
        let mut judge = Judge::new(1);
        for (token, from, to) in workers {
            judge.stamps(0, &worker(*token, *from, *to));
        }
        judge
    }

    #[test]
    fn one_after_the_other_is_right() {
        let judge = seen(&[(1, 0, 100), (2, 110, 200), (5, 202, 300)]);
        assert_eq!(judge.wrongs(), []);
        assert_eq!(judge.overlaps(), [-10.0, -2.0]);
        assert_eq!(judge.terms(), 3);
    }

    #[test]
    fn an_overlap_is_caught() {
        let judge = seen(&[(1, 0, 100), (2, 90, 200)]);
        let wrong = &judge.wrongs()[..];
        assert!(
            matches!(wrong, [Wrong::Overlap { old: 1, new: 2, ms, .. }] if *ms == 10.0),
            "{wrong:?}"
        );
        // The word that no second try excuses (.ci/run).
        assert!(wrong[0].to_string().contains("two workers lived"));
    }

    #[test]
    fn a_daemon_that_outlives_two_terms_is_caught_twice() {
        let judge = seen(&[(1, 0, 500), (2, 100, 200), (3, 300, 400)]);
        assert_eq!(judge.wrongs().len(), 2, "{:?}", judge.wrongs());
    }

    #[test]
    fn what_was_written_in_another_order_is_put_in_order() {
        let mut judge = seen(&[(2, 110, 200)]);
        judge.stamps(0, &worker(1, 0, 100));
        assert_eq!(judge.wrongs(), []);
    }

    #[test]
    fn slots_are_apart() {
        let mut judge = Judge::new(2);
        judge.stamps(0, &worker(1, 0, 100));
        judge.stamps(1, &worker(2, 50, 150));
        assert_eq!(judge.wrongs(), []);
    }

    #[test]
    fn a_token_that_goes_back_is_caught() {
        let wrong = seen(&[(5, 0, 100), (4, 110, 200)]).wrongs();
        let then = Wrong::WentBack {
            slot: 0,
            before: 5,
            then: 4,
        };
        assert_eq!(wrong, [then]);
    }

    #[test]
    fn a_token_of_two_terms_is_caught() {
        let mut judge = Judge::new(2);
        judge.term(7, "0 one");
        judge.term(8, "0 two");
        judge.term(7, "0 one");
        assert_eq!(judge.wrongs(), [], "twice the same");
        judge.term(7, "1 three");
        assert!(matches!(
            judge.wrongs()[..],
            [Wrong::Reused { token: 7, .. }]
        ));
    }

    #[test]
    fn a_dead_lease_is_caught() {
        let judge = seen(&[(1, 0, 100)]);
        let dead = |mended: u64, now: u64| {
            let ms = 1_000_000;
            !judge.dead(mended * ms, now * ms, 50.0).is_empty()
        };
        assert!(!dead(80, 120), "somebody has worked since");
        assert!(dead(120, 140), "nobody since it was mended");
        assert!(dead(80, 200), "nobody any more");
        assert!(!Judge::new(1).dead(0, 1, 50.0).is_empty(), "nobody ever");
    }
}
