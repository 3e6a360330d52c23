//! Whether the guard answers. A guard that was stopped says nothing: it is
//! woken, and killed when the time for that has come.

use std::time::Duration;

use crate::lease::time::BootInstant;

/// A guard that runs answers within a millisecond, on a busy host within
/// some; one that has not by now is told to go on (SIGCONT), again and again.
const WAKE_AFTER: Duration = Duration::from_millis(200);

/// How long a guard that was told to kill may say nothing. Its worker dies
/// with it, so being wrong about it costs an exit code, never safety.
const KILL_ANSWER_LIMIT: Duration = Duration::from_millis(100);

/// Somebody stops the guard again whenever it is woken: after so many times,
/// each soon after the one before, it cannot be relied on any more.
const STOPS_LIMIT: u32 = 10;

/// What counts as soon.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// What is to be done about a guard that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// SIGCONT.
    Wake,
    /// SIGKILL; the keeper finishes the tree itself.
    Kill,
}

/// What was asked and not answered yet.
#[derive(Debug)]
pub struct Pulse {
    wake_after: Duration,
    kill_answer_limit: Duration,
    /// Of the last frame that wants an answer.
    seq: u32,
    unanswered: Option<Unanswered>,
    kill: Option<Kill>,
    /// How often it was stopped of late, and when last.
    stops: (u32, BootInstant),
}

/// Some frame has no answer yet.
#[derive(Debug)]
struct Unanswered {
    wake_at: BootInstant,
    woken: bool,
}

/// The order to kill has no answer yet.
#[derive(Debug)]
struct Kill {
    /// Of that frame, or of one after it.
    seq: u32,
    at: BootInstant,
}

/// Whether an answer to frame `seq` is one to `asked`, too.
pub fn answers(seq: u32, asked: u32) -> bool {
    seq.wrapping_sub(asked) < u32::MAX / 2
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            wake_after: WAKE_AFTER,
            kill_answer_limit: KILL_ANSWER_LIMIT,
            seq: 0,
            unanswered: None,
            kill: None,
            stops: (0, BootInstant::ZERO),
        }
    }
}

impl Pulse {
    /// Of one that nothing is won with by haste (it can be neither woken nor
    /// killed, or ends by itself in time): `limit` is for every answer.
    pub fn patient(limit: Duration) -> Self {
        Self {
            wake_after: limit,
            kill_answer_limit: limit,
            ..Self::default()
        }
    }

    /// Something has stopped the guard.
    pub fn stopped(&mut self, now: BootInstant) -> Remedy {
        let (before, last) = self.stops;
        let soon = now < last + STOPS_WITHIN;
        let stops = if soon { before + 1 } else { 1 };
        self.stops = (stops, now);
        if stops > STOPS_LIMIT {
            Remedy::Kill
        } else {
            Remedy::Wake
        }
    }

    /// The number of the next frame that wants an answer.
    pub fn ask(&mut self, now: BootInstant) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.unanswered.get_or_insert(Unanswered {
            wake_at: now + self.wake_after,
            woken: false,
        });
        self.seq
    }

    /// An answer came. One to a later frame answers all before it (frames
    /// keep their order), and none after it.
    pub fn answered(&mut self, seq: u32) {
        if seq == self.seq {
            self.unanswered = None;
        }
        self.kill.take_if(|kill| answers(seq, kill.seq));
    }

    /// The guard was told to kill: from now on it must answer soon, and one
    /// that already did not is not waited for.
    pub fn told_to_kill(&mut self, now: BootInstant) {
        let stands_still = self
            .unanswered
            .as_ref()
            .is_some_and(|unanswered| unanswered.woken);
        let at = if stands_still {
            now
        } else {
            now + self.kill_answer_limit
        };
        self.kill = Some(Kill { seq: self.seq, at });
    }

    /// What is due at `now`; to be called again until it says nothing.
    pub fn due(&mut self, now: BootInstant) -> Option<Remedy> {
        let unanswered = self.unanswered.as_mut()?;
        if self.kill.take_if(|kill| now >= kill.at).is_some() {
            self.unanswered = None;
            return Some(Remedy::Kill);
        }
        if now >= unanswered.wake_at {
            unanswered.wake_at = now + self.wake_after;
            unanswered.woken = true;
            return Some(Remedy::Wake);
        }
        None
    }

    /// When [`Self::due`] has something to say.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        let wake_at = self.unanswered.as_ref()?.wake_at;
        let kill_at = self.kill.as_ref().map(|kill| kill.at);
        Some(kill_at.map_or(wake_at, |at| at.min(wake_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: BootInstant = BootInstant::from_nanos(1_000_000_000);

    #[test]
    fn an_answer_in_time_asks_for_nothing() {
        let mut pulse = Pulse::default();
        let seq = pulse.ask(START);
        pulse.answered(seq);
        assert_eq!(pulse.next_wakeup(), None);
        assert_eq!(pulse.due(START + Duration::from_secs(9)), None);
    }

    #[test]
    fn silence_is_woken_and_a_kill_is_not_waited_for() {
        let mut pulse = Pulse::default();
        pulse.ask(START);
        let later = START + WAKE_AFTER;
        assert_eq!(pulse.due(later), Some(Remedy::Wake));
        assert_eq!(pulse.due(later), None);
        let seq = pulse.ask(later);
        pulse.told_to_kill(later);
        assert_eq!(pulse.due(later), Some(Remedy::Kill));
        pulse.answered(seq);
        assert_eq!(pulse.next_wakeup(), None);
    }

    #[test]
    fn a_guard_that_has_answered_so_far_gets_a_moment_to_kill() {
        let mut pulse = Pulse::default();
        pulse.ask(START);
        pulse.told_to_kill(START);
        assert_eq!(pulse.due(START), None);
        assert_eq!(pulse.due(START + KILL_ANSWER_LIMIT), Some(Remedy::Kill));
    }

    #[test]
    fn a_later_answer_counts_for_the_frames_before_it() {
        let mut pulse = Pulse::default();
        pulse.ask(START);
        let second = pulse.ask(START);
        pulse.answered(second);
        assert_eq!(pulse.next_wakeup(), None);
    }

    #[test]
    fn a_guard_that_is_stopped_again_and_again_is_given_up() {
        let mut pulse = Pulse::default();
        let mut now = START;
        for _ in 0..STOPS_LIMIT {
            assert_eq!(pulse.stopped(now), Remedy::Wake);
            now = now + STOPS_WITHIN / 2;
        }
        assert_eq!(pulse.stopped(now), Remedy::Kill);
        assert_eq!(pulse.stopped(now + STOPS_WITHIN), Remedy::Wake);
    }

    #[test]
    fn an_answer_to_what_was_asked_before_is_none_to_the_order_to_kill() {
        let mut pulse = Pulse::default();
        let before = pulse.ask(START);
        let kill = pulse.ask(START);
        pulse.told_to_kill(START);
        pulse.answered(before);
        let limit = START + KILL_ANSWER_LIMIT;
        assert_eq!(pulse.next_wakeup(), Some(limit));
        // Its own answer is one, whatever is asked after it.
        pulse.ask(START);
        pulse.answered(kill);
        assert_eq!(pulse.due(limit), None);
        pulse.told_to_kill(limit);
        assert_eq!(pulse.due(limit + KILL_ANSWER_LIMIT), Some(Remedy::Kill));
    }

    #[test]
    fn an_old_answer_does_not_count() {
        let mut pulse = Pulse::default();
        let first = pulse.ask(START);
        pulse.answered(first);
        pulse.ask(START);
        pulse.answered(first);
        assert!(pulse.next_wakeup().is_some());
    }
}
