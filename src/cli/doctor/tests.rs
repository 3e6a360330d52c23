use std::time::Duration;

use super::Report;
use super::judge::{Containment, Findings, Heard, Look, Point, Verdict, judge};
use super::measure::tests::trips;
use crate::cli::output::{Paint, json};
use crate::lease::record::{Fault, Unknown};
use crate::lease::timing::{Timing, TimingOptions};
use crate::store::postgres::doctor::{FencedTable, Replica, SchemaFacts, SchemaThere, ServerFacts};
use crate::sys::namespace::Way;

fn server() -> ServerFacts {
    ServerFacts {
        version: 150_004,
        version_text: "15.4".to_owned(),
        in_recovery: false,
        read_only: false,
        role: "app".to_owned(),
        database: "db".to_owned(),
        pooled: false,
        synchronous_commit: "on".to_owned(),
        fsync: true,
        full_page_writes: true,
        synchronous_standby_names: String::new(),
        queue_percent: 0,
        incarnation_readable: true,
    }
}

fn look() -> Look {
    Look {
        schema: Ok(SchemaFacts {
            there: SchemaThere::Ours { usable: Some(true) },
            may_create: false,
            lacking: Vec::new(),
            unlogged: Vec::new(),
        }),
        replicas: Ok(Vec::new()),
        fences: Ok(Vec::new()),
        commit: Ok(Some(Duration::from_millis(2))),
        heard: Heard::After(Duration::from_millis(1)),
        trips: Ok(trips(Duration::from_millis(1), 0.0, 0)),
    }
}

fn contained() -> Containment {
    Containment {
        wanted: false,
        possible: Ok(Way::Direct),
    }
}

fn points(server: ServerFacts, look: Look) -> Vec<Point> {
    let timing = Timing::new(TimingOptions::default()).expect("the defaults fit");
    judge(
        &Findings {
            server: Ok(Some(server)),
            look: Some(look),
            leases: Vec::new(),
            containment: contained(),
        },
        &timing,
    )
}

fn failed() -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: "h: no answer in time".to_owned(),
    }
}

fn refused() -> Unknown {
    Unknown {
        fault: Fault::Final,
        message: "h: permission denied for schema leasewrap".to_owned(),
    }
}

/// The one point that does not hold when `change` is made.
fn finding(change: impl FnOnce(&mut ServerFacts, &mut Look)) -> Point {
    let (mut server, mut look) = (server(), look());
    change(&mut server, &mut look);
    let mut odd: Vec<Point> = points(server, look)
        .into_iter()
        .filter(|point| point.verdict != Verdict::Holds)
        .collect();
    assert_eq!(odd.len(), 1, "{odd:?}");
    odd.remove(0)
}

#[test]
fn a_good_database_has_no_findings() {
    let all = points(server(), look());
    assert!(
        all.iter().all(|point| point.verdict == Verdict::Holds),
        "{all:?}"
    );
    let findings = Findings {
        server: Ok(Some(server())),
        look: Some(look()),
        leases: Vec::new(),
        containment: contained(),
    };
    let report = Report::of(all, &findings);
    assert!(report.safe && report.exit_code == 0);
    assert!(report.text(Paint::none()).contains("Everything holds"));
    assert!(json(&report).contains("\"id\": \"clock rate\""));
}

#[test]
fn each_finding_has_its_point_reason_and_remedy() {
    let replica = |state: Option<&str>| Replica {
        name: "r".to_owned(),
        sync_state: state.map(ToOwned::to_owned),
        state: None,
    };
    let table = FencedTable {
        name: "a.p2".to_owned(),
        fenced: false,
    };
    let schema = |look: &mut Look, change: fn(&mut SchemaFacts)| {
        change(look.schema.as_mut().expect("there"));
    };
    let made = [
        (
            finding(|server, _| server.version = 120_000),
            "server",
            Verdict::Fails,
        ),
        (
            finding(|server, _| server.in_recovery = true),
            "writable",
            Verdict::Fails,
        ),
        (
            finding(|server, _| server.read_only = true),
            "writable",
            Verdict::Fails,
        ),
        (
            finding(|server, _| server.fsync = false),
            "crash",
            Verdict::Fails,
        ),
        (
            finding(|server, _| server.full_page_writes = false),
            "crash",
            Verdict::Note,
        ),
        (
            finding(|server, _| server.incarnation_readable = false),
            "incarnation",
            Verdict::Note,
        ),
        (
            finding(|server, _| server.queue_percent = 80),
            "queue",
            Verdict::Note,
        ),
        (
            finding(|_, look| schema(look, |facts| facts.there = SchemaThere::Nothing)),
            "schema",
            Verdict::Fails,
        ),
        (
            finding(|_, look| schema(look, |facts| facts.there = SchemaThere::Foreign)),
            "schema",
            Verdict::Fails,
        ),
        (
            finding(|_, look| schema(look, |facts| facts.lacking.push("lease: UPDATE".to_owned()))),
            "rights",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.schema = Err(refused())),
            "rights",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.commit = Ok(None)),
            "commit",
            Verdict::Unknown,
        ),
        (
            finding(|_, look| schema(look, |facts| facts.unlogged.push("lease".to_owned()))),
            "tables",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.heard = Heard::Not("a pooler".to_owned())),
            "listen",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.commit = Ok(Some(Duration::from_secs(2)))),
            "commit",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.commit = Err(failed())),
            "commit",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.replicas = Ok(vec![replica(Some("async"))])),
            "standbys",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.replicas = Ok(vec![replica(None)])),
            "standbys",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.trips = Ok(trips(Duration::from_millis(1), 0.15, 0))),
            "clock rate",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.trips = Ok(trips(Duration::from_millis(1), -0.05, 0))),
            "clock rate",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.trips = Ok(trips(Duration::from_millis(1), 0.0, 3_600_000_000))),
            "clock offset",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.trips = Ok(trips(Duration::from_secs(2), 0.0, 0))),
            "line",
            Verdict::Note,
        ),
        (
            finding(|_, look| look.trips = Err(failed())),
            "line",
            Verdict::Fails,
        ),
        (
            finding(|_, look| look.fences = Ok(vec![table])),
            "fences",
            Verdict::Fails,
        ),
    ];
    for (point, id, verdict) in made {
        assert_eq!((point.id, point.verdict), (id, verdict), "{point:?}");
        assert!(
            !point.reason.is_empty() && !point.remedy.is_empty(),
            "{point:?}"
        );
    }
}

