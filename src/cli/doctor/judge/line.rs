//! The way to the server, who follows it, the clocks and the times.

use std::time::Duration;

use super::{Heard, Point, Verdict};
use crate::cli::doctor::measure::Trips;
use crate::lease::record::Unknown;
use crate::lease::timing::Timing;
use crate::store::admin::LeaseStatus;
use crate::store::postgres::doctor::{Replica, ServerFacts};
use crate::telemetry::format::span;

pub(super) fn pooler(server: &ServerFacts, heard: &Heard) -> Point {
    match (server.pooled, heard) {
        (false, _) => Point::new("pooler", Verdict::Holds, "none in between"),
        (true, Heard::After(_)) => Point::new("pooler", Verdict::Holds, "in between, one session for each client"),
        (true, Heard::Not(_)) => Point::new("pooler", Verdict::Note, "in between, sessions are shared (transaction pooling)")
            .because("everything works; standbys poll, and with --pgoptions the fence's settings do not arrive")
            .remedy("for hand-over within milliseconds name the server itself; let the worker set leasewrap.name and leasewrap.token in its transactions"),
    }
}

pub(super) fn listen(heard: &Heard, timing: &Timing) -> Point {
    match heard {
        Heard::After(took) => Point::new(
            "listen",
            Verdict::Holds,
            format!("a notification arrived after {}", brief(*took)),
        ),
        Heard::Not(why) => Point::new(
            "listen",
            Verdict::Note,
            format!("notifications do not arrive: {why}"),
        )
        .because(format!(
            "a standby notices a release when it polls: every {}",
            span(timing.poll_interval())
        ))
        .remedy("name the server itself instead of a pooler, or give a shorter --poll-every"),
    }
}

pub(super) fn commit(
    server: &ServerFacts,
    took: &Result<Option<Duration>, Unknown>,
    timing: &Timing,
) -> Point {
    let default = match server.synchronous_commit.as_str() {
        "on" | "remote_apply" | "remote_write" => String::new(),
        weaker => format!(
            "; the default is synchronous_commit = {weaker}, leasewrap's own commits wait all the same"
        ),
    };
    match took {
        Ok(Some(took)) if *took * 4 > timing.call_timeout() => {
            Point::new("commit", Verdict::Note, format!("a durable commit took {}{default}", brief(*took)))
                .because(format!("a call may take {}: renewals would come late", span(timing.call_timeout())))
                .remedy("look at the disk and at synchronous standbys, or give longer times")
        }
        Ok(Some(took)) => Point::new("commit", Verdict::Holds, format!("a durable commit took {}{default}", brief(*took))),
        Ok(None) => Point::new("commit", Verdict::Unknown, format!("this role may not measure a commit{default}"))
            .because("a renewal has to be committed in time")
            .remedy(format!(
                "grant execute on function pg_logical_emit_message(boolean, text, text) to {}",
                server.role
            )),
        Err(unknown) => Point::new("commit", Verdict::Fails, unknown.message.clone())
            .because("a renewal has to be committed; does it wait for a synchronous standby that is gone?")
            .remedy("look at pg_stat_replication and synchronous_standby_names"),
    }
}

pub(super) fn standbys(server: &ServerFacts, replicas: &Result<Vec<Replica>, Unknown>) -> Point {
    const ID: &str = "standbys";
    let replicas = match replicas {
        Ok(replicas) => replicas,
        Err(unknown) => return Point::unanswered(ID, unknown),
    };
    if replicas.is_empty() {
        return Point::new(ID, Verdict::Holds, "no standby server follows this one");
    }
    if replicas.iter().any(|replica| replica.sync_state.is_none()) {
        return Point::new(
            ID,
            // At the worst none of them is waited for, which is a note too.
            Verdict::Note,
            format!(
                "{} standby servers follow; how, this role may not see",
                replicas.len()
            ),
        )
        .because("a fail-over to an asynchronous standby may lose acknowledged commits")
        .remedy(format!("grant pg_monitor to {}", server.role));
    }
    let waited_for =
        |replica: &&Replica| matches!(replica.sync_state.as_deref(), Some("sync" | "quorum"));
    let names: Vec<String> = replicas
        .iter()
        .map(|replica| {
            format!(
                "{} ({})",
                replica.name,
                replica.sync_state.as_deref().unwrap_or("?")
            )
        })
        .collect();
    let found = names.join(", ");
    if replicas.iter().any(|replica| waited_for(&replica)) {
        return Point::new(ID, Verdict::Holds, found);
    }
    Point::new(ID, Verdict::Note, found)
        .because(
            "a fail-over may lose acknowledged commits; leasewrap then lets nobody take a lease before it was watched \
             for more than its ttl, and never repeats a token; an old primary that lives on must be fenced by what fails over",
        )
        .remedy("set synchronous_standby_names, so that commits wait for a standby")
}

