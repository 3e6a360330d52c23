//! Many leases through a synchronous fail-over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasewrap::lease::ids::Revision;
use leasewrap::lease::record::Term;
use leasewrap::store::{Store as _, StoreSettings};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout_at};

use crate::bouncer::Bouncer;
use crate::contender::{Bench, LIMIT, settings};
use crate::load::runtime;
use crate::simulated::{self, News};
use crate::support::server::{Options, Server, Stop};

/// How many leases with connections of their own, two each: twice as many
/// sessions of the server.
const DIRECT: usize = 500;
/// How many behind PgBouncer, which spares the server the sessions.
const POOLED: usize = 2_000;
/// Until somebody has noticed that the primary is dead, and decided: then the
/// standby is promoted.
const NOTICED: Duration = Duration::from_secs(5);
/// Hosts start one after the other.
const APART: Duration = Duration::from_millis(30);
/// How often it is looked whether this process itself is late.
const TICK: Duration = Duration::from_millis(10);
/// What takes longer is a failure of this measurement.
const LONGEST: Duration = Duration::from_secs(300);

/// A database server, and the pooler on its host.
struct Host {
    server: Server,
    bouncer: Option<Bouncer>,
}

/// A primary whose commits wait for its standby.
struct Pair {
    primary: Host,
    standby: Host,
}

impl Pair {
    fn start(pooled: bool) -> Self {
        let sessions = if pooled { "100" } else { "1100" };
        let options = || {
            Options::default()
                .set("shared_buffers", "128MB")
                .set("max_connections", sessions)
        };
        let host = |server: Server| {
            let more = "max_client_conn = 5000\ndefault_pool_size = 20\n";
            let bouncer = pooled.then(|| Bouncer::start(&server, "transaction", more));
            Host { server, bouncer }
        };
        let primary = host(Server::with(options()));
        // It has nobody to wait for, once it is promoted.
        let replica = options().set("synchronous_standby_names", "");
        let standby = host(primary.server.replica(replica));
        let confirmed = "alter system set synchronous_standby_names = '*'";
        primary.server.psql(confirmed);
        primary.server.psql("select pg_reload_conf()");
        Self { primary, standby }
    }

    fn settings(&self) -> StoreSettings {
        let (one, two) = (self.primary.port(), self.standby.port());
        let hosts = format!("127.0.0.1:{one},127.0.0.1:{two}");
        let url = format!("postgres://postgres@{hosts}/postgres?target_session_attrs=read-write");
        settings(&url, "leasewrap")
    }

    /// The whole host of the primary is lost. Returns when it was.
    fn fail_over(&mut self) -> (Instant, Duration) {
        let died = Instant::now();
        if let Some(bouncer) = &mut self.primary.bouncer {
            bouncer.kill();
        }
        self.primary.server.stop(Stop::Kill);
        std::thread::sleep(NOTICED.saturating_sub(died.elapsed()));
        self.standby.server.promote();
        (died, died.elapsed())
    }
}

impl Host {
    fn port(&self) -> u16 {
        match &self.bouncer {
            Some(bouncer) => bouncer.port,
            None => self.server.port(),
        }
    }
}

/// What was heard of one lease.
struct Account {
    name: String,
    term: Option<Term>,
    revision: Revision,
    /// When the last renewal was granted; the longest time between two.
    renewed_at: Option<Instant>,
    longest: Duration,
    /// Since the last [`Books::turn`], as the notices that notifications arrive.
    renewals: u32,
    listening: u32,
    /// A renewal was granted on the promoted server.
    moved: bool,
}

/// What was heard of all leases.
struct Books {
    heard: UnboundedReceiver<(usize, News)>,
    accounts: Vec<Account>,
    lost: Vec<String>,
}

impl Books {
    /// Hears until it is so for every lease, and since when.
    async fn hear_until(&mut self, enough: impl Fn(&Account) -> bool) -> Instant {
        let end = tokio::time::Instant::now() + LONGEST;
        while !self.accounts.iter().all(&enough) && self.lost.is_empty() {
            let news = timeout_at(end, self.heard.recv()).await;
            let (lease, news) = news.expect("something happens").expect("they live");
            self.note(lease, news, Instant::now());
        }
        Instant::now()
    }

    fn note(&mut self, lease: usize, news: News, at: Instant) {
        let account = &mut self.accounts[lease];
        match news {
            News::Acquired(term) => {
                assert!(account.term.is_none(), "{}: taken twice", account.name);
                account.term = Some(term);
            }
            News::Renewed(grant) => {
                let term = account.term.as_ref().expect("acquired first");
                assert_eq!(grant.token, term.token, "{}", account.name);
                // Nothing that was granted has got lost.
                assert!(grant.revision > account.revision, "{}", account.name);
                account.revision = grant.revision;
                let since = account.renewed_at.replace(at).unwrap_or(at);
                account.longest = account.longest.max(at - since);
                account.renewals += 1;
            }
            News::IncarnationChanged => account.moved = true,
            News::Listening => account.listening += 1,
            News::Lost(how) => self.lost.push(format!("{}: {how}", account.name)),
        }
    }

