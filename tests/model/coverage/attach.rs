//! The machine of `attach`.

use leasewrap::lease::attach::{Event, ServeLoss};
use leasewrap::wire::attach::ToAttach;

use super::guard::{self, FRAMES};
use super::keeper::{self, OF_WORKER};
use super::{Events, Impossible, Table};

const SERVE: &[&str] = &[
    "serve: hello",
    "serve: attached",
    "serve: taken",
    "serve: over",
];
const LOST: &[&str] = &[
    "lost: closed",
    "lost: malformed",
    "lost: version",
    "lost: time namespace",
];

const EVERY: Events = &[
    &["wake", "connected", "not connected"],
    SERVE,
    FRAMES,
    LOST,
    &["guard: ready"],
    OF_WORKER,
    &[
        "guard: gone",
        "guard: swept",
        "no guard",
        "stop",
        "hurry up",
    ],
];

pub const TABLE: Table = Table {
    machine: "attach",
    states: &["Away", "Greeting", "Idle", "Running", "Reporting", "Ended"],
    events: EVERY,
    impossible: &[
        Impossible {
            states: &["Ended"],
            events: EVERY,
            why: "the loop ends with the machine's last action",
        },
        Impossible {
            states: &["Greeting", "Idle", "Running", "Reporting"],
            events: &[&["connected", "not connected"]],
            why: "the answer to an attempt that is made, and waited for, in Away",
        },
        Impossible {
            states: &["Away"],
            events: &[SERVE, FRAMES, LOST],
            why: "there is no connection",
        },
        Impossible {
            states: &["Away", "Greeting"],
            events: &[&["guard: ready", "guard: gone", "guard: swept"], OF_WORKER],
            why: "there is no guard, and a dismissed one is not listened to",
        },
        Impossible {
            states: &["Idle"],
            events: &[OF_WORKER, &["guard: swept"]],
            why: "it was told to start nothing",
        },
        Impossible {
            states: &["Running", "Reporting"],
            events: &[&["guard: ready"]],
            why: "a guard says so once, as soon as it is there",
        },
        Impossible {
            states: &["Reporting"],
            events: &[OF_WORKER, &["guard: swept"]],
            why: "that nothing is left is the last thing that is said of a tree",
        },
        Impossible {
            states: &["Away", "Greeting", "Running", "Reporting"],
            events: &[&["no guard"]],
            why: "said at once where a guard is started",
        },
        Impossible {
            states: &["Away", "Greeting", "Idle"],
            events: &[&["hurry up"]],
            why: "a first signal ends these at once",
        },
    ],
};

pub fn event(event: &Event) -> &'static str {
    match event {
        Event::Wake => "wake",
        Event::Connected => "connected",
        Event::NotConnected(_) => "not connected",
        Event::Serve(ToAttach::Hello(_)) => "serve: hello",
        Event::Serve(ToAttach::Attached) => "serve: attached",
        Event::Serve(ToAttach::Taken(_)) => "serve: taken",
        Event::Serve(ToAttach::Over { .. }) => "serve: over",
        Event::Serve(ToAttach::Guard(frame)) => guard::order(frame),
        Event::ServeLost(ServeLoss::Closed) => "lost: closed",
        Event::ServeLost(ServeLoss::Malformed) => "lost: malformed",
        Event::ServeLost(ServeLoss::Version(_)) => "lost: version",
        Event::ServeLost(ServeLoss::TimeNamespace { .. }) => "lost: time namespace",
        Event::Guard(event) => keeper::guard(event),
        Event::NoGuard(_) => "no guard",
        Event::Stop(_) => "stop",
        Event::HurryUp => "hurry up",
    }
}
