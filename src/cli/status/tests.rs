use std::time::Duration;

use uuid::Uuid;

use super::view::*;
use crate::cli::output::{Paint, json};
use crate::lease::ids::LeaseName;
use crate::lease::ids::{HolderId, Incarnation, Revision, Token};
use crate::lease::record::RequestKind;
use crate::lease::record::{Record, Request, Reserved, Server};
use crate::store::admin::{DbTime, PauseStatus};
use crate::store::admin::{LeaseStatus, Seen, SlotStatus};

pub fn server() -> Server {
    Server {
        incarnation: Incarnation("1/1".to_owned()),
        in_recovery: false,
        timeline: Some(1),
        known_for: None,
    }
}

/// The lease "job", held with `token`, as `change` leaves it.
pub fn lease(token: i64, change: impl FnOnce(&mut SlotStatus)) -> LeaseStatus {
    let mut slot = SlotStatus {
        record: Record {
            slot: crate::lease::ids::Slot(0),
            holder: Some(HolderId(Uuid::from_u128(7))),
            label: "host/1".to_owned(),
            value: String::new(),
            token: Token(token),
            closed_token: None,
            revision: Revision(3),
            ttl: Duration::from_secs(30),
            takeover_delay: Duration::ZERO,
            released: false,
            expired: false,
            expires_in: Duration::from_secs(25),
            held_for: Duration::from_secs(90),
            hold_at_least: Duration::ZERO,
            reserved: None,
            incarnation: Incarnation("1/1".to_owned()),
            request: None,
        },
        changes: 2,
        acquired_at: DbTime(10_000),
        renewed_at: DbTime(100_000),
        expires_at: DbTime(130_000),
        released_at: None,
    };
    change(&mut slot);
    LeaseStatus {
        name: LeaseName::new("job").expect("a name"),
        paused: None,
        slots: vec![slot],
        standbys: None,
    }
}

fn view(lease: LeaseStatus) -> View {
    View::of(
        &Seen {
            now: DbTime(142_000),
            server: server(),
            value: vec![lease],
        },
        None,
    )
}

fn released(slot: &mut SlotStatus) {
    slot.record.released = true;
    slot.released_at = Some(DbTime(120_000));
}

#[test]
fn each_state_has_its_word_and_its_exit_code() {
    let paused = PauseStatus {
        reason: "migration".to_owned(),
        by: "dba".to_owned(),
        since: DbTime(132_000),
    };
    let pause = |mut lease: LeaseStatus| {
        lease.paused = Some(paused.clone());
        lease
    };
    let doubt = |slot: &mut SlotStatus| slot.record.incarnation = Incarnation("1/2".to_owned());
    for (lease, state, code) in [
        (lease(7, |_| {}), "held", 0),
        (lease(7, |slot| slot.record.expired = true), "expired", 1),
        (lease(7, doubt), "in doubt", 1),
        (lease(7, released), "free", 1),
        (pause(lease(7, released)), "paused", 1),
        (pause(lease(7, |_| {})), "held", 0),
    ] {
        let view = view(lease);
        let text = view.text(Paint::none());
        let row = text.lines().nth(1).expect("a row");
        assert!(row.contains(state), "{text}");
        assert_eq!(view.exit_code(), code, "{text}");
    }
}

#[test]
fn the_table_says_who_and_the_notes_say_the_rest() {
    let text = view(lease(7, |_| {})).text(Paint::none());
    assert_eq!(
        text,
        "NAME  STATE  HOLDER  TOKEN  HELD FOR  EXPIRES IN  CHANGES\njob   held   host/1  7      1m 30s    25s         2\n"
    );
    let text = view(lease(7, |slot| slot.record.expired = true)).text(Paint::none());
    assert!(text.contains("job: expired 12s ago"), "{text}");
    // From when it was acquired until it expired.
    assert!(text.contains("host/1  7      2m        2"), "{text}");
    let reserved = Reserved {
        label: "b/2".to_owned(),
        remaining: Duration::from_secs(3),
    };
    let text = view(lease(7, |slot| {
        released(slot);
        slot.record.reserved = Some(reserved);
    }))
    .text(Paint::none());
    assert!(text.contains("kept for the standby \"b/2\""), "{text}");
}

#[test]
fn the_json_has_stable_names() {
    let request = Request {
        token: Token(7),
        kind: RequestKind::StepDown { to: None },
    };
    let view = view(lease(7, |slot| slot.record.request = Some(request)));
    let json: serde_json::Value = serde_json::from_str(&json(&view)).expect("JSON");
    let slot = &json["leases"][0]["slots"][0];
    assert_eq!(json["leases"][0]["state"], "held");
    assert_eq!(slot["token"], 7);
    assert_eq!(slot["expires_in_ms"], 25_000);
    assert_eq!(slot["step_down_requested"], true);
    assert_eq!(slot["acquired_at"], "1970-01-01T00:00:10.000Z");
}

#[test]
fn a_lease_that_was_never_held_is_free() {
    let name = LeaseName::new("new").expect("a name");
    let seen = Seen {
        now: DbTime(0),
        server: server(),
        value: Vec::new(),
    };
    let view = View::of(&seen, Some(&name));
    assert_eq!(view.exit_code(), 1);
    assert!(view.text(Paint::none()).contains("new   free"));
}
