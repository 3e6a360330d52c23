//! `LISTEN`, in a connection of its own.
//!
//! sqlx receives notifications only through its `PgListener`, and that takes
//! its connection from a pool: so there is a pool of one, made anew for each
//! connection. Reconnecting, limits and the choice of the host are ours.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Row};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::fault::Failure;
use super::link::{self, Rows, WRITABLE, cannot_be_written_to, resolved};
use super::settings::PgSettings;
use super::sql;
use super::target::Target;
use crate::lease::ids::{LeaseName, Revision, Slot, Token};
use crate::lease::record::{Fault, Freed, Unknown};
use crate::store::mailbox::Mailbox;
use crate::store::message::collect;
use crate::store::{Notice, Watch};

/// For connecting to one host, and for each question to it.
const LIMIT: Duration = Duration::from_secs(5);

/// How often an idle connection is asked whether it lives: a lost host says
/// nothing, and sqlx sets no TCP keepalive.
const PING: Duration = Duration::from_secs(60);

/// How long a notification may take to count as arriving.
const ARRIVAL: Duration = Duration::from_secs(2);

/// How long a pooler may take to give a session to each of two at once. Until
/// then one of them is held and does nothing, which others may need.
const TURN: Duration = Duration::from_millis(500);

/// The pause before the first reconnect, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// For each that listens to the same lease, a standby may be told of a change
/// this much later; up to a dozen are told at once.
const SPREAD: Duration = Duration::from_millis(1);
const FEW: u32 = 12;

/// So often it is tried whether a pooler keeps a session for us: while it is
/// busy, that can look so by chance.
const ROUNDS: u32 = 5;

/// The pause where a pooler keeps notifications from us.
const POOLED_PAUSE: Duration = Duration::from_secs(600);

/// Watches a lease by `LISTEN`.
pub struct PgWatch {
    mailbox: Arc<Mailbox>,
    spread: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watch for PgWatch {
    async fn next(&mut self) -> Notice {
        self.mailbox.next().await
    }

    fn spread(&self, spread: bool) {
        self.spread.store(spread, Ordering::Relaxed);
    }
}

impl Drop for PgWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PgWatch {
    /// Must be called within a runtime.
    pub(super) fn start(settings: PgSettings, name: &LeaseName) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let spread = Arc::new(AtomicBool::new(false));
        let ears = Ears {
            spread: Arc::clone(&spread),
            settings,
            // Not the name of the other connection: standbys are counted by it.
            application: format!("leasewrap {name} (listen)"),
            name: name.clone(),
            mailbox: Arc::clone(&mailbox),
        };
        let task = tokio::spawn(ears.listen_for_ever());
        Self {
            mailbox,
            spread,
            task,
        }
    }
}

/// How listening ended.
enum Ended {
    /// The connection was lost, or there was none.
    Lost { heard: bool, why: Unknown },
    /// A pooler keeps notifications from us.
    Pooled(Unknown),
}

struct Ears {
    spread: Arc<AtomicBool>,
    settings: PgSettings,
    application: String,
    name: LeaseName,
    mailbox: Arc<Mailbox>,
}

