//! A keeper without anything around it: a test says what happens, and sees
//! what is asked for.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::lease::ids::{HolderId, Incarnation, Label, Revision, Slot, Token, Value};
use crate::lease::keeper::event::{Command, Event, GuardEvent, Outcome, Transition};
use crate::lease::keeper::{Config, Keeper, Now, Takeover};
use crate::lease::record::{
    Acquire, Acquired, Fault, Grant, Observation, Observed, Record, Released, Renewed, Request,
    RequestKind, Server, Terms, Unknown,
};
use crate::lease::time::BootInstant;
use crate::lease::timing::{Chance, Timing, TimingOptions};
use crate::wire::WorkerEnd;

/// A ttl of 30 s without jitter: renewals every 6 s, retries after 2 s, the
/// stop 21 s and the kill 27 s after a renewal was sent.
pub fn config() -> Config {
    let timing = TimingOptions {
        jitter: Some(0.0),
        ..TimingOptions::default()
    };
    let timing = Timing::new(timing).expect("times that fit");
    Config {
        terms: Terms {
            ttl: timing.ttl(),
            takeover_delay: Duration::ZERO,
            hold_at_least: Duration::ZERO,
            label: Label::new("us").expect("a label"),
            value: Value::new("").expect("a value"),
        },
        timing,
        slots: 1,
        takeover: Takeover::Observed,
        wait: None,
        rejoin: false,
        precheck: false,
        attached: false,
    }
}

pub const fn millis(at: u64) -> BootInstant {
    BootInstant::from_nanos((1_000_000 + at) * 1_000_000)
}

pub const fn second(at: u64) -> BootInstant {
    millis(at * 1000)
}

#[derive(Clone)]
pub struct Desk {
    pub keeper: Keeper,
    pub at: BootInstant,
    pub told: Vec<Transition>,
    drawn: u128,
    /// Steps since time has gone on.
    standing: u32,
}

impl Desk {
    /// A keeper that has just started, and is polling. Its guard is ready.
    pub fn new(config: Config) -> Self {
        let mut desk = Self::without_guard(config);
        assert_eq!(desk.hears(Event::Guard(GuardEvent::Ready)), []);
        desk
    }

    pub fn without_guard(config: Config) -> Self {
        let now = Now {
            at: second(0),
            chance: Chance::MIDDLE,
            fresh: HolderId(Uuid::nil()),
        };
        let keeper = Keeper::new(Arc::new(config), &now);
        let mut desk = Self {
            keeper,
            at: second(0),
            told: Vec::new(),
            drawn: 0,
            standing: 0,
        };
        let now = desk.now();
        let first = desk.keeper.start(&now);
        assert!(matches!(first[..], [Command::Observe { .. }]), "{first:?}");
        desk
    }

    /// One that holds the lease with token 6 since second 0; its worker runs.
    pub fn holding(config: Config) -> Self {
        let mut desk = Self::new(config);
        desk.acquires();
        desk.guard(GuardEvent::Started { pid: 42 });
        desk.told.clear();
        desk
    }

    /// Takes a row that was released with token 5.
    pub fn acquires(&mut self) {
        let commands = self.sees(vec![released(5, 9)]);
        let [Command::Acquire { .. }] = commands[..] else {
            panic!("{commands:?}");
        };
        let commands = self.acquired(self.at, granted(6, 10));
        let [Command::Spawn { .. }] = commands[..] else {
            panic!("{commands:?}");
        };
    }

    pub fn now(&mut self) -> Now {
        self.drawn += 1;
        Now {
            at: self.at,
            chance: Chance::MIDDLE,
            fresh: HolderId(Uuid::from_u128(self.drawn)),
        }
    }

    /// What is asked for because of it; what is told is kept.
    pub fn hears(&mut self, event: Event) -> Vec<Command> {
        self.standing += 1;
        assert!(self.standing < 1000, "it turns in circles");
        let now = self.now();
        let mut commands = self.keeper.step(event, &now);
        for command in &commands {
            if let Command::Tell(transition) = command {
                self.told.push(transition.clone());
            }
        }
        commands.retain(|command| !matches!(command, Command::Tell(_)));
        commands
    }

