//! SIGKILL to the whole tree, until `wait` says that nothing is left.

use std::collections::{HashMap, HashSet};

use super::children::Lister;
use super::{Member, Signalled, signal_member, stat};

/// In one round, so often at most is the tree walked to find who is new.
const WALKS: u32 = 64;

/// So often at most is it walked when nobody is new but somebody has not come
/// to a stop yet.
const WALKS_FOR_A_STOP: u32 = 3;

/// The most processes that are reported as unkillable.
const REPORTED: usize = 16;

/// A killing that is under way. Freezing first, with SIGSTOP from the top
/// down until nothing new appears, costs each process little and takes it the
/// chance to fork; then nothing escapes SIGKILL. Killing at once would free
/// the children of whoever dies, faster than they are found when many fork.
///
/// Reaping is the caller's; it tells with [`Sweep::reaped`]. The caller calls
/// [`Sweep::round`] again when that says so, until `wait` says ECHILD.
#[derive(Debug)]
pub struct Sweep {
    lister: Lister,
    /// Left alone, with all below them (the keeper's hooks).
    except: HashSet<i32>,
    /// Got SIGKILL, not yet reaped by the caller.
    dying: HashSet<i32>,
    /// Everybody who ever got SIGKILL.
    killed: HashSet<i32>,
    /// EPERM at the last attempt.
    refused: HashSet<i32>,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// There may be more by now: again at once (after a look at what else is
    /// going on).
    Again,
    /// Everybody who is there has got SIGKILL: again when [`Sweep::reaped`]
    /// says so, or after a while.
    Wait,
}

/// One process of the tree, in one round.
#[derive(Debug)]
struct Found {
    own: bool,
    /// Seen to stand still, or to be beyond forking, before its children were
    /// read: it has no others.
    quiet: bool,
}

/// What one walk came to.
#[derive(Debug, Default)]
struct Walked {
    /// Somebody was new.
    new: bool,
    /// Somebody may still fork.
    moving: bool,
}