impl Ears {
    async fn listen_for_ever(self) {
        let mut failures = 0_u32;
        loop {
            let pause = match self.listen().await {
                Ended::Lost { heard, why } => {
                    failures = if heard { 0 } else { failures.saturating_add(1) };
                    self.mailbox.put(Notice::Unavailable(why));
                    (PAUSES.0 * 2_u32.saturating_pow(failures.min(8))).min(PAUSES.1)
                }
                Ended::Pooled(why) => {
                    self.mailbox.put(Notice::Unavailable(why));
                    POOLED_PAUSE
                }
            };
            // Not all at once after a restart of the server.
            sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }

    /// Connects, listens, and returns when that is over.
    async fn listen(&self) -> Ended {
        let targets = match resolved(&self.settings, PING).await {
            Ok(targets) => targets,
            Err(why) => return Ended::Lost { heard: false, why },
        };
        let mut last = None;
        for target in &targets {
            match self.subscribe(target).await {
                Ok(Some((listener, crowd))) => return self.hear(listener, crowd, target).await,
                Ok(None) => {
                    return Ended::Pooled(Unknown {
                        fault: Fault::Transient,
                        message: format!(
                            "{}: notifications do not arrive through this pooler",
                            target.shown
                        ),
                    });
                }
                Err(why) => last = Some(why),
            }
        }
        let why = last.unwrap_or_else(|| lost("there is no host"));
        Ended::Lost { heard: false, why }
    }

    /// A listener that is proven to hear, and how many there are; `None` where
    /// a pooler is in the way.
    async fn subscribe(&self, target: &Target) -> Result<Option<(PgListener, u32)>, Unknown> {
        let mut last = None;
        for mode in &target.tls {
            let options = target.options.clone().ssl_mode(*mode);
            let options = options.application_name(&self.application);
            match timeout(LIMIT * 2, self.subscribe_with(&options, target)).await {
                Ok(Ok(listener)) => return Ok(listener),
                Ok(Err(failure)) => last = Some(failure.unknown()),
                Err(_elapsed) => last = Some(lost(&format!("{}: no answer in time", target.shown))),
            }
        }
        Err(last.unwrap_or_else(|| lost("there is no way to connect")))
    }

    async fn subscribe_with(
        &self,
        options: &PgConnectOptions,
        target: &Target,
    ) -> Result<Option<(PgListener, u32)>, Failure> {
        let failed = |error: sqlx::Error| Failure::of(&error, target);
        let mark = format!("{:016x}", rand::random::<u64>());
        let marked = link::marked(options, &mark, LIMIT);
        let mut listener = match connect(&marked).await {
            Ok(listener) => listener,
            Err(error) if link::refuses_options(&error, target) => {
                connect(options).await.map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let channel = format!(
            "'leasewrap_' || md5({} || ' ' || {})",
            sql::text(self.settings.schema()),
            sql::text(self.name.as_str()),
        );
        let look = format!(
            "select {WRITABLE} as writable, {channel} as channel, pg_backend_pid() as pid, \
             coalesce(current_setting('leasewrap.session', true), '') as session, \
             {CROWD} as crowd"
        );
        let seen =
            Look::of(&collect(&mut listener, look).await.map_err(failed)?).map_err(failed)?;
        // What is written elsewhere is told there.
        if !seen.writable {
            return Err(cannot_be_written_to(target));
        }
        if seen.session == mark {
            // The session is ours: what it listens to, we hear.
            listener.listen(&seen.channel).await.map_err(failed)?;
            return Ok(Some((listener, seen.crowd)));
        }
        let heard = hears_through_pooler(&mut listener, options, &seen)
            .await
            .map_err(failed)?;
        Ok(heard.then_some((listener, seen.crowd)))
    }

    /// Passes notifications on until the connection is lost.
    async fn hear(&self, mut listener: PgListener, crowd: u32, target: &Target) -> Ended {
        self.mailbox.put(Notice::Connected);
        let mut crowd = crowd;
        let why = loop {
            match timeout(PING, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    // A crowd looks first, each in its turn.
                    let freed = freed(notification.payload()).filter(|_| crowd <= FEW);
                    let waited = if self.spread.load(Ordering::Relaxed) {
                        let_others_go(&mut listener, crowd, target).await
                    } else {
                        Ok(())
                    };
                    self.mailbox.put(Notice::Changed(freed));
                    if let Err(why) = waited {
                        break why;
                    }
                }
                Ok(Ok(None)) => break "the connection was closed".to_owned(),
                Ok(Err(error)) => break Failure::of(&error, target).unknown().message,
                Err(_idle) => {
                    crowd = match count_crowd(&mut listener, target).await {
                        Ok(count) => count,
                        Err(why) => break why,
                    };
                }
            }
        };
        Ended::Lost {
            heard: true,
            why: lost(&why),
        }
    }
}

/// What a notification says beside the slot, where it is a release
/// ([`sql::TELL_GIVEN`]).
fn freed(payload: &str) -> Option<Freed> {
    let mut words = payload.split(' ');
    let freed = Freed {
        slot: Slot(words.next()?.parse().ok()?),
        token: Token(words.next()?.parse().ok()?),
        revision: Revision(words.next()?.parse().ok()?),
    };
    words.next().is_none().then_some(freed)
}

/// Waits for a random while, the longer the more listen, and lets what is
/// heard meanwhile count as the same change.
async fn let_others_go(
    listener: &mut PgListener,
    crowd: u32,
    target: &Target,
) -> Result<(), String> {
    if crowd <= FEW {
        return Ok(());
    }
    let pause = (SPREAD * crowd).mul_f64(rand::random_range(0.0..1.0));
    let mut end = pin!(sleep(pause));
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            heard = listener.try_recv() => match heard {
                Ok(Some(_the_same)) => {}
                Ok(None) => return Err("the connection was closed".to_owned()),
                Err(error) => return Err(Failure::of(&error, target).unknown().message),
            },
        }
    }
}

