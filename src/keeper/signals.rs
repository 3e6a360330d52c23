//! What a signal that reaches leasewrap means, by where it comes from and by
//! what leasewrap is doing (contract, sections 3 and 6).

use signal_hook::consts::{
    SIGABRT, SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGQUIT,
    SIGSEGV, SIGSTOP, SIGSYS, SIGTERM, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU,
};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use signal_hook_tokio::SignalsInfo;

use crate::sys::{process, signals, terminal};

/// Those that end leasewrap as they end any program (the guard does the
/// rest), those that cannot be caught, and PIPE, which a write to a closed
/// stderr raises in leasewrap itself.
const LEFT_ALONE: [i32; 10] = [
    SIGKILL, SIGSTOP, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, SIGPIPE,
];

/// Real-time signals that the C library keeps for its threads (`signal(7)`).
const THREADS: [i32; 2] = [32, 33];

/// The largest signal number (`signal(7)`).
const LAST: i32 = 64;

/// Catches every signal that leasewrap reacts to. `ignored` says which of
/// HUP, INT and QUIT were ignored when it started (`nohup`, a background job
/// of a script): they stay so.
///
/// # Errors
/// When a handler cannot be installed.
pub fn catch(ignored: impl Fn(i32) -> bool) -> std::io::Result<SignalsInfo<WithOrigin>> {
    let stays_ignored =
        |signal: i32| [SIGHUP, SIGINT, SIGQUIT].contains(&signal) && ignored(signal);
    let caught = (1..=LAST).filter(|signal| {
        !LEFT_ALONE.contains(signal) && !THREADS.contains(signal) && !stays_ignored(*signal)
    });
    SignalsInfo::with_exfiltrator(caught, WithOrigin::default())
}

/// What leasewrap is doing, as far as signals go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// No worker, and none is being started: an acquisition may be under way.
    StandingBy,
    /// The lease is ours, but the worker is not known to run yet, or has
    /// ended: what is typed now reaches leasewrap alone.
    WithoutWorker,
    /// The worker runs.
    Running,
    /// A stop was asked for.
    Stopping,
}

/// Where the worker stands as seen from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// The worker is in leasewrap's process group: the terminal's own signals
    /// reach it from the kernel.
    pub shared: bool,
    /// leasewrap leads the session: a hang-up reaches it alone.
    pub session_leader: bool,
}

impl Terminal {
    /// As it is now.
    pub fn of_this_process() -> Self {
        Self {
            shared: terminal::has_controlling_terminal(),
            session_leader: process::leads_session(),
        }
    }
}

/// What is to be done about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// An orderly stop, or the end of standing by.
    Stop(i32),
    /// A stop was asked for already: cut the wait short.
    HurryUp,
    /// For the worker.
    PassOn(i32),
    /// A child has changed its state.
    Child,
    /// leasewrap itself stops, as any program does at a typed Ctrl-Z.
    StopSelf(i32),
    /// Nothing.
    Ignore,
}

/// Whether the terminal's driver has made the signal (`SI_KERNEL`,
/// `sigaction(2)`), and not a process.
pub fn typed(origin: &Origin) -> bool {
    matches!(origin.cause, Cause::Kernel)
}

/// Whether leasewrap itself has run into a limit (`setrlimit(2)`): the call
/// fails, and what that means is known where it was made. The worker's own
/// limits are its own; it must not die of these.
pub fn is_own_limit(origin: &Origin) -> bool {
    let me = std::process::id().cast_signed();
    let from_here = origin.process.as_ref().is_none_or(|from| from.pid == me);
    from_here && [libc::SIGXFSZ, libc::SIGXCPU].contains(&origin.signal)
}

/// Decides on one signal.
pub fn meaning(signal: i32, typed: bool, doing: Doing, terminal: Terminal) -> Meaning {
    match (signal, doing) {
        (SIGCHLD, _) => Meaning::Child,
        // The worker has it from the kernel and decides what it means.
        (SIGINT | SIGQUIT, Doing::Running) if typed && terminal.shared => Meaning::Ignore,
        (SIGINT | SIGTERM, Doing::Stopping) => Meaning::HurryUp,
        (SIGQUIT, Doing::Stopping) => Meaning::Ignore,
        (SIGINT | SIGQUIT | SIGTERM, _) => Meaning::Stop(signal),
        (SIGHUP, Doing::StandingBy) => Meaning::Stop(signal),
        (SIGHUP, _) if typed && terminal.shared && !terminal.session_leader => Meaning::Ignore,
        (SIGTSTP, Doing::StandingBy) if typed => Meaning::StopSelf(signal),
        (_, Doing::StandingBy) => Meaning::Ignore,
        // TSTP, TTIN, TTOU, WINCH, CONT: the terminal has sent them to the
        // whole group, the worker included; leasewrap follows the worker.
        (SIGTSTP | SIGTTIN | SIGTTOU | SIGCONT | libc::SIGWINCH, _) if typed && terminal.shared => {
            Meaning::Ignore
        }
        (signal, Doing::WithoutWorker | Doing::Running | Doing::Stopping) => {
            Meaning::PassOn(signal)
        }
    }
}

