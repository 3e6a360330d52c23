//! Whatever happens in whatever order, as long as the loop keeps its word:
//! one reply for each call, within its limit.

use std::time::Duration;

use proptest::prelude::*;

use super::desk::{
    Desk, config, grant, granted, held, incarnation, no_answer, observation, released, renewed,
    step_down, unknown,
};
use crate::lease::ids::{Revision, Slot, Token};
use crate::lease::keeper::event::{Command, Event, GuardEvent, Outcome, StopCause, Transition};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{
    Acquired, Fault, Freed, Grant, Loss, Observed, Refusal, Released, Renewed,
};
use crate::lease::time::BootInstant;
use crate::wire::{NotStarted, StopReason, WorkerEnd};

/// The tree as the guard would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    None,
    Ordered,
    Alive,
    /// The guard is dead.
    Orphaned,
}

struct Run {
    desk: Desk,
    call: Option<(Command, BootInstant)>,
    tree: Tree,
    guard_is_ready: bool,
    told_to_stop: bool,
    lost: bool,
    /// Nobody knows what has become of the tree: the lease must run out.
    forgone: bool,
    ended: Option<Outcome>,
}

impl Run {
    fn new(config: Config) -> Self {
        let desk = Desk::without_guard(config);
        let at = desk.at;
        let limit = Duration::from_secs(6);
        Self {
            desk,
            call: Some((Command::Observe { limit }, at)),
            tree: Tree::None,
            guard_is_ready: false,
            told_to_stop: false,
            lost: false,
            forgone: false,
            ended: None,
        }
    }

    /// One whose worker runs already.
    fn holding(config: Config) -> Self {
        let mut run = Self::new(config);
        run.guard_says(0);
        run.hears(Event::Observed(Observed::Seen(observation(vec![
            released(5, 9),
        ]))));
        run.hears(Event::Fit(true));
        run.answers(0);
        run.guard_says(255);
        assert_eq!(run.desk.keeper.phase(), Phase::Holding);
        run
    }

    fn any(config: Config, holding: bool) -> Self {
        if holding {
            Self::holding(config)
        } else {
            Self::new(config)
        }
    }

    fn hears(&mut self, event: Event) {
        let reply = matches!(
            event,
            Event::Observed(_)
                | Event::Initialised(_)
                | Event::Acquired { .. }
                | Event::Renewed { .. }
                | Event::Released(_)
        );
        if reply {
            self.call = None;
        }
        let unknown = matches!(
            event,
            Event::Renewed {
                reply: Renewed::Unknown(_),
                ..
            }
        );
        let deadline = self.desk.keeper.deadline();
        let told = self.desk.told.len();
        let commands = self.desk.hears(event);
        if unknown {
            let after = self.desk.keeper.deadline();
            assert!(
                after.is_none() || after == deadline,
                "an unknown answer moves a deadline"
            );
        }
        for told in &self.desk.told[told..] {
            self.lost |= matches!(told, Transition::Lost { .. });
            self.told_to_stop |=
                matches!(told, Transition::Losing { .. } | Transition::Lost { .. });
        }
        for command in commands {
            self.performs(command);
        }
        if self.desk.keeper.phase() == Phase::Standby {
            self.lost = false;
        }
    }

    fn performs(&mut self, command: Command) {
        assert_eq!(self.ended, None, "{command:?} after the end");
        match command {
            Command::Observe { limit }
            | Command::Init { limit }
            | Command::Acquire { limit, .. }
            | Command::Renew { limit, .. }
            | Command::Settle { limit, .. }
            | Command::Release { limit, .. } => {
                assert!(
                    self.call.is_none(),
                    "two calls: {:?} and {command:?}",
                    self.call
                );
                assert!(limit >= Duration::from_millis(1));
                if let Command::Release { .. } = command {
                    assert_eq!(self.tree, Tree::None, "released before the tree is empty");
                    assert!(!self.forgone, "released without anybody's word");
                }
                if let Command::Acquire { .. } = command {
                    self.forgone = false;
                }
                self.call = Some((command, self.desk.at));
            }
            Command::Spawn { deadline, .. } => {
                assert!(
                    deadline > self.desk.at,
                    "a worker is ordered at its deadline"
                );
                assert!(self.guard_is_ready && self.tree == Tree::None);
                self.tree = Tree::Ordered;
                (self.told_to_stop, self.lost) = (false, false);
            }
            Command::Extend { deadline } => {
                assert!(!self.told_to_stop, "an extension revives");
                assert!(deadline > self.desk.at);
            }
            Command::NewGuard => self.guard_is_ready = false,
            Command::End(outcome) => {
                assert_eq!(self.tree, Tree::None, "it ends before its tree");
                let shows = matches!(outcome, Outcome::Lost { .. } | Outcome::GuardDied);
                assert!(shows || !self.lost, "a loss is hidden by {outcome:?}");
                self.ended = Some(outcome);
            }
            Command::Precheck
            | Command::StopTree { .. }
            | Command::KillTree
            | Command::Dismiss(_)
            | Command::Tell(_) => {}
        }
    }

