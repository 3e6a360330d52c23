//! The keeper's machine.

use leasewrap::lease::keeper::Phase;
use leasewrap::lease::keeper::event::{Event, GuardEvent, StopCause};
use leasewrap::lease::record::{Acquired, Observed, Released, Renewed};

use super::{Events, Impossible, Table};

/// What a guard says of its worker, to whichever machine.
pub const OF_WORKER: &[&str] = &[
    "guard: started",
    "guard: not started",
    "guard: worker ended",
    "guard: stopping",
    "guard: empty",
];

const LOOKS: &[&str] = &[
    "observed",
    "observed: no schema",
    "observed: unknown",
    "initialised",
    "initialised: unknown",
];
const ACQUIRED: &[&str] = &[
    "acquired: granted",
    "acquired: refused",
    "acquired: unknown",
];
const RENEWED: &[&str] = &["renewed: granted", "renewed: lost", "renewed: unknown"];
const RELEASED: &[&str] = &["released: done", "released: not ours", "released: unknown"];

const EVERY: Events = &[
    &["wake"],
    LOOKS,
    ACQUIRED,
    RENEWED,
    RELEASED,
    &[
        "checked: granted",
        "checked: lost",
        "checked: unknown",
        "changed",
        "guard: ready",
    ],
    OF_WORKER,
    &[
        "guard: gone",
        "guard: swept",
        "stop: signal",
        "stop: attach",
        "stop: step-down",
        "stop: unfit",
        "stop: watchdog",
        "hurry up",
        "fit",
        "not fit",
    ],
];

pub const TABLE: Table = Table {
    machine: "keeper",
    states: &[
        "Standby",
        "Acquiring",
        "Starting",
        "Holding",
        "Stopping",
        "Releasing",
        "Ended",
    ],
    events: EVERY,
    impossible: &[
        Impossible {
            states: &["Ended"],
            events: EVERY,
            why: "the loop ends with the machine's last command",
        },
        Impossible {
            states: &["Starting", "Holding", "Stopping", "Releasing"],
            events: &[LOOKS, ACQUIRED],
            why: "one call at a time, answered once: none of these goes into a term",
        },
        Impossible {
            states: &["Standby"],
            events: &[ACQUIRED, RENEWED],
            why: "the answer is waited for in the state that has asked",
        },
        Impossible {
            states: &["Standby", "Acquiring", "Starting", "Holding", "Stopping"],
            events: &[RELEASED],
            why: "a release is asked for, and its answer waited for, in Releasing alone",
        },
        Impossible {
            states: &["Acquiring"],
            events: &[&["observed: no schema", "initialised", "initialised: unknown"]],
            why: "a schema that an acquisition was sent to does not go away here (a campaign drops it)",
        },
        Impossible {
            states: &["Starting", "Holding", "Stopping", "Releasing"],
            events: &[&["changed"]],
            why: "in a term a notification makes the loop read its own row instead",
        },
        Impossible {
            states: &["Acquiring", "Starting", "Holding", "Stopping", "Releasing"],
            events: &[&["guard: ready"]],
            why: "a guard says so once, and no attempt is made before (with serve: tests/sidecar)",
        },
        Impossible {
            states: &["Standby", "Acquiring"],
            events: &[OF_WORKER],
            why: "nothing was started, and a dismissed guard is not listened to",
        },
        Impossible {
            states: &["Holding"],
            events: &[&["guard: started", "guard: not started"]],
            why: "a guard starts one worker",
        },
        Impossible {
            states: &["Starting"],
            events: &[&["guard: worker ended"]],
            why: "a guard says first that it has started",
        },
        Impossible {
            states: &["Holding"],
            events: &[&["guard: empty"]],
            why: "a guard says first how the worker has ended, or that it kills",
        },
        Impossible {
            states: &["Releasing"],
            events: &[OF_WORKER],
            why: "nothing is left, and that is the last thing that a guard says of it",
        },
        Impossible {
            states: &["Standby", "Starting", "Holding"],
            events: &[&["guard: swept"]],
            why: "the guard is gone first, and that leaves these states",
        },
        Impossible {
            states: &[],
            events: &[&["stop: attach"]],
            why: "these keepers have guards of their own (with serve: tests/sidecar)",
        },
        Impossible {
            states: &[],
            events: &[&["stop: step-down", "stop: unfit"]],
            why: "the machine finds that in a row and in a precheck's answer; no loop sends it",
        },
    ],
};

pub fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Standby => "Standby",
        Phase::Acquiring => "Acquiring",
        Phase::Starting => "Starting",
        Phase::Holding => "Holding",
        Phase::Stopping => "Stopping",
        Phase::Releasing => "Releasing",
        Phase::Ended => "Ended",
    }
}

pub fn event(event: &Event) -> &'static str {
    match event {
        Event::Wake => "wake",
        Event::Observed(Observed::Seen(_)) => "observed",
        Event::Observed(Observed::NoSchema) => "observed: no schema",
        Event::Observed(Observed::Unknown(_)) => "observed: unknown",
        Event::Initialised(Ok(())) => "initialised",
        Event::Initialised(Err(_)) => "initialised: unknown",
        Event::Acquired { reply, .. } => match reply {
            Acquired::Granted(_) => "acquired: granted",
            Acquired::Refused(_) => "acquired: refused",
            Acquired::Unknown(_) => "acquired: unknown",
        },
        Event::Renewed { reply, .. } => match reply {
            Renewed::Granted { .. } => "renewed: granted",
            Renewed::Lost(_) => "renewed: lost",
            Renewed::Unknown(_) => "renewed: unknown",
        },
        Event::Released(Released::Done) => "released: done",
        Event::Released(Released::NotOurs) => "released: not ours",
        Event::Released(Released::Unknown(_)) => "released: unknown",
        Event::Checked(Renewed::Granted { .. }) => "checked: granted",
        Event::Checked(Renewed::Lost(_)) => "checked: lost",
        Event::Checked(Renewed::Unknown(_)) => "checked: unknown",
        Event::Changed(_) => "changed",
        Event::Guard(event) => guard(event),
        Event::Stop(StopCause::Signal(_)) => "stop: signal",
        Event::Stop(StopCause::Attach(_)) => "stop: attach",
        Event::Stop(StopCause::StepDown) => "stop: step-down",
        Event::Stop(StopCause::Unfit) => "stop: unfit",
        Event::Stop(StopCause::Watchdog) => "stop: watchdog",
        Event::HurryUp => "hurry up",
        Event::Fit(true) => "fit",
        Event::Fit(false) => "not fit",
    }
}

/// What a guard says, to whichever machine.
pub fn guard(event: &GuardEvent) -> &'static str {
    match event {
        GuardEvent::Ready => "guard: ready",
        GuardEvent::Started { .. } => "guard: started",
        GuardEvent::NotStarted(_) => "guard: not started",
        GuardEvent::WorkerEnded(_) => "guard: worker ended",
        GuardEvent::Stopping(_) => "guard: stopping",
        GuardEvent::Empty => "guard: empty",
        GuardEvent::Gone => "guard: gone",
        GuardEvent::Swept => "guard: swept",
    }
}