    pub fn at(&mut self, at: BootInstant) -> &mut Self {
        assert!(at >= self.at, "time goes on");
        assert!(at < second(100_000), "it never ends");
        if at > self.at {
            self.standing = 0;
        }
        self.at = at;
        self
    }

    /// Wakes it when it wants to be.
    pub fn wakes(&mut self) -> Vec<Command> {
        let at = self.keeper.next_wakeup().expect("something to wait for");
        self.at(at.max(self.at)).hears(Event::Wake)
    }

    pub fn guard(&mut self, event: GuardEvent) -> Vec<Command> {
        self.hears(Event::Guard(event))
    }

    /// The worker ends by itself, with nothing left behind.
    pub fn worker_ends(&mut self, code: u8) -> Vec<Command> {
        let end = WorkerEnd::Exited(code);
        assert_eq!(self.guard(GuardEvent::WorkerEnded(end)), []);
        self.guard(GuardEvent::Empty)
    }

    pub fn sees(&mut self, records: Vec<Record>) -> Vec<Command> {
        self.hears(Event::Observed(Observed::Seen(observation(records))))
    }

    pub fn acquired(&mut self, sent_at: BootInstant, reply: Acquired) -> Vec<Command> {
        self.hears(Event::Acquired { sent_at, reply })
    }

    pub fn renewed(&mut self, sent_at: BootInstant, reply: Renewed) -> Vec<Command> {
        self.hears(Event::Renewed { sent_at, reply })
    }

    pub fn released(&mut self, reply: Released) -> Vec<Command> {
        self.hears(Event::Released(reply))
    }

    pub fn has_told(&self, what: impl Fn(&Transition) -> bool) -> bool {
        self.told.iter().any(what)
    }
}

/// The acquisition that is asked for.
pub fn acquisition(commands: &[Command]) -> Acquire {
    match commands {
        [Command::Acquire { request, .. }] => request.clone(),
        other => panic!("{other:?}"),
    }
}

pub fn ended(outcome: Outcome) -> Vec<Command> {
    vec![Command::Dismiss(outcome.clone()), Command::End(outcome)]
}

pub fn held(token: i64, revision: i64) -> Record {
    Record {
        slot: Slot(0),
        holder: Some(HolderId(Uuid::from_u128(99))),
        label: "them".to_owned(),
        value: String::new(),
        token: Token(token),
        closed_token: None,
        revision: Revision(revision),
        ttl: Duration::from_secs(30),
        takeover_delay: Duration::ZERO,
        released: false,
        expired: false,
        expires_in: Duration::from_secs(25),
        held_for: Duration::ZERO,
        hold_at_least: Duration::ZERO,
        reserved: None,
        incarnation: incarnation(1),
        request: None,
    }
}

pub fn released(token: i64, revision: i64) -> Record {
    Record {
        released: true,
        expired: true,
        expires_in: Duration::ZERO,
        ..held(token, revision)
    }
}

pub fn incarnation(timeline: u32) -> Incarnation {
    Incarnation(format!("1/{timeline}"))
}

pub fn observation(records: Vec<Record>) -> Observation {
    Observation {
        server: Server {
            incarnation: incarnation(1),
            in_recovery: false,
            timeline: Some(1),
            known_for: Some(Duration::from_secs(1_000_000)),
        },
        paused: None,
        records,
    }
}

pub fn grant(token: i64, revision: i64) -> Grant {
    Grant {
        token: Token(token),
        revision: Revision(revision),
        incarnation: incarnation(1),
    }
}

pub fn granted(token: i64, revision: i64) -> Acquired {
    Acquired::Granted(grant(token, revision))
}

/// A renewal of token 6.
pub fn renewed(revision: i64) -> Renewed {
    Renewed::Granted {
        grant: grant(6, revision),
        request: None,
    }
}

pub fn step_down(token: i64) -> Renewed {
    Renewed::Granted {
        grant: grant(6, 11),
        request: Some(Request {
            token: Token(token),
            kind: RequestKind::StepDown { to: None },
        }),
    }
}

pub fn unknown(fault: Fault) -> Unknown {
    Unknown {
        fault,
        message: "no answer".to_owned(),
    }
}

pub fn no_answer() -> Unknown {
    unknown(Fault::Transient)
}
