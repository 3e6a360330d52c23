//! One connection, opened when needed and dropped when in doubt. Fills what
//! sqlx leaves open: several hosts, time limits, servers in recovery, modes
//! of TLS that fall back, poolers.

use std::mem::replace;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Row};
use tokio::time::{sleep, timeout};

use super::fault::{Failure, INVALID_AUTHORIZATION, PROTOCOL_VIOLATION};
use super::prepared::{Names, Prepared, Statement};
use super::settings::PgSettings;
use super::sql;
use super::target::{Attributes, Target};
use crate::lease::record::{Fault, Unknown};
use crate::store::deadline::Deadline;
use crate::store::message::collect;

/// How long the next host waits for the one before it: as long as a browser
/// waits for the other kind of address (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// The rows of each statement of a message.
pub(super) type Rows = Vec<Vec<PgRow>>;

/// A connection, or what is needed to have one.
pub(super) struct Link {
    settings: PgSettings,
    application: String,
    open: Option<Box<Open>>,
    /// The host that worked last is tried first.
    last: Option<String>,
    /// Our settings do not reach the session: there is a pooler in between.
    pooled: bool,
    only_reads: bool,
    /// How many there have been.
    connections: u64,
}

struct Open {
    connection: PgConnection,
    target: Target,
    session: Session,
    prepared: Prepared,
    /// It was made ready to be a standby's.
    ready_to_take: bool,
    /// And a holder's.
    ready_to_hold: bool,
}

impl Open {
    fn new(connection: PgConnection, target: &Target, session: Session) -> Self {
        Self {
            connection,
            target: target.clone(),
            session,
            prepared: Prepared::new(),
            ready_to_take: false,
            ready_to_hold: false,
        }
    }
}

/// Whether the server's session is ours alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Session {
    /// It was opened with this mark; if the mark can be seen, it is ours.
    Marked(String),
    /// The mark was seen, in the session that this says.
    Ours(String),
    /// It belongs to a pooler.
    Pooled,
}

impl Link {
    pub(super) fn new(settings: PgSettings, application: String) -> Self {
        Self {
            settings,
            application,
            open: None,
            last: None,
            pooled: false,
            only_reads: false,
            connections: 0,
        }
    }

    /// Says, before anything connects, that all is only read:
    /// `target_session_attrs=any` lets a standby answer that.
    pub(super) fn only_reads(&mut self) {
        self.only_reads = true;
    }

    pub(super) fn settings(&self) -> &PgSettings {
        &self.settings
    }

    /// Drops the connection: what it still does is not known.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the session is known to be ours, with the limits that it was
    /// opened with.
    pub(super) fn is_ours(&self) -> bool {
        self.own_session().is_some()
    }

    /// A session that is known to be ours, by the number of its connection.
    pub(super) fn own_session(&self) -> Option<u64> {
        let open = self.open.as_ref()?;
        matches!(open.session, Session::Ours(_)).then_some(self.connections)
    }

    /// Whether the server has `client_connection_check_interval`: PostgreSQL 14
    /// and later (its release notes, E.23.3.1).
    pub(super) fn finds_lost_clients(&self) -> bool {
        let open = self.open.as_ref();
        let version = open.and_then(|open| open.connection.server_version_num());
        version.is_some_and(|version| version >= 140_000)
    }

    /// Whether the session is ours and was not made ready to take a lease:
    /// true once.
    pub(super) fn gets_ready_to_take(&mut self) -> bool {
        self.ours()
            .is_some_and(|open| !replace(&mut open.ready_to_take, true))
    }

    /// The same, to hold one.
    pub(super) fn gets_ready_to_hold(&mut self) -> bool {
        self.ours()
            .is_some_and(|open| !replace(&mut open.ready_to_hold, true))
    }

    fn ours(&mut self) -> Option<&mut Open> {
        let open = self.open.as_deref_mut();
        open.filter(|open| matches!(open.session, Session::Ours(_)))
    }

    /// A message that prepares statements, and what to keep where it works.
    /// Only where the session is ours.
    pub(super) fn preparation(&mut self, statements: &[Statement]) -> Option<(String, Names)> {
        let open = self.ours()?;
        Some(open.prepared.prepare(statements))
    }

    /// They are prepared.
    pub(super) fn keep_prepared(&mut self, names: Names) {
        if let Some(open) = &mut self.open {
            open.prepared.keep(names);
        }
    }

    /// One statement of a message: by its name, where it is prepared.
    pub(super) fn statement(&self, sql: &str, values: &sql::Values<'_>) -> String {
        let open = self.open.as_deref();
        open.filter(|open| !open.prepared.is_empty())
            .and_then(|open| open.prepared.execute(&Statement::new(sql, values)))
            .unwrap_or_else(|| sql::fill(sql, values))
    }