/// A signal has stopped the worker, whose guard is `guard`. leasewrap follows
/// it where a shell takes over. Whether the worker is to be woken: then, or
/// where nobody else would.
pub fn follow(signal: i32, terminal: Terminal, guard: Option<i32>) -> bool {
    let (SIGTSTP | SIGTTIN | SIGTTOU, true, Some(guard)) = (signal, terminal.shared, guard) else {
        return false;
    };
    if terminal::shell_takes_over(guard) {
        signals::stop_self(signal);
    }
    true
}

/// Decides on one signal that reaches `serve`, whose worker is in another
/// container and has another terminal: nothing is passed on.
pub fn meaning_to_serve(signal: i32, typed: bool, doing: Doing) -> Meaning {
    match (signal, doing) {
        (SIGCHLD, _) => Meaning::Child,
        (SIGINT | SIGTERM, Doing::Stopping) => Meaning::HurryUp,
        (SIGHUP | SIGQUIT, Doing::Stopping) => Meaning::Ignore,
        (SIGHUP | SIGINT | SIGQUIT | SIGTERM, _) => Meaning::Stop(signal),
        (SIGTSTP, Doing::StandingBy) if typed => Meaning::StopSelf(signal),
        (_, Doing::StandingBy | Doing::WithoutWorker | Doing::Running | Doing::Stopping) => {
            Meaning::Ignore
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const ON_TERMINAL: Terminal = Terminal {
        shared: true,
        session_leader: false,
    };
    const LEADER: Terminal = Terminal {
        shared: true,
        session_leader: true,
    };
    const DETACHED: Terminal = Terminal {
        shared: false,
        session_leader: false,
    };

    fn typed(signal: i32, doing: Doing, terminal: Terminal) -> Meaning {
        meaning(signal, true, doing, terminal)
    }

    fn sent(signal: i32, doing: Doing, terminal: Terminal) -> Meaning {
        meaning(signal, false, doing, terminal)
    }

    #[test]
    fn a_typed_ctrl_c_is_the_workers_while_it_runs() {
        assert_eq!(typed(SIGINT, Doing::Running, ON_TERMINAL), Meaning::Ignore);
        assert_eq!(
            sent(SIGINT, Doing::Running, ON_TERMINAL),
            Meaning::Stop(SIGINT)
        );
        assert_eq!(
            typed(SIGINT, Doing::Stopping, ON_TERMINAL),
            Meaning::HurryUp
        );
        for nobody_else in [Doing::StandingBy, Doing::WithoutWorker] {
            assert_eq!(
                typed(SIGINT, nobody_else, ON_TERMINAL),
                Meaning::Stop(SIGINT)
            );
        }
    }

    #[test]
    fn a_hang_up_reaches_the_session_leader_alone() {
        assert_eq!(
            typed(SIGHUP, Doing::Running, LEADER),
            Meaning::PassOn(SIGHUP)
        );
        assert_eq!(typed(SIGHUP, Doing::Running, ON_TERMINAL), Meaning::Ignore);
        assert_eq!(
            sent(SIGHUP, Doing::Running, DETACHED),
            Meaning::PassOn(SIGHUP)
        );
        assert_eq!(
            sent(SIGHUP, Doing::StandingBy, DETACHED),
            Meaning::Stop(SIGHUP)
        );
    }

    #[test]
    fn a_hang_up_during_the_start_is_the_workers() {
        // It may run already, and the guard's word be on its way.
        assert_eq!(
            sent(SIGHUP, Doing::WithoutWorker, DETACHED),
            Meaning::PassOn(SIGHUP)
        );
    }

    #[test]
    fn ctrl_z_stops_a_standby_and_is_the_workers_otherwise() {
        assert_eq!(
            typed(SIGTSTP, Doing::StandingBy, ON_TERMINAL),
            Meaning::StopSelf(SIGTSTP)
        );
        assert_eq!(typed(SIGTSTP, Doing::Running, ON_TERMINAL), Meaning::Ignore);
        assert_eq!(
            sent(SIGTSTP, Doing::Running, ON_TERMINAL),
            Meaning::PassOn(SIGTSTP)
        );
    }

    #[test]
    fn serve_stops_its_worker_and_passes_nothing_on() {
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            for typed in [true, false] {
                let meaning = meaning_to_serve(signal, typed, Doing::Running);
                assert_eq!(meaning, Meaning::Stop(signal));
            }
        }
        for signal in [libc::SIGUSR1, SIGTSTP, SIGCONT, libc::SIGWINCH] {
            let meaning = meaning_to_serve(signal, true, Doing::Running);
            assert_eq!(meaning, Meaning::Ignore);
        }
        assert_eq!(
            meaning_to_serve(SIGTERM, false, Doing::Stopping),
            Meaning::HurryUp
        );
    }

    #[test]
    fn all_others_are_passed_on_or_dropped() {
        for signal in [libc::SIGUSR1, libc::SIGALRM, 34, 64] {
            assert_eq!(
                sent(signal, Doing::Running, DETACHED),
                Meaning::PassOn(signal)
            );
            assert_eq!(sent(signal, Doing::StandingBy, DETACHED), Meaning::Ignore);
        }
    }
}
