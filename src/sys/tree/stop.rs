//! A signal once to each process of the tree.

use std::collections::HashSet;

use super::children::Lister;
use super::stat::{self, Stat};
use super::{Member, Signalled, is_guard, signal_member};
use crate::lease::time::BootInstant;
use crate::sys::{clock, process};

/// The most processes that are named.
const NAMED: usize = 16;

/// Whom a signal has reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// How many.
    pub count: usize,
    /// `pid name` of the first few.
    pub names: Vec<String>,
}

/// Sends `signal`, followed by CONT, once to every descendant of this
/// process, parents first.
///
/// A process's children are read right after it was signalled: whoever is
/// there then was started before the signal could take effect, and gets it;
/// what a handler starts (a clean-up command) is not there yet, and gets
/// none. Whoever ends by the signal hands its children to this process, the
/// subreaper; so this process's own children are read again, at once, until
/// none is new.
///
/// A tree that grows for ever is walked until `until`, when SIGKILL is due.
///
/// In a PID namespace of their own, orphans are handed to its `init` instead,
/// which is a child of this process and is left alone itself.
pub fn stop_tree(signal: i32, until: BootInstant, init: Option<i32>) -> Stopped {
    if !process::has_child() {
        return Stopped::default();
    }
    let _haste = process::Haste::make();
    let mut walk = Walk {
        lister: Lister::new(),
        // The init counts as seen: so it gets nothing, and its children are
        // of the tree.
        seen: init.into_iter().collect(),
        signal,
        until,
        stopped: Stopped::default(),
    };
    let mut children = Vec::new();
    loop {
        walk.lister.refresh();
        children.clear();
        walk.lister.children_of_self(&mut children);
        let own = children.len();
        if let Some(init) = init {
            walk.lister.children(init, 1, &mut children);
        }
        let seen_before = walk.seen.len();
        for (place, pid) in children.iter().enumerate() {
            walk.visit(Member {
                pid: *pid,
                own: place < own,
            });
        }
        if walk.seen.len() == seen_before || walk.is_late() {
            return walk.stopped;
        }
    }
}

struct Walk {
    lister: Lister,
    seen: HashSet<i32>,
    signal: i32,
    until: BootInstant,
    stopped: Stopped,
}

impl Walk {
    fn is_late(&self) -> bool {
        clock::now() >= self.until
    }

    /// Counts and names one that a signal was sent to.
    fn note(&mut self, pid: i32, found: Option<&Stat>) {
        // Nobody to stop.
        if found.is_some_and(Stat::has_ended) {
            return;
        }
        self.stopped.count += 1;
        if self.stopped.names.len() < NAMED {
            let name = found.map_or("?", |found| &found.name);
            self.stopped.names.push(format!("{pid} {name}"));
        }
    }

    /// One child and all below it. By a list of its own, not by
    /// recursion: a tree may be as deep as it likes.
    fn visit(&mut self, child: Member) {
        let mut waiting = vec![child];
        let mut children = Vec::new();
        while let Some(member) = waiting.pop() {
            if self.is_late() {
                return;
            }
            if !self.seen.insert(member.pid) {
                continue;
            }
            let found = stat::read(member.pid);
            // A child that was not reaped is there, whatever can be seen of it.
            if found.is_none() && !member.own {
                continue;
            }
            let threads = found.as_ref().map_or(u32::MAX, |found| found.threads);
            children.clear();
            // Before as well: it may end by the signal so fast that its
            // children could not be listed any more.
            self.lister.children(member.pid, threads, &mut children);
            let signals = [self.signal, libc::SIGCONT];
            let sent = signal_member(member, &signals, |pid| self.seen.contains(&pid));
            self.lister.children(member.pid, threads, &mut children);
            if sent == Signalled::Sent {
                self.note(member.pid, found.as_ref());
            }
            // A leasewrap in a leasewrap passes the signal on itself.
            if !member.own && found.is_some_and(|found| is_guard(&found)) {
                continue;
            }
            let below = children.iter().rev().map(|pid| Member {
                pid: *pid,
                own: false,
            });
            waiting.extend(below);
        }
    }
}