    /// Takes it that nothing is prepared; whether anything was.
    pub(super) fn forget_prepared(&mut self) -> bool {
        self.open
            .as_mut()
            .is_some_and(|open| open.prepared.forget())
    }

    /// Whether a pooler was found.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// Tells what the server has seen of the session: its mark, and its
    /// process. A pooler may hand the mark on to many.
    pub(super) fn saw_session(&mut self, mark_seen: &str, process: &str) {
        let Some(open) = &mut self.open else {
            return;
        };
        let ours = match &open.session {
            Session::Marked(mark) => mark == mark_seen,
            Session::Ours(before) => before == process,
            Session::Pooled => return,
        };
        if ours {
            open.session = Session::Ours(process.to_owned());
        } else {
            open.session = Session::Pooled;
            open.prepared.forget();
            self.pooled = true;
        }
    }

    /// Connects, unless there is a connection.
    pub(super) async fn connect(&mut self, deadline: Deadline) -> Result<(), Unknown> {
        if self.open.is_some() {
            return Ok(());
        }
        let targets = self.targets(deadline).await?;
        let plan = self.plan(targets.len() > 1);
        let open = race(targets, &plan, deadline).await?;
        self.connections += 1;
        self.last = Some(open.target.shown.clone());
        self.pooled |= open.session == Session::Pooled;
        self.open = Some(Box::new(open));
        Ok(())
    }

    /// Sends one message and collects the rows of each statement. The
    /// connection stays only where the answer was complete.
    pub(super) async fn send(&mut self, sql: String, deadline: Deadline) -> Result<Rows, Failure> {
        let Some(open) = &mut self.open else {
            return Err(Failure::Unanswered(Unknown {
                fault: Fault::Transient,
                message: "there is no connection".to_owned(),
            }));
        };
        let answer = timeout(deadline.left(), collect(&mut open.connection, sql)).await;
        match answer {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                let failure = Failure::of(&error, &open.target);
                let usable = matches!(&failure, Failure::Refused(refused) if !refused.fatal);
                if !usable {
                    self.open = None;
                }
                Err(failure)
            }
            Err(_elapsed) => {
                let message = format!("{}: no answer in time", open.target.shown);
                self.open = None;
                Err(Failure::Unanswered(Unknown {
                    fault: Fault::Transient,
                    message,
                }))
            }
        }
    }

    /// Hosts in the order in which to try them. Reads files.
    async fn targets(&self, deadline: Deadline) -> Result<Vec<Target>, Unknown> {
        let mut targets = resolved(&self.settings, deadline.left()).await?;
        if let Some(last) = &self.last
            && let Some(at) = targets.iter().position(|target| target.shown == *last)
        {
            targets[..=at].rotate_right(1);
        }
        Ok(targets)
    }

    fn plan(&self, several: bool) -> Plan {
        Plan {
            several,
            only_reads: self.only_reads,
            application: self.application.clone(),
            statement_limit: self.settings.statement_limit(),
            pooled: self.pooled,
        }
    }
}

/// Where the servers are. A file that does not come back holds up nobody but
/// who waits for it here.
pub(super) async fn resolved(
    settings: &PgSettings,
    limit: Duration,
) -> Result<Vec<Target>, Unknown> {
    if !settings.is_in_a_file() {
        return Ok(settings.targets()?);
    }
    let settings = settings.clone();
    let reading = tokio::task::spawn_blocking(move || settings.targets());
    match timeout(limit, reading).await {
        Ok(Ok(targets)) => Ok(targets?),
        Ok(Err(_)) | Err(_) => Err(Unknown {
            fault: Fault::Transient,
            message: "the file of --db-file cannot be read in time".to_owned(),
        }),
    }
}

/// What all connections of a link are opened with.
pub(super) struct Plan {
    /// There is another host to go to.
    several: bool,
    only_reads: bool,
    application: String,
    statement_limit: Duration,
    pooled: bool,
}