    /// The longest time between two renewals of a lease so far; from now on
    /// everything is counted anew.
    fn turn(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for account in &mut self.accounts {
            longest = longest.max(std::mem::take(&mut account.longest));
            (account.renewals, account.listening) = (0, 0);
        }
        longest
    }

    /// Every row, as the leases know it.
    fn rows(&self) -> BTreeSet<String> {
        let row = |account: &Account| {
            let term = account.term.as_ref().expect("acquired");
            format!("{}|{}|{}", account.name, term.holder, term.token)
        };
        self.accounts.iter().map(row).collect()
    }
}

/// Without and with poolers.
pub fn measure() {
    println!(
        "\nleases with a ttl of 30 s through a synchronous fail-over: the primary's host dies, its"
    );
    println!("standby is promoted {NOTICED:?} later; all counted from that death");
    for (leases, pooled) in [(POOLED, true), (DIRECT, false)] {
        runtime().block_on(through(Pair::start(pooled), leases, pooled));
    }
}

async fn through(mut pair: Pair, leases: usize, pooled: bool) {
    let settings = pair.settings();
    let first = Bench::new(settings.clone());
    first.store().init(LIMIT).await.expect("set up");
    let mut books = begin(&settings, leases, !pooled);
    // No notification comes through a pooler.
    let listens = |account: &Account| pooled || account.listening >= 1;
    books
        .hear_until(|account| account.renewals >= 2 && listens(account))
        .await;
    let before = books.turn();
    let ask = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
    let sessions = pair.primary.server.psql(ask);

    // Blocks: not in this thread, which all the simulated ones share.
    let late = Arc::new(AtomicU64::new(0));
    let meter = tokio::spawn(lateness(Arc::clone(&late)));
    let fail_over = tokio::task::spawn_blocking(move || (pair.fail_over(), pair));
    let renewed = books.hear_until(|account| account.moved).await;
    let listening = books.hear_until(listens).await;
    let ((died, promoted), pair) = fail_over.await.expect("promoted");
    books
        .hear_until(|account| account.moved && account.renewals >= 3)
        .await;
    meter.abort();
    let (across, lost) = (books.turn(), books.lost.len());
    let how = if pooled {
        "behind PgBouncer".to_owned()
    } else {
        let heard = (listening - died).as_secs_f64();
        format!("with two connections each (all hear again after {heard:.1} s)")
    };
    println!(
        "{leases} leases {how}, {sessions} sessions of the server: promoted after {:.1} s, all \
         renewed after {:.1} s;\n    at most {:.1} s between two renewals of a lease ({:.1} s before); \
         this process was late by {} ms at most; {lost} lost",
        promoted.as_secs_f64(),
        (renewed - died).as_secs_f64(),
        across.as_secs_f64(),
        before.as_secs_f64(),
        late.load(Ordering::Relaxed),
    );
    assert_eq!(books.lost, Vec::<String>::new());
    let held = "select name, holder, token from leasewrap.lease where released_at is null \
                and closed_token is null and changes = 1 and incarnation = leasewrap.incarnation()";
    let rows = pair.standby.server.psql(held);
    let rows: BTreeSet<String> = rows.lines().map(str::to_owned).collect();
    assert!(
        rows == books.rows(),
        "held by the same, under the same token"
    );
}

/// By how many milliseconds the thread that all simulated ones share was late
/// at the most: hosts of their own would not wait for each other.
async fn lateness(late: Arc<AtomicU64>) {
    loop {
        let due = Instant::now() + TICK;
        sleep(TICK).await;
        let millis = due.elapsed().as_millis();
        late.fetch_max(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Leases that are taken one after the other, as hosts start.
fn begin(settings: &StoreSettings, leases: usize, listens: bool) -> Books {
    let config = Arc::new(simulated::config());
    let (news, heard) = unbounded_channel();
    let mut accounts = Vec::new();
    for lease in 0..leases {
        let bench = Bench::new(settings.clone());
        accounts.push(Account {
            name: bench.name.to_string(),
            term: None,
            revision: Revision(0),
            renewed_at: None,
            longest: Duration::ZERO,
            renewals: 0,
            listening: 0,
            moved: false,
        });
        let (config, news) = (Arc::clone(&config), news.clone());
        let start = APART * u32::try_from(lease).expect("a few thousand");
        tokio::spawn(async move {
            sleep(start).await;
            simulated::hold(lease, bench, config, listens, news).await;
        });
    }
    Books {
        heard,
        accounts,
        lost: Vec::new(),
    }
}