/// How many sessions listen as we do, as far as we may see them.
const CROWD: &str = "(select count(*)::integer from pg_stat_activity a \
    where a.application_name = current_setting('application_name'))";

/// Counts them anew; it also finds out whether the connection lives.
async fn count_crowd(listener: &mut PgListener, target: &Target) -> Result<u32, String> {
    let sql = format!("select {CROWD} as crowd");
    let rows = match timeout(LIMIT, collect(&mut *listener, sql)).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(error)) => return Err(Failure::of(&error, target).unknown().message),
        Err(_elapsed) => return Err(format!("{}: no answer in time", target.shown)),
    };
    Ok(crowd(&rows))
}

fn crowd(rows: &Rows) -> u32 {
    let row = rows.iter().flatten().next();
    let count = row.and_then(|row| row.try_get::<i32, _>("crowd").ok());
    count
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1)
}

struct Look {
    writable: bool,
    channel: String,
    pid: i32,
    session: String,
    crowd: u32,
}

impl Look {
    fn of(rows: &Rows) -> Result<Self, sqlx::Error> {
        let row = rows
            .iter()
            .flatten()
            .next()
            .ok_or(sqlx::Error::RowNotFound)?;
        Ok(Self {
            writable: row.try_get("writable")?,
            channel: row.try_get("channel")?,
            pid: row.try_get("pid")?,
            session: row.try_get("session")?,
            crowd: crowd(rows),
        })
    }
}

/// A pooler in transaction mode gives each transaction any of the server's
/// sessions: to `LISTEN` in one would leave it listening for others, whose
/// statements then fail (sqlx expects no notification in an answer). So that
/// is done only where ours stays the same while another transaction holds
/// what the pooler would give us next; and it counts only when a notification
/// has really arrived.
async fn hears_through_pooler(
    listener: &mut PgListener,
    options: &PgConnectOptions,
    seen: &Look,
) -> Result<bool, sqlx::Error> {
    let pid = "select pg_backend_pid() as pid";
    let mut other = options.connect().await?;
    for _ in 0..ROUNDS {
        match collect(&mut other, "begin".to_owned()).await {
            Ok(_) => {}
            Err(error) if keeps_no_transaction(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        let others = first_pid(&collect(&mut other, pid.to_owned()).await?)?;
        let ours = match timeout(TURN, collect(&mut *listener, pid.to_owned())).await {
            Ok(rows) => first_pid(&rows?)?,
            // No session is left for us: it is certainly not kept for us.
            Err(_elapsed) => return Ok(false),
        };
        collect(&mut other, "commit".to_owned()).await?;
        if others == seen.pid || ours != seen.pid {
            return Ok(false);
        }
    }
    let probe = format!("leasewrap_probe_{:016x}", rand::random::<u64>());
    listener
        .listen_all([seen.channel.as_str(), probe.as_str()])
        .await?;
    collect(&mut other, format!("notify {probe}")).await?;
    let arrived = async {
        loop {
            match listener.try_recv().await {
                Ok(Some(notification)) if notification.channel() == probe => return Ok(true),
                // Of the lease: whoever hears "connected" reads it anyhow.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    };
    timeout(ARRIVAL, arrived).await.unwrap_or(Ok(false))
}

/// Whether PgBouncer is in statement mode, where each statement gets any of
/// the server's sessions (its `server.c`).
fn keeps_no_transaction(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.message().contains("statement pooling"))
}

fn first_pid(rows: &Rows) -> Result<i32, sqlx::Error> {
    rows.iter()
        .flatten()
        .next()
        .ok_or(sqlx::Error::RowNotFound)?
        .try_get("pid")
}

async fn connect(options: &PgConnectOptions) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // That it takes long is told by us, or by nobody.
        .acquire_slow_threshold(Duration::MAX)
        .acquire_timeout(LIMIT)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // The pool is ours alone and never closed; a lost connection is told.
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    Ok(listener)
}

fn lost(message: &str) -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_says_a_release_or_nothing_of_it() {
        let said = Freed {
            slot: Slot(1),
            token: Token(28_597_696),
            revision: Revision(3),
        };
        assert_eq!(freed("1 28597696 3"), Some(said));
        for other in [
            "",
            "1",
            "1 2",
            "1 2 3 4",
            "-1 2 3",
            "1 2 x",
            "1  2 3",
            "1 2 9223372036854775808",
        ] {
            assert_eq!(freed(other), None, "{other}");
        }
    }
}