/// Tries hosts in their order, the next one as soon as one fails or takes
/// long, so that one that hangs does not eat the others' time. The first
/// that is good enough wins.
async fn race(targets: Vec<Target>, plan: &Plan, deadline: Deadline) -> Result<Open, Unknown> {
    let mut waiting = targets.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failures: Vec<Unknown> = Vec::new();
    loop {
        if let Some(target) = waiting.next() {
            running.push(attempt(target, plan, deadline));
        }
        if running.is_empty() {
            return Err(all_failed(failures));
        }
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(open) => return Ok(open),
                Err(unknown) => failures.push(unknown),
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// One failure for all: retried if one of them can be, and read-only only
/// where nothing else may come back.
fn all_failed(failures: Vec<Unknown>) -> Unknown {
    let worst = |fault| failures.iter().any(|unknown| unknown.fault == fault);
    let fault = if worst(Fault::Transient) {
        Fault::Transient
    } else if worst(Fault::ReadOnly) {
        Fault::ReadOnly
    } else {
        Fault::Final
    };
    let messages: Vec<String> = failures
        .into_iter()
        .map(|unknown| unknown.message)
        .collect();
    Unknown {
        fault,
        message: messages.join("; "),
    }
}

/// One host, within its own limit.
async fn attempt(target: Target, plan: &Plan, deadline: Deadline) -> Result<Open, Unknown> {
    let deadline = target
        .connect_timeout
        .map_or(deadline, |limit| deadline.at_most(limit));
    match timeout(deadline.left(), open(&target, plan)).await {
        Ok(Ok(open)) => Ok(open),
        Ok(Err(failure)) => Err(failure.unknown()),
        Err(_elapsed) => Err(Unknown {
            fault: Fault::Transient,
            message: format!("{}: no connection in time", target.shown),
        }),
    }
}

/// Logs in, with the next mode of TLS where the first is refused, and
/// without settings of our own where a pooler refuses those.
async fn open(target: &Target, plan: &Plan) -> Result<Open, Failure> {
    let mut failed = None;
    for mode in &target.tls {
        let options = target
            .options
            .clone()
            .ssl_mode(*mode)
            .application_name(&plan.application);
        match open_session(target, options, plan).await {
            Ok(mut open) => {
                // With one host the calls themselves find out.
                if plan.several {
                    let may_be_a_standby = target.attributes == Attributes::Any;
                    if !(plan.only_reads && may_be_a_standby) {
                        must_be_writable(&mut open).await?;
                    }
                }
                return Ok(open);
            }
            Err(error) => {
                let failure = Failure::of(&error, target);
                let other_mode_may_help = match &failure {
                    Failure::Refused(refused) => refused.code == INVALID_AUTHORIZATION,
                    Failure::Unanswered(unknown) => unknown.message.contains("TLS"),
                };
                // The first refusal says more than that of the fallback.
                let first = failed.get_or_insert(failure);
                if !other_mode_may_help {
                    return Err(first.clone());
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| {
        Failure::Unanswered(Unknown {
            fault: Fault::Final,
            message: format!("{}: there is no way to connect", target.shown),
        })
    }))
}

async fn open_session(
    target: &Target,
    options: PgConnectOptions,
    plan: &Plan,
) -> Result<Open, sqlx::Error> {
    if !plan.pooled {
        let mark = format!("{:016x}", rand::random::<u64>());
        match marked(&options, &mark, plan.statement_limit)
            .connect()
            .await
        {
            Ok(connection) => {
                return Ok(Open::new(connection, target, Session::Marked(mark)));
            }
            Err(error) if refuses_options(&error, target) => {}
            Err(error) => return Err(error),
        }
    }
    let connection = options.connect().await?;
    Ok(Open::new(connection, target, Session::Pooled))
}

/// Settings for a session that is ours: a mark that proves it, a limit for
/// every statement, and an end for sessions whose client's host is lost.
pub(super) fn marked(
    options: &PgConnectOptions,
    mark: &str,
    statement_limit: Duration,
) -> PgConnectOptions {
    let limit = statement_limit.as_millis().clamp(1, 2_147_483_647);
    options.clone().options([
        ("leasewrap.session", mark),
        ("statement_timeout", &format!("{limit}ms")),
        ("tcp_keepalives_idle", "15"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "30000"),
    ])
}

/// What else poolers say to the start-up parameter `options`: PgBouncer, and
/// the RDS Proxy (its "Limitations" name it).
const OPTIONS_REFUSED: [&str; 2] = ["startup parameter", "command-line options"];

/// Whether a pooler does not like the start-up parameter `options`.
pub(super) fn refuses_options(error: &sqlx::Error, target: &Target) -> bool {
    match Failure::of(error, target) {
        Failure::Refused(refused) => {
            !target.own_options
                && ((refused.code == PROTOCOL_VIOLATION && refused.message.contains("parameter"))
                    || OPTIONS_REFUSED
                        .iter()
                        .any(|words| refused.message.contains(words)))
        }
        Failure::Unanswered(_) => false,
    }
}

/// Whether a server can be written to.
pub(super) const WRITABLE: &str =
    "not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";

async fn must_be_writable(open: &mut Open) -> Result<(), Failure> {
    let sql = format!("select {WRITABLE} as writable");
    let rows = collect(&mut open.connection, sql).await;
    let rows = rows.map_err(|error| Failure::of(&error, &open.target))?;
    let writable = rows
        .iter()
        .flatten()
        .next()
        .is_some_and(|row| row.try_get("writable").unwrap_or(false));
    if writable {
        return Ok(());
    }
    Err(cannot_be_written_to(&open.target))
}

pub(super) fn cannot_be_written_to(target: &Target) -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::ReadOnly,
        message: format!("{}: a server that cannot be written to", target.shown),
    })
}
