//! What follows from what was found: for each point the value, the reason
//! and the remedy.

mod host;
mod line;
mod server;

use std::time::Duration;

use serde::Serialize;

use super::measure::Trips;
use crate::lease::record::Unknown;
use crate::lease::timing::Timing;
use crate::store::admin::LeaseStatus;
use crate::store::postgres::doctor::{FencedTable, Replica, SchemaFacts, ServerFacts};
use crate::sys::namespace::Way;

/// Everything that was found.
#[derive(Debug)]
pub struct Findings {
    /// Whether the database answers, and what its server is; `None`: it is a
    /// SQLite file.
    pub server: Result<Option<ServerFacts>, Unknown>,
    /// Where there is one: all the rest.
    pub look: Option<Look>,
    /// The lease that was named.
    pub leases: Vec<LeaseStatus>,
    /// What this host gives.
    pub containment: Containment,
}

/// Whether the worker's tree can have a PID namespace of its own.
#[derive(Debug)]
pub struct Containment {
    /// `--pid-namespace` was given.
    pub wanted: bool,
    /// How, or why not.
    pub possible: Result<Way, String>,
}

/// What a server that answers shows.
#[derive(Debug)]
pub struct Look {
    /// The schema and our rights.
    pub schema: Result<SchemaFacts, Unknown>,
    /// Who follows.
    pub replicas: Result<Vec<Replica>, Unknown>,
    /// Which tables are fenced.
    pub fences: Result<Vec<FencedTable>, Unknown>,
    /// How long a durable commit takes.
    pub commit: Result<Option<Duration>, Unknown>,
    /// Whether notifications arrive.
    pub heard: Heard,
    /// The line and the clocks.
    pub trips: Result<Trips, Unknown>,
}

/// Whether a notification arrives.
#[derive(Debug)]
pub enum Heard {
    /// So long after it was sent.
    After(Duration),
    /// It does not, and why.
    Not(String),
}

/// How a point stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Holds,
    /// Safe, but worth knowing.
    Note,
    /// Safety needs it, and it does not hold.
    Fails,
    /// It could not be found out.
    Unknown,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// A stable name.
    pub id: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// Why that matters.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Point {
    fn new(id: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            id,
            verdict,
            found: found.into(),
            reason: String::new(),
            remedy: String::new(),
        }
    }

    fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    fn unanswered(id: &'static str, unknown: &Unknown) -> Self {
        Self::new(id, Verdict::Unknown, unknown.message.clone())
    }
}

/// All points, in the order in which to look at them.
pub fn judge(findings: &Findings, timing: &Timing) -> Vec<Point> {
    let mut points = match &findings.server {
        Ok(Some(server)) => of_server(server, findings, timing),
        Ok(None) => vec![server::file()],
        Err(unknown) => {
            return vec![
                Point::new("server", Verdict::Fails, unknown.message.clone())
                    .because("nothing else can be looked at"),
            ];
        }
    };
    points.push(line::outage(timing));
    points.extend(line::other_ttls(&findings.leases, timing));
    points.push(host::containment(&findings.containment));
    points
}

fn of_server(server: &ServerFacts, findings: &Findings, timing: &Timing) -> Vec<Point> {
    let mut points = vec![
        server::version(server),
        server::writable(server),
        server::incarnation(server),
        server::crash(server),
    ];
    if let Some(look) = &findings.look {
        points.extend(server::schema(&look.schema, server));
        points.push(line::pooler(server, &look.heard));
        points.push(line::listen(&look.heard, timing));
        points.push(line::commit(server, &look.commit, timing));
        points.push(line::standbys(server, &look.replicas));
        points.extend(line::line(&look.trips, timing));
        points.push(server::fences(&look.fences));
    }
    points.push(server::queue(server));
    points
}