pub(super) fn line(trips: &Result<Trips, Unknown>, timing: &Timing) -> Vec<Point> {
    let trips = match trips {
        Ok(trips) => trips,
        Err(unknown) => {
            return vec![
                Point::new("line", Verdict::Fails, unknown.message.clone())
                    .because(format!(
                        "a call has to be answered within {}",
                        span(timing.call_timeout())
                    ))
                    .remedy("look at the network and at the server's load, or give longer times"),
            ];
        }
    };
    vec![
        round_trip(trips, timing),
        clock_offset(trips),
        clock_rate(trips, timing),
    ]
}

fn round_trip(trips: &Trips, timing: &Timing) -> Point {
    let Some((median, longest)) = trips.took() else {
        return Point::new("line", Verdict::Unknown, "not measured");
    };
    let found = format!(
        "{} a round trip, {} the longest",
        brief(median),
        brief(longest)
    );
    if longest * 4 > timing.call_timeout() {
        return Point::new("line", Verdict::Note, found)
            .because(format!(
                "a call may take {} (--call-timeout), and connecting takes several round trips",
                span(timing.call_timeout())
            ))
            .remedy("give a longer --ttl");
    }
    Point::new("line", Verdict::Holds, found)
}

fn clock_offset(trips: &Trips) -> Point {
    const SECOND: i64 = 1_000_000;
    let Some(offset) = trips.offset_us() else {
        return Point::new("clock offset", Verdict::Unknown, "not measured");
    };
    let size = brief(Duration::from_micros(offset.unsigned_abs()));
    let side = if offset < 0 { "behind" } else { "ahead of" };
    let found = format!("the database's clock is {size} {side} this host's");
    if offset.abs() < SECOND {
        return Point::new("clock offset", Verdict::Holds, found);
    }
    Point::new("clock offset", Verdict::Note, found)
        .because("no decision rests on it (but for --takeover clock), times in logs and in the history do not fit together")
        .remedy("look at time synchronisation on both hosts")
}

fn clock_rate(trips: &Trips, timing: &Timing) -> Point {
    const ID: &str = "clock rate";
    let Some(rate) = trips.rate() else {
        return Point::new(ID, Verdict::Unknown, "not measured");
    };
    // Adding zero turns a rounded -0.00 into 0.00.
    let gain = (rate.gain * 10_000.0).round() / 100.0 + 0.0;
    let error = rate.error * 100.0;
    let found = format!("the database's clock gains {gain:.2} % on this host's (± {error:.2} %)");
    let allowed = timing.margin().as_secs_f64() / timing.ttl().as_secs_f64();
    let surely = rate.gain.abs() - rate.error;
    let verdict = match surely {
        surely if surely > allowed => Verdict::Fails,
        surely if surely > allowed / 4.0 => Verdict::Note,
        _ => return Point::new(ID, Verdict::Holds, found),
    };
    Point::new(ID, verdict, found)
        .because(format!(
            "--margin allows for {:.0} %: a clock is being slewed, or stepped just now",
            allowed * 100.0
        ))
        .remedy("look at time synchronisation on both hosts, or give a longer --margin")
}

pub(super) fn outage(timing: &Timing) -> Point {
    Point::new(
        "outage",
        Verdict::Holds,
        format!(
            "an outage of up to {} passes unnoticed by the worker (ttl {}); a lost host costs {} and a poll",
            span(timing.rides_out()),
            span(timing.ttl()),
            span(timing.ttl() * 11 / 10)
        ),
    )
    .because("a fail-over takes up to 30 s and more")
    .remedy("give a longer --ttl, where that is too short")
}

pub(super) fn other_ttls(leases: &[LeaseStatus], timing: &Timing) -> Option<Point> {
    let slots = leases.iter().flat_map(|lease| &lease.slots);
    let other = slots
        .map(|slot| slot.record.ttl)
        .find(|ttl| *ttl != timing.ttl())?;
    Some(
        Point::new(
            "ttl",
            Verdict::Note,
            format!(
                "a holder of this lease has a ttl of {}, the one given here is {}",
                span(other),
                span(timing.ttl())
            ),
        )
        .because("after lost commits, contenders with different times may misjudge each other")
        .remedy("give all of them one --ttl"),
    )
}

/// To the tenth of a millisecond below a second.
fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    } else {
        span(duration)
    }
}
