//! Many leases through a synchronous fail-over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasewrap::lease::ids::Revision;
use leasewrap::lease::record::Term;
use leasewrap::store::{Store as _, StoreSettings};
use rand::RngExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::contender::{Bench, LIMIT, settings};
use crate::load::runtime;
use crate::simulated::{self, News};
use crate::support::server::{Options, Server, Stop};

/// How many leases, in turn.
const LEASES: [usize; 2] = [500, 2_000];
/// Until somebody has noticed that the primary is dead, and decided: then the
/// standby is promoted.
const NOTICED: Duration = Duration::from_secs(5);
/// The longest silence that is not a failure of this measurement.
const SILENCE: Duration = Duration::from_secs(60);

/// A primary whose commits wait for its standby.
struct Pair {
    primary: Server,
    standby: Server,
}

impl Pair {
    fn start() -> Self {
        let options = || {
            Options::default()
                .set("shared_buffers", "128MB")
                .set("max_connections", "4500")
        };
        let primary = Server::with(options());
        // It has nobody to wait for, once it is promoted.
        let standby = primary.replica(options().set("synchronous_standby_names", ""));
        primary.psql("alter system set synchronous_standby_names = '*'");
        primary.psql("select pg_reload_conf()");
        // Not a superuser: a few connections are kept for those.
        primary.psql("create role app login; grant create on database postgres to app");
        Self { primary, standby }
    }

    fn settings(&self) -> StoreSettings {
        let (one, two) = (self.primary.port(), self.standby.port());
        let hosts = format!("127.0.0.1:{one},127.0.0.1:{two}");
        let url = format!("postgres://app@{hosts}/postgres?target_session_attrs=read-write");
        settings(&url, "leasewrap")
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
    /// Since the last [`Books::turn`].
    renewals: u32,
    listening: u32,
}

/// What was heard of all leases.
struct Books {
    heard: UnboundedReceiver<(usize, News)>,
    accounts: Vec<Account>,
    moved: usize,
    lost: Vec<String>,
}

impl Books {
    /// Hears until it is so for every lease, and since when.
    async fn hear_until(&mut self, enough: impl Fn(&Account) -> bool) -> Instant {
        while !self.accounts.iter().all(&enough) && self.lost.is_empty() {
            let news = timeout(SILENCE, self.heard.recv()).await;
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
            News::IncarnationChanged => self.moved += 1,
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

/// Each number in turn.
pub fn measure() {
    println!("\nleases through a synchronous fail-over, two connections each; the standby is");
    println!("promoted {NOTICED:?} after the primary's death; seconds, counted from that death");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>18} {:>8} {:>6}",
        "leases",
        "connections",
        "promoted",
        "all renewed",
        "all listen",
        "between renewals",
        "before",
        "lost"
    );
    for leases in LEASES {
        runtime().block_on(through(Pair::start(), leases));
    }
}

async fn through(pair: Pair, leases: usize) {
    let settings = pair.settings();
    let first = Bench::new(settings.clone());
    first.store().init(LIMIT).await.expect("set up");
    let mut books = begin(&settings, leases);
    let begun = |account: &Account| account.renewals >= 2 && account.listening >= 1;
    books.hear_until(begun).await;
    let before = books.turn();
    let ask = "select count(*) from pg_stat_activity where usename = 'app'";
    let connections = pair.primary.psql(ask);

    // Blocks: not in this thread, which all the simulated ones share.
    let died = Instant::now();
    let fail_over = tokio::task::spawn_blocking(move || {
        pair.primary.stop(Stop::Kill);
        std::thread::sleep(NOTICED.saturating_sub(died.elapsed()));
        pair.standby.promote();
        (pair, died.elapsed())
    });
    let renewed = books.hear_until(|account| account.renewals >= 1).await - died;
    let listening = books.hear_until(|account| account.listening >= 1).await - died;
    books.hear_until(|account| account.renewals >= 3).await;
    let (pair, promoted) = fail_over.await.expect("promoted");
    let (across, lost) = (books.turn(), books.lost.len());
    println!(
        "{leases:>8} {connections:>12} {:>12.1} {:>12.1} {:>12.1} {:>18.1} {:>8.1} {lost:>6}",
        promoted.as_secs_f64(),
        renewed.as_secs_f64(),
        listening.as_secs_f64(),
        across.as_secs_f64(),
        before.as_secs_f64(),
    );
    assert_eq!(books.lost, Vec::<String>::new());
    assert_eq!(books.moved, leases, "each has seen the new timeline");
    let held = "select name, holder, token from leasewrap.lease where released_at is null \
                and closed_token is null and changes = 1 and incarnation = leasewrap.incarnation()";
    let rows: BTreeSet<String> = pair.standby.psql(held).lines().map(str::to_owned).collect();
    assert!(
        rows == books.rows(),
        "held by the same, under the same token"
    );
}

/// Leases that are taken one after the other, as hosts start.
fn begin(settings: &StoreSettings, leases: usize) -> Books {
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
        });
        let (config, news) = (Arc::clone(&config), news.clone());
        let spread = config
            .timing
            .ttl()
            .mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::spawn(async move {
            sleep(spread).await;
            simulated::hold(lease, bench, config, news).await;
        });
    }
    Books {
        heard,
        accounts,
        moved: 0,
        lost: Vec::new(),
    }
}
