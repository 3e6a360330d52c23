//! What the machine asks for, done.

use std::os::fd::AsFd;

use super::Running;
use crate::exit::{self, End};
use crate::lease::guard::{Action, Event, Keeper};
use crate::lease::time::BootInstant;
use crate::sys::namespace::Namespace;
use crate::sys::socket::{Channel, Sent};
use crate::sys::tree::{Sweep, stop_tree};
use crate::sys::worker::fork_worker;
use crate::sys::{inherited, process, release};
use crate::wire::attach::FromAttach;
use crate::wire::{FromGuard, Start, StopTo};

/// The most processes that are reported as unkillable in a guard's life: one
/// that may not be killed may still fork.
const REPORTED: usize = 64;

const NOTHING_TO_SAY: End = End {
    code: 0,
    last: None,
};

/// What an action came to.
pub(super) enum Performed {
    /// It is done.
    Done,
    /// It has a reply.
    Event(Event),
    /// The guard ends.
    End(End),
}

impl Running {
    pub(super) fn perform(&mut self, action: Action) -> Performed {
        match action {
            Action::Send(frame) => self.send(&frame),
            Action::Fork(start) => return Performed::Event(self.fork(&start)),
            Action::Go { deadline } => {
                if let Some(worker) = &mut self.worker {
                    worker.go(deadline);
                }
            }
            Action::SignalWorker(signal) => self.signal_worker(&[signal]),
            Action::WakeWorker => self.signal_worker(&[libc::SIGCONT]),
            Action::StopTree {
                signal,
                to: StopTo::Worker,
            } => self.signal_worker(&[signal, libc::SIGCONT]),
            Action::StopTree {
                signal,
                to: StopTo::Tree,
            } => {
                // Whom it reached is known to who asked for it.
                let _ = stop_tree(signal, self.kill_at(), self.init());
            }
            Action::StopLeftBehind { signal } => {
                let processes = stop_tree(signal, self.kill_at(), self.init()).names;
                if !processes.is_empty() {
                    self.send(&FromGuard::LeftBehind { processes });
                }
            }
            Action::KillTree => self.kill_tree(),
            Action::Release(keeper) => return Performed::End(self.release(keeper)),
            Action::Exit => return Performed::End(NOTHING_TO_SAY),
        }
        Performed::Done
    }

    /// When what is being done must give way to SIGKILL.
    fn kill_at(&self) -> BootInstant {
        match self.machine.next_wakeup() {
            Some(at) if !self.machine.is_killing() => at,
            _ => BootInstant::ZERO,
        }
    }

    /// The tree's own init, where it has one: neither stopped nor counted.
    fn init(&self) -> Option<i32> {
        self.namespace.as_ref().map(Namespace::init)
    }

    fn send(&mut self, frame: &FromGuard) {
        if !self.machine.has_lost_keeper() {
            self.outbox.send(&self.given.channel, frame);
        }
    }

    fn fork(&mut self, start: &Start) -> Event {
        self.name = Some(start.name.clone());
        let inherited = inherited::get();
        let forked = match &self.setup {
            Ok(setup) => fork_worker(setup, start, inherited, &self.given.kept),
            Err(error) => {
                let message = error.to_string();
                return Event::NotForked { message };
            }
        };
        match forked {
            Ok(mut worker) => {
                let pid = worker.pid;
                self.namespace = worker.namespace.take();
                self.worker = Some(worker);
                // Before it runs: a pipe must close when the worker closes
                // it, and one kill by group must not hit both of us.
                process::leave_process_group();
                inherited.let_go(&self.given.ours);
                Event::Forked { pid }
            }
            Err(error) => Event::NotForked {
                message: error.to_string(),
            },
        }
    }

    fn signal_worker(&self, signals: &[i32]) {
        let Some(worker) = &self.worker else {
            return;
        };
        for signal in signals {
            // EPERM when it has changed its user, EINVAL for a number that is
            // no signal's: neither changes what the guard does.
            let _ = process::signal(worker.pid, *signal);
        }
    }

    /// What ends the worker's work at once, in one call: all of a namespace
    /// dies with its init, and elsewhere a worker that stands still does
    /// nothing until SIGKILL comes.
    pub(super) fn strike(&self) {
        let first = match (self.init(), &self.worker) {
            (Some(init), _) => Some((init, libc::SIGKILL)),
            (None, Some(worker)) => Some((worker.pid, libc::SIGSTOP)),
            (None, None) => None,
        };
        if let Some((pid, signal)) = first {
            // What does not work here is done, or told of, by the killing.
            let _ = process::signal(pid, signal);
        }
    }

    /// SIGKILL to everybody, and again for those who have had it: a round is
    /// due, right after the events at hand.
    fn kill_tree(&mut self) {
        match &mut self.sweep {
            None => {
                self.sweep = Some(match self.init() {
                    Some(init) => Sweep::of_namespace(init),
                    None => Sweep::new(&[]),
                });
            }
            Some(sweep) => {
                let unkillable = sweep.unkillable();
                sweep.start_over();
                self.report_unkillable(unkillable);
            }
        }
        self.round_due = true;
    }

    fn report_unkillable(&mut self, processes: Vec<String>) {
        for process in processes {
            if !self.unkillable.contains(&process) && self.unkillable.len() < REPORTED {
                self.unkillable.push(process.clone());
                self.send(&FromGuard::Unkillable { process });
            }
        }
    }

    /// Becomes the releaser; returns only when that fails, or when there is
    /// nothing to release.
    fn release(&mut self, keeper: Keeper) -> End {
        if let Some(serve) = &self.given.serve {
            return self.tell_serve(serve, keeper);
        }
        let Some(file) = &self.given.release else {
            return NOTHING_TO_SAY;
        };
        let handle = self.given.keeper.as_ref().map(AsFd::as_fd);
        let error = release::execute(file, keeper, handle, self.killed);
        let message = format!("the guard cannot {error}; the lease runs out by itself");
        super::failed(self.json_log, self.name.clone(), message)
    }

    /// In place of `attach`: what is left of this process has nothing to give
    /// back, but the word that lets `serve` do so.
    fn tell_serve(&self, serve: &Channel, keeper: Keeper) -> End {
        let empty = FromAttach::Guard(FromGuard::Empty {
            killed: self.killed,
        });
        let told = match serve.send(&empty.encode()) {
            Sent::Done => "serve gives the lease back",
            Sent::Full | Sent::Closed => "serve cannot be told, so the lease runs out by itself",
        };
        if let Some(handle) = &self.given.keeper {
            release::see_to_keeper(keeper, handle.as_fd());
        }
        let message = format!(
            "attach {keeper}, so whatever ran was killed ({} processes); {told}; \
             look for who killed or stopped it (the kernel log, if memory ran out)",
            self.killed
        );
        let name = self.name.clone();
        End::without_keeper(exit::LOST, self.json_log, name, self.killed, message)
    }
}
