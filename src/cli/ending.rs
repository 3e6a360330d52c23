//! What a run remembers of itself, for its last line.

use std::time::Duration;

use super::args::run::RunOptions;
use crate::http::board::Board;
use crate::keeper::Audience;
use crate::lease::keeper::Keeper;
use crate::lease::keeper::event::{GivenBack, Outcome, StopCause, Transition};
use crate::lease::record::Term;
use crate::lease::time::BootInstant;
use crate::sys::clock;
use crate::telemetry::Telemetry;
use crate::telemetry::ending::Ending;
use crate::telemetry::live::Live;
use crate::telemetry::transition::{self, Containment, Context};

/// What has happened so far.
#[derive(Debug)]
pub struct Record {
    name: crate::lease::ids::LeaseName,
    /// Since the start, or since its last term ended.
    standing_since: BootInstant,
    /// How long it stood by before the term, once there is one.
    waited: Option<Duration>,
    rides_out: Duration,
    stop_signal: i32,
    containment: Containment,
    term: Option<Term>,
    acquired: Option<BootInstant>,
    /// What comes after it (hooks) is no part of the term.
    given_back: Option<BootInstant>,
    stop: Option<StopCause>,
    /// A lease that could not be given back runs out then.
    runs_out_at: Option<BootInstant>,
    /// A call of this term has failed, and none has succeeded since.
    unanswered: bool,
    /// When a worker that is told to stop, the lease being lost, is killed.
    kill_at: Option<BootInstant>,
    /// It was not gone by then.
    killed: bool,
}

impl Record {
    /// Nothing yet.
    pub fn new(options: &RunOptions) -> Self {
        Self {
            name: options.keep.name.clone(),
            standing_since: clock::now(),
            waited: None,
            rides_out: options.keep.timing.rides_out(),
            stop_signal: options.keep.stop_signal,
            containment: if options.pid_namespace {
                Containment::PidNamespace
            } else {
                Containment::Tree
            },
            term: None,
            acquired: None,
            given_back: None,
            stop: None,
            runs_out_at: None,
            unanswered: false,
            kill_at: None,
            killed: true,
        }
    }

    fn stepped(&mut self, keeper: &Keeper) {
        if keeper.phase().stands_by() {
            self.standing_since = keeper.since();
            self.waited = None;
        }
    }

    /// Says how it ended; the result is the exit code.
    pub fn end(&self, telemetry: &Telemetry, options: &RunOptions, outcome: &Outcome) -> u8 {
        let exit_code = options.exit_codes.of(outcome);
        let program = options
            .command
            .first()
            .map(|program| program.to_string_lossy())
            .unwrap_or_default();
        telemetry.end(&Ending {
            program: &program,
            exit_code,
            ..self.ending(outcome, clock::now())
        });
        exit_code
    }

    fn ending<'a>(&'a self, outcome: &'a Outcome, now: BootInstant) -> Ending<'a> {
        Ending {
            outcome,
            name: &self.name,
            program: "",
            exit_code: 0,
            stop: self.stop.as_ref(),
            stop_signal: self.stop_signal,
            waited: self
                .waited
                .unwrap_or_else(|| now.saturating_since(self.standing_since)),
            held: self
                .acquired
                .map(|at| self.given_back.unwrap_or(now).saturating_since(at)),
            runs_out_in: self
                .runs_out_at
                .map(|at| at.saturating_since(now))
                .filter(|left| !left.is_zero()),
            rides_out: self.rides_out,
            unanswered: self.unanswered,
            killed: self.killed,
            containment: self.containment,
        }
    }
}

/// Writes the log while the loop runs, and keeps the record and the board.
#[derive(Debug)]
pub struct Teller<'a> {
    record: &'a mut Record,
    board: Board,
    live: Live,
}

impl<'a> Teller<'a> {
    /// For one run.
    pub fn new(record: &'a mut Record, board: Board, live: Live) -> Self {
        Self {
            record,
            board,
            live,
        }
    }
}

impl Audience for Teller<'_> {
    fn told(&mut self, transition: &Transition, keeper: &Keeper, now: BootInstant) {
        match transition {
            Transition::Acquired { term, .. } => {
                self.record.term = Some(term.clone());
                self.record.acquired = Some(now);
                self.record.waited = Some(now.saturating_since(self.record.standing_since));
                self.record.given_back = None;
                self.record.stop = None;
                self.record.runs_out_at = None;
                self.record.unanswered = false;
                self.record.kill_at = None;
            }
            Transition::Renewed { .. } => self.record.unanswered = false,
            Transition::CallFailed { .. } => self.record.unanswered = true,
            Transition::Losing { deadline } => self.record.kill_at = Some(*deadline),
            Transition::Lost { loss } => {
                let ended_in_time = self.record.kill_at.is_some_and(|kill_at| now < kill_at);
                self.record.killed = loss.is_some() || !ended_in_time;
            }
            Transition::Stopping(cause) => self.record.stop = Some(cause.clone()),
            Transition::Released { result, .. } => {
                self.record.given_back = Some(now);
                self.record.runs_out_at = match result {
                    GivenBack::RunsOut { left } => Some(now + *left),
                    GivenBack::Done | GivenBack::NotOurs => None,
                };
            }
            Transition::Waiting { .. }
            | Transition::IncarnationChanged { .. }
            | Transition::HolderChanged { .. } => {}
        }
        self.board.told(transition, keeper, now);
        transition::log(
            transition,
            &Context {
                name: &self.record.name,
                term: keeper.term().or(self.record.term.as_ref()),
                now,
                rides_out: self.record.rides_out,
                killed: self.record.killed,
                containment: self.record.containment,
            },
        );
    }

    fn stepped(&mut self, keeper: &Keeper, now: BootInstant) {
        self.record.stepped(keeper);
        self.board.stepped(keeper, now);
        self.live.stepped(keeper, now);
    }

    fn words(&self, outcome: &Outcome, now: BootInstant) -> String {
        self.record.ending(outcome, now).text()
    }

    fn worker_status(&mut self, text: &str) {
        self.board.worker_status(text);
    }
}