    /// One of the answers that the call under way may have.
    fn answers(&mut self, which: u8) {
        let Some((command, sent_at)) = self.call.clone() else {
            return;
        };
        let at = sent_at;
        let event = match command {
            Command::Observe { .. } => Event::Observed(observed(which)),
            Command::Init { .. } if which < 128 => Event::Initialised(Ok(())),
            Command::Init { .. } => Event::Initialised(Err(no_answer())),
            Command::Acquire { .. } => Event::Acquired {
                sent_at: at,
                reply: acquired(which),
            },
            Command::Renew { .. } | Command::Settle { .. } => Event::Renewed {
                sent_at: at,
                reply: renewal(which),
            },
            Command::Release { .. } => Event::Released(match which % 3 {
                0 => Released::Done,
                1 => Released::NotOurs,
                _ => Released::Unknown(no_answer()),
            }),
            other => panic!("{other:?} is no call"),
        };
        self.hears(event);
    }

    /// Something that a guard may say now.
    fn guard_says(&mut self, which: u8) {
        let event = match (self.tree, self.guard_is_ready) {
            (Tree::None, false) if self.desk.keeper.phase() != Phase::Stopping => {
                self.guard_is_ready = true;
                GuardEvent::Ready
            }
            (Tree::Ordered, _) if which < 50 => {
                self.tree = Tree::None;
                GuardEvent::NotStarted(NotStarted::Late)
            }
            (Tree::Ordered, _) => {
                self.tree = Tree::Alive;
                GuardEvent::Started { pid: 1 }
            }
            (Tree::Alive, _) => match which % 8 {
                0 | 1 => GuardEvent::WorkerEnded(WorkerEnd::Exited(which)),
                2 => {
                    self.told_to_stop = true;
                    GuardEvent::Stopping(StopReason::DeadlineNear)
                }
                3 => {
                    self.told_to_stop = true;
                    GuardEvent::Stopping(StopReason::DeadlineReached)
                }
                4 => {
                    self.forgone = self.desk.keeper.config().attached;
                    self.tree = if self.forgone {
                        Tree::None
                    } else {
                        Tree::Orphaned
                    };
                    self.guard_is_ready = false;
                    GuardEvent::Gone
                }
                _ => {
                    self.tree = Tree::None;
                    GuardEvent::Empty
                }
            },
            (Tree::Orphaned, _) => {
                self.tree = Tree::None;
                GuardEvent::Swept
            }
            (Tree::None, true) if which < 5 => {
                self.guard_is_ready = false;
                GuardEvent::Gone
            }
            (Tree::None, _) => return,
        };
        self.hears(Event::Guard(event));
    }

    fn passes(&mut self, millis: u64) {
        let mut to = self.desk.at + Duration::from_millis(millis);
        if let Some((command, sent_at)) = &self.call {
            let limit = match command {
                Command::Observe { limit }
                | Command::Init { limit }
                | Command::Acquire { limit, .. }
                | Command::Renew { limit, .. }
                | Command::Settle { limit, .. }
                | Command::Release { limit, .. } => *limit,
                _ => Duration::ZERO,
            };
            to = to.min(*sent_at + limit).max(self.desk.at);
        }
        // Late by up to all of it, as a loop may be.
        self.desk.at(to);
        self.hears(Event::Wake);
    }

    fn happens(&mut self, (what, which, millis): (u8, u8, u64)) {
        match what {
            0..30 => self.answers(which),
            30..60 => self.passes(millis),
            60..80 => self.guard_says(which),
            80..82 => self.hears(Event::Stop(StopCause::Signal(15))),
            82..84 => self.hears(Event::Stop(StopCause::StepDown)),
            84..86 => self.hears(Event::Stop(StopCause::Watchdog)),
            86..88 => self.hears(Event::HurryUp),
            88..90 => self.hears(Event::Fit(which > 50)),
            90..94 => self.hears(Event::Changed((which > 50).then_some(Freed {
                slot: Slot(0),
                token: Token(5),
                revision: Revision(i64::from(which % 8)),
            }))),
            _ => self.hears(Event::Checked(renewal(which))),
        }
    }
}

