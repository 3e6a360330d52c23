//! Job control: is there a terminal, and who takes over when we stop?

use super::tree::descends_from;
use super::tree::stat::{self, Stat};

/// Whether this process has a controlling terminal. By /proc and not by
/// opening /dev/tty, which a small container may not have.
pub fn has_controlling_terminal() -> bool {
    stat::read_self().is_some_and(|me| me.terminal != 0)
}

/// Whether a shell above takes over when this process's group stops: some
/// process of the group, the worker's tree (below `guard`) left out, has a
/// parent in another group of the same session. Where none has (a session
/// leader, `docker run -it`), nobody would ever wake it: the kernel calls
/// such a group orphaned.
pub fn shell_takes_over(guard: i32) -> bool {
    let Some(me) = stat::read_self() else {
        return false;
    };
    // Nearly always the answer, without a look at everybody.
    if parent_is_a_shell(&me) {
        return true;
    }
    stat::all()
        .filter(|other| other.group == me.group && other.session == me.session)
        .filter(|other| descends_from(other.pid, guard) != Some(true))
        .any(|other| parent_is_a_shell(&other))
}

fn parent_is_a_shell(process: &Stat) -> bool {
    stat::read(process.parent)
        .is_some_and(|parent| parent.session == process.session && parent.group != process.group)
}

/// The process group of `pid`.
pub fn group(pid: i32) -> Option<i32> {
    stat::read(pid).map(|found| found.group)
}