#[test]
fn what_could_not_be_looked_at_is_not_safe() {
    let report = |change: fn(&mut Look)| {
        let mut look = look();
        change(&mut look);
        let findings = Findings {
            server: Ok(Some(server())),
            look: Some(look),
            leases: Vec::new(),
            containment: contained(),
        };
        let timing = Timing::new(TimingOptions::default()).expect("the defaults fit");
        Report::of(judge(&findings, &timing), &findings)
    };
    for (change, last) in [
        (
            (|look| look.fences = Err(failed())) as fn(&mut Look),
            "1 of 17 points could not be looked at.",
        ),
        (
            |look| (look.schema, look.fences) = (Err(refused()), Err(refused())),
            "1 of 16 points do not hold; 1 could not be looked at.",
        ),
        (
            |look| look.schema = Err(failed()),
            "1 of 16 points could not be looked at.",
        ),
    ] {
        let report = report(change);
        assert!(!report.safe && report.exit_code == 1, "{report:?}");
        let text = report.text(Paint::none());
        assert_eq!(text.lines().last(), Some(last), "{text}");
    }
}

#[test]
fn a_weaker_default_is_told_and_no_fault() {
    let mut weak = server();
    weak.synchronous_commit = "off".to_owned();
    let all = points(weak, look());
    let commit = all
        .iter()
        .find(|point| point.id == "commit")
        .expect("there");
    assert!(commit.verdict == Verdict::Holds && commit.found.contains("synchronous_commit = off"));
    let sync = Replica {
        name: "r".to_owned(),
        sync_state: Some("sync".to_owned()),
        state: None,
    };
    let mut look = look();
    look.replicas = Ok(vec![sync]);
    assert!(
        points(server(), look)
            .iter()
            .all(|point| point.verdict == Verdict::Holds)
    );
}

#[test]
fn a_server_that_does_not_answer_is_one_point() {
    let timing = Timing::new(TimingOptions::default()).expect("the defaults fit");
    let findings = Findings {
        server: Err(failed()),
        look: None,
        leases: Vec::new(),
        containment: contained(),
    };
    let report = Report::of(judge(&findings, &timing), &findings);
    assert_eq!((report.points.len(), report.exit_code), (1, 123));
}

#[test]
fn the_containment_is_named_and_what_stands_in_its_way() {
    let timing = Timing::new(TimingOptions::default()).expect("the defaults fit");
    let point = |wanted, possible: Result<Way, &str>| {
        let findings = Findings {
            server: Ok(Some(server())),
            look: None,
            leases: Vec::new(),
            containment: Containment {
                wanted,
                possible: possible.map_err(str::to_owned),
            },
        };
        let mut points = judge(&findings, &timing).into_iter();
        points
            .find(|point| point.id == "containment")
            .expect("a point of its own")
    };
    let found = point(true, Ok(Way::UserNamespace));
    assert_eq!(found.verdict, Verdict::Holds);
    assert!(found.found.contains("in a user namespace"), "{found:?}");
    assert_eq!(point(false, Ok(Way::Direct)).verdict, Verdict::Holds);
    for (wanted, verdict) in [(true, Verdict::Fails), (false, Verdict::Note)] {
        let found = point(wanted, Err("some.setting is 0"));
        assert_eq!(found.verdict, verdict);
        assert_eq!(found.remedy, "some.setting is 0");
    }
}