fn observed(which: u8) -> Observed {
    match which % 8 {
        0 => Observed::Seen(observation(vec![])),
        1..4 => Observed::Seen(observation(vec![released(5, i64::from(which))])),
        4 => Observed::Seen(observation(vec![held(5, i64::from(which))])),
        5 => {
            let mut promoted = observation(vec![released(5, 3)]);
            promoted.server.incarnation = incarnation(2);
            Observed::Seen(promoted)
        }
        6 if which > 200 => Observed::NoSchema,
        _ => Observed::Unknown(no_answer()),
    }
}

fn acquired(which: u8) -> Acquired {
    match which % 4 {
        0 | 1 => granted(6, 10),
        2 => Acquired::Refused(Refusal::Changed),
        _ => Acquired::Unknown(no_answer()),
    }
}

fn renewal(which: u8) -> Renewed {
    match which {
        0..120 => renewed(11),
        120..220 => Renewed::Unknown(no_answer()),
        220..230 => Renewed::Unknown(unknown(Fault::Final)),
        230..236 => step_down(6),
        236..240 => Renewed::Granted {
            grant: Grant {
                incarnation: incarnation(2),
                ..grant(6, 12)
            },
            request: None,
        },
        240..245 => Renewed::Lost(Loss::Missing),
        245..250 => Renewed::Lost(Loss::OtherToken(Token(9))),
        250.. => Renewed::Lost(Loss::Closed),
    }
}

fn any_config() -> impl Strategy<Value = Config> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(0_u64..60),
    )
        .prop_map(|(rejoin, precheck, attached, wait)| Config {
            rejoin,
            precheck,
            attached,
            wait: wait.map(Duration::from_secs),
            ..config()
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_invariants_hold(
        config in any_config(),
        holding: bool,
        steps in prop::collection::vec((0_u8..100, any::<u8>(), 0_u64..12_000), 1..120),
    ) {
        let mut run = Run::any(config, holding);
        for step in steps {
            run.happens(step);
            if run.ended.is_some() {
                break;
            }
        }
    }

    /// From wherever it is: told to stop, with a tree that can be killed, it
    /// ends within bounds even when the database never answers again.
    #[test]
    fn every_state_ends(
        config in any_config(),
        holding: bool,
        steps in prop::collection::vec((0_u8..100, any::<u8>(), 0_u64..12_000), 1..60),
    ) {
        let mut run = Run::any(config, holding);
        for step in steps {
            if run.ended.is_none() {
                run.happens(step);
            }
        }
        let began = run.desk.at;
        if run.ended.is_none() {
            run.hears(Event::Stop(StopCause::Signal(15)));
        }
        while run.ended.is_none() {
            prop_assert!(
                run.desk.at < began + Duration::from_secs(100),
                "{:?}", run.desk.keeper,
            );
            let kill = run.desk.keeper.phase() == Phase::Stopping;
            match run.tree {
                Tree::Orphaned | Tree::Alive | Tree::Ordered if kill => {
                    let emptied = match run.tree {
                        Tree::Orphaned => GuardEvent::Swept,
                        _ => GuardEvent::Empty,
                    };
                    run.tree = Tree::None;
                    run.hears(Event::Guard(emptied));
                }
                _ => {
                    run.passes(2_000);
                    let limit_is_over = run.call.is_some() && run.ended.is_none();
                    if limit_is_over {
                        // 7 is no answer, to whatever it is.
                        run.answers_with_nothing();
                    }
                }
            }
        }
    }
}

impl Run {
    fn answers_with_nothing(&mut self) {
        let Some((command, sent_at)) = self.call.clone() else {
            return;
        };
        let event = match command {
            Command::Observe { .. } => Event::Observed(Observed::Unknown(no_answer())),
            Command::Init { .. } => Event::Initialised(Err(no_answer())),
            Command::Acquire { .. } => Event::Acquired {
                sent_at,
                reply: Acquired::Unknown(no_answer()),
            },
            Command::Renew { .. } | Command::Settle { .. } => Event::Renewed {
                sent_at,
                reply: Renewed::Unknown(no_answer()),
            },
            _ => Event::Released(Released::Unknown(no_answer())),
        };
        self.hears(event);
    }
}