impl Sweep {
    /// Of every descendant of this process but `except` and what is below them.
    pub fn new(except: &[i32]) -> Self {
        Self {
            lister: Lister::new(),
            except: except.iter().copied().collect(),
            dying: HashSet::new(),
            killed: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    /// How many processes got SIGKILL so far.
    pub fn killed(&self) -> u32 {
        u32::try_from(self.killed.len()).unwrap_or(u32::MAX)
    }

    /// Freezes the tree and sends SIGKILL to all of it. Bounded, also while
    /// it grows.
    pub fn round(&mut self) -> Round {
        self.refused.clear();
        let mut tree = HashMap::new();
        let mut at_rest = false;
        let mut walks_for_a_stop = 0;
        for _ in 0..WALKS {
            let walked = self.walk(&mut tree);
            if walked.new {
                walks_for_a_stop = 0;
                continue;
            }
            at_rest = !walked.moving;
            walks_for_a_stop += 1;
            if at_rest || walks_for_a_stop == WALKS_FOR_A_STOP {
                break;
            }
        }
        let somebody_new = self.kill(&tree);
        // Who was not at rest may have forked on before SIGKILL came; a round
        // that finds nobody new shows that it has not.
        if at_rest || !somebody_new {
            Round::Wait
        } else {
            Round::Again
        }
    }

    /// Forgets who got SIGKILL, so that the next round sends it to everybody
    /// again. To be called once in a while: a pid that somebody else has
    /// reaped (a parent that we may not kill) may mean another by now.
    pub fn start_over(&mut self) {
        self.dying.clear();
    }

    /// To be called for each process that the caller has reaped; whether a
    /// new round is due: somebody unknown has ended, so there may be more of
    /// its kind, or everybody known has.
    #[must_use]
    pub fn reaped(&mut self, pid: i32) -> bool {
        let known = self.dying.remove(&pid);
        !known || self.dying.is_empty()
    }

    /// Who has not died of SIGKILL, `pid name (why)` each. Only after a while
    /// does this mean anything: dying takes its time.
    pub fn unkillable(&self) -> Vec<String> {
        let mut reports = Vec::new();
        for pid in self.refused.iter().chain(&self.dying) {
            let Some(found) = stat::read(*pid) else {
                continue;
            };
            let why = match found.state {
                // Waits to be reaped.
                b'Z' | b'X' if found.threads <= 1 => continue,
                _ if self.refused.contains(pid) => "no permission",
                b'D' => "uninterruptible sleep",
                _ => "does not end",
            };
            reports.push(format!("{pid} {} ({why})", found.name));
            if reports.len() == REPORTED {
                break;
            }
        }
        reports
    }

    /// For a keeper that leaves some children alone, so that `wait` cannot
    /// say ECHILD: whether none but those is there. Reap before.
    pub fn is_empty(&mut self) -> bool {
        // Twice: who ends while a list is read may hide a sibling.
        (0..2).all(|_| {
            let mut children = Vec::new();
            self.lister.refresh();
            self.lister.children_of_self(&mut children);
            children.iter().all(|pid| self.except.contains(pid))
        })
    }

    /// Walks the tree once and stops whoever is new.
    fn walk(&mut self, tree: &mut HashMap<i32, Found>) -> Walked {
        let mut walked = Walked::default();
        self.lister.refresh();
        let mut children = Vec::new();
        self.lister.children_of_self(&mut children);
        let mut waiting: Vec<Member> = children
            .drain(..)
            .filter(|pid| !self.except.contains(pid) && !tree.contains_key(pid))
            .map(|pid| Member { pid, own: true })
            .collect();
        // Whoever was found before and may have forked since.
        let known = tree.iter().filter(|(_, found)| !found.quiet);
        waiting.extend(known.map(|(pid, found)| Member {
            pid: *pid,
            own: found.own,
        }));
        let mut visited = HashSet::new();
        while let Some(member) = waiting.pop() {
            if visited.insert(member.pid) {
                self.visit(member, tree, &mut walked, &mut children);
                let below = children.drain(..).filter(|pid| !tree.contains_key(pid));
                waiting.extend(below.map(|pid| Member { pid, own: false }));
            }
        }
        walked
    }

    /// Stops one process if it is new, and lists its children.
    fn visit(
        &mut self,
        member: Member,
        tree: &mut HashMap<i32, Found>,
        walked: &mut Walked,
        children: &mut Vec<i32>,
    ) {
        let may_be_stopped = if tree.contains_key(&member.pid) || self.dying.contains(&member.pid) {
            !self.refused.contains(&member.pid)
        } else {
            match signal_member(member, &[libc::SIGSTOP], |pid| tree.contains_key(&pid)) {
                Signalled::Sent => true,
                Signalled::Refused => {
                    self.refused.insert(member.pid);
                    false
                }
                Signalled::Gone => return,
            }
        };
        let Some(found) = stat::read(member.pid) else {
            return;
        };
        let has_ended = matches!(found.state, b'Z' | b'X') && found.threads <= 1;
        let quiet = has_ended || matches!(found.state, b'T' | b't');
        let own = member.own;
        walked.new |= tree.insert(member.pid, Found { own, quiet }).is_none();
        walked.moving |= !quiet && may_be_stopped;
        // Who has ended has handed its children on.
        if !has_ended {
            self.lister.children(member.pid, found.threads, children);
        }
    }

    /// SIGKILL to whoever has not got it yet; whether there was anybody.
    fn kill(&mut self, tree: &HashMap<i32, Found>) -> bool {
        let mut somebody_new = false;
        for (pid, found) in tree {
            if self.dying.contains(pid) || self.refused.contains(pid) {
                continue;
            }
            let member = Member {
                pid: *pid,
                own: found.own,
            };
            match signal_member(member, &[libc::SIGKILL], |pid| tree.contains_key(&pid)) {
                Signalled::Sent => {
                    self.dying.insert(*pid);
                    self.killed.insert(*pid);
                    somebody_new = true;
                }
                Signalled::Refused => {
                    self.refused.insert(*pid);
                }
                Signalled::Gone => {}
            }
        }
        somebody_new
    }
}
