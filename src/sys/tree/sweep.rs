//! SIGKILL to the whole tree, until `wait` says that nothing is left.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::children::Lister;
use super::process::Haste;
use super::{Member, Signalled, children_of_self, process, signal_member, stat};
use crate::sys::clock;

/// In one round, so often at most is the tree walked to find who is new.
const WALKS: u32 = 64;

/// And for so long: then what was found is killed, and the caller gets a look
/// at what else is going on.
const ROUND_LIMIT: Duration = Duration::from_millis(100);

/// So often at most is it walked when nobody is new but somebody has not come
/// to a stop yet.
const WALKS_FOR_A_STOP: u32 = 3;

/// For so long at most are those counted whom the kernel ends.
const COUNT_LIMIT: Duration = Duration::from_millis(5);

/// The most processes that are reported as unkillable.
const REPORTED: usize = 16;

/// A killing that is under way. Freezing first, with SIGSTOP from the top
/// down until nothing new appears, costs each process little and takes it the
/// chance to fork; then nothing escapes SIGKILL. Killing at once would free
/// the children of whoever dies, faster than they are found when many fork.
///
/// Who appears only after the first walk was forked by somebody on the move,
/// and is on the move itself (a chain of forks): it gets SIGKILL on sight.
/// The kernel gives up a fork for SIGKILL to its very end, for SIGSTOP only
/// at its beginning (`copy_process` in kernel/fork.c), and most of the life of
/// a chain's link is its fork.
///
/// The guard calls [`Sweep::round`] when it is due, until `wait` says ECHILD;
/// a keeper, [`Sweep::step`], until that says [`Round::Empty`].
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
    /// Ends all of the tree when it is ended, by the kernel.
    init: Option<i32>,
    /// For [`Sweep::step`]: a round is due.
    due: bool,
    _haste: Haste,
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
    /// Nothing is left. Said by [`Sweep::step`] alone.
    Empty,
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
        Self::by(Lister::new(), except)
    }

    /// Of a tree in a PID namespace of its own, whose `init` is a child of this
    /// process that was not reaped: the kernel does it (fork loops included:
    /// nobody in there can fork any more), and `wait` says ECHILD when it has.
    pub fn of_namespace(init: i32) -> Self {
        Self {
            init: Some(init),
            ..Self::new(&[])
        }
    }

    /// With this way to find children, instead of the best there is.
    pub fn by(lister: Lister, except: &[i32]) -> Self {
        Self {
            lister,
            except: except.iter().copied().collect(),
            dying: HashSet::new(),
            killed: HashSet::new(),
            refused: HashSet::new(),
            init: None,
            due: true,
            _haste: Haste::make(),
        }
    }

    /// From now on `except` and what is below them are the exceptions: to be
    /// called before every step where they change. Each must be a child that
    /// was not reaped, or its number may mean somebody of the tree.
    pub fn leave_alone(&mut self, except: &[i32]) {
        self.except = except.iter().copied().collect();
    }

    /// How many processes got SIGKILL so far.
    pub fn killed(&self) -> u32 {
        u32::try_from(self.killed.len()).unwrap_or(u32::MAX)
    }

    /// Freezes the tree and sends SIGKILL to all of it. Bounded, also while
    /// it grows. `reap_one` reaps a child that has ended, if there is one.
    pub fn round(&mut self, reap_one: &mut dyn FnMut() -> Option<i32>) -> Round {
        self.refused.clear();
        if let Some(init) = self.init {
            self.kill_namespace(init);
            return Round::Wait;
        }
        let mut tree = HashMap::new();
        let mut at_rest = false;
        let mut walks_for_a_stop = 0;
        let mut signal = libc::SIGSTOP;
        let limit = clock::now() + ROUND_LIMIT;
        for _ in 0..WALKS {
            // The ended links of a chain would fill the lists.
            while let Some(pid) = reap_one() {
                tree.remove(&pid);
                self.dying.remove(&pid);
            }
            let walked = self.walk(&mut tree, signal);
            signal = libc::SIGKILL;
            if walked.new {
                walks_for_a_stop = 0;
            } else {
                at_rest = !walked.moving;
                walks_for_a_stop += 1;
                if at_rest || walks_for_a_stop == WALKS_FOR_A_STOP {
                    break;
                }
            }
            if clock::now() >= limit {
                break;
            }
            // A signal takes effect when its process gets to run: where many
            // wait for a processor, each needs but a moment to stop or end.
            process::yield_now();
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

    /// SIGKILL to the init, once.
    fn kill_namespace(&mut self, init: i32) {
        if self.killed.contains(&init) {
            return;
        }
        if process::signal(init, libc::SIGKILL).is_err() {
            self.refused.insert(init);
        }
        self.note_killed(init);
        // For the log alone, so only for a moment: who dies with it.
        let limit = clock::now() + COUNT_LIMIT;
        self.lister.refresh();
        let mut waiting = Vec::new();
        self.lister.children_of_self(&mut waiting);
        while let Some(pid) = waiting.pop() {
            if clock::now() >= limit {
                return;
            }
            if let Some(found) = stat::read(pid)
                && (pid == init || self.killed.insert(pid))
            {
                self.lister.children(pid, found.threads, &mut waiting);
            }
        }
    }

    /// Forgets who got SIGKILL, so that the next round sends it to everybody
    /// again. To be called once in a while: a pid that somebody else has
    /// reaped (a parent that we may not kill) may mean another by now.
    pub fn start_over(&mut self) {
        self.due = true;
        self.dying.clear();
        // The kernel has had its time: whoever is left is found, and named, as
        // in any tree.
        self.init = None;
    }

    /// For a keeper: reaps whoever has ended, and makes a round if one is due.
    /// To be called at every SIGCHLD, and after [`Sweep::start_over`].
    ///
    /// [`Round::Empty`] when `wait` says ECHILD; with exceptions, when none
    /// but those is left. End those before, and it is always `wait` that
    /// says it.
    pub fn step(&mut self) -> Round {
        let except = self.except.clone();
        while let Some(pid) = reap_one_but(&except) {
            self.due |= self.reaped(pid);
        }
        if self.due && !self.nothing_is_left() {
            let round = self.round(&mut || reap_one_but(&except));
            self.due = round == Round::Again;
        }
        if self.nothing_is_left() {
            Round::Empty
        } else if self.due {
            Round::Again
        } else {
            Round::Wait
        }
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
            let report = match stat::read(*pid) {
                // It may not be looked into; or it has ended.
                None if process::signal(*pid, 0).is_ok() => format!("{pid} (does not end)"),
                None => continue,
                // Waits to be reaped: by us, if nobody stands in between.
                Some(found) if found.has_ended() => match process::tracer(*pid) {
                    Some(tracer) => format!(
                        "{pid} {} (has ended, and process {tracer} traces it)",
                        found.name
                    ),
                    None => continue,
                },
                Some(found) => {
                    let why = match found.state {
                        _ if self.refused.contains(pid) => "no permission",
                        b'D' => "uninterruptible sleep",
                        _ => "does not end",
                    };
                    format!("{pid} {} ({why})", found.name)
                }
            };
            reports.push(report);
            if reports.len() == REPORTED {
                break;
            }
        }
        reports
    }

    fn nothing_is_left(&self) -> bool {
        if self.except.is_empty() {
            return !process::has_child();
        }
        // Twice: who ends while a list is read may hide a sibling.
        (0..2).all(|_| {
            let mut children = Vec::new();
            children_of_self(&mut children);
            children.iter().all(|pid| self.except.contains(pid))
        })
    }

    /// Walks the tree once and sends `signal` to whoever is new.
    fn walk(&mut self, tree: &mut HashMap<i32, Found>, signal: i32) -> Walked {
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
                self.visit(member, signal, tree, &mut walked, &mut children);
                let below = children.drain(..).filter(|pid| !tree.contains_key(pid));
                waiting.extend(below.map(|pid| Member { pid, own: false }));
            }
        }
        walked
    }

    /// Sends `signal` to one process if it is new, and lists its children.
    fn visit(
        &mut self,
        member: Member,
        signal: i32,
        tree: &mut HashMap<i32, Found>,
        walked: &mut Walked,
        children: &mut Vec<i32>,
    ) {
        let may_be_stopped = if tree.contains_key(&member.pid) || self.dying.contains(&member.pid) {
            !self.refused.contains(&member.pid)
        } else {
            match signal_member(member, &[signal], |pid| tree.contains_key(&pid)) {
                Signalled::Sent => {
                    if signal == libc::SIGKILL {
                        self.note_killed(member.pid);
                    }
                    true
                }
                Signalled::Refused => {
                    self.refused.insert(member.pid);
                    false
                }
                Signalled::Gone => return,
            }
        };
        let own = member.own;
        let Some(found) = stat::read(member.pid) else {
            // A child that was not reaped is there, whatever can be seen of it
            // (`hidepid`, no /proc any more, no descriptor left). What is
            // below it becomes ours when it dies.
            if own {
                let quiet = false;
                walked.new |= tree.insert(member.pid, Found { own, quiet }).is_none();
            }
            return;
        };
        let has_ended = found.has_ended();
        let quiet = has_ended || matches!(found.state, b'T' | b't');
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
                    self.note_killed(*pid);
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

    fn note_killed(&mut self, pid: i32) {
        self.dying.insert(pid);
        self.killed.insert(pid);
    }
}

/// Reaps a child that has ended; the exceptions are somebody else's to reap.
fn reap_one_but(except: &HashSet<i32>) -> Option<i32> {
    if except.is_empty() {
        return process::reap_any().map(|(pid, _)| pid);
    }
    let mut children = Vec::new();
    children_of_self(&mut children);
    children.retain(|pid| !except.contains(pid));
    children
        .into_iter()
        .find(|pid| process::reap(*pid).is_some())
}
