//! The faults, one function each: what is done to a holder while a standby
//! waits.

use std::time::Duration;

use tokio::time::sleep;

use super::contender::Contender;
use super::judge::{HandOver, Verdict, millis_between};
use super::proxy::Proxy;
use super::scene::{Scene, ticks};
use super::witness::{DAEMON, STUBBORN};
use super::{Bench, CALL_LIMIT, Trouble};
use crate::store::AnyStore;
use crate::store::selftest::{NoHop, SelfTest as _, TestLease};
use crate::sys::clock;

/// One fault of the contract's first promise that a client can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    ClockBack,
    ClockAhead,
    CutConnection,
    KeeperSigstop,
    StolenRow,
    GuardSigstop,
    DaemonIgnoresTerm,
    KeeperSigkill,
    KeeperCrash,
    GuardSigkill,
    Term,
    CleanEnd,
}

/// A step of a wall clock, in seconds.
const HOUR: i64 = 3600;

/// How long an end that is due may take.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Both of the worker's processes: one of them has left for a session of its
/// own, and neither listens to TERM.
const TREE: [&str; 2] = [DAEMON, STUBBORN];

/// What was seen of a fault.
#[derive(Debug)]
pub struct Seen {
    /// The change of holder.
    pub hand_over: HandOver,
    /// What the old leasewrap ended with.
    pub exit_code: u8,
    /// How the standby came to its right: `released`, `silent` and others, as
    /// in its log.
    pub basis: String,
    /// For people.
    pub note: String,
}

impl Fault {
    /// In the order in which they are begun: what takes longest goes first.
    pub const ALL: [Self; 12] = [
        Self::ClockBack,
        Self::ClockAhead,
        Self::CutConnection,
        Self::KeeperSigstop,
        Self::StolenRow,
        Self::GuardSigstop,
        Self::DaemonIgnoresTerm,
        Self::KeeperSigkill,
        Self::KeeperCrash,
        Self::GuardSigkill,
        Self::Term,
        Self::CleanEnd,
    ];

    /// In the order in which they are shown.
    pub const SHOWN: [Self; 12] = [
        Self::CleanEnd,
        Self::Term,
        Self::KeeperSigkill,
        Self::KeeperCrash,
        Self::KeeperSigstop,
        Self::GuardSigkill,
        Self::GuardSigstop,
        Self::DaemonIgnoresTerm,
        Self::CutConnection,
        Self::StolenRow,
        Self::ClockAhead,
        Self::ClockBack,
    ];

    /// Its name, for machines too.
    pub fn name(self) -> &'static str {
        match self {
            Self::CleanEnd => "clean-end",
            Self::Term => "term",
            Self::KeeperSigkill => "keeper-sigkill",
            Self::KeeperCrash => "keeper-crash",
            Self::KeeperSigstop => "keeper-sigstop",
            Self::GuardSigkill => "guard-sigkill",
            Self::GuardSigstop => "guard-sigstop",
            Self::DaemonIgnoresTerm => "daemon-ignores-term",
            Self::CutConnection => "cut-connection",
            Self::StolenRow => "stolen-row",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBack => "clock-back",
        }
    }

    /// What is done.
    pub fn words(self) -> &'static str {
        match self {
            Self::CleanEnd => "the worker ends by itself",
            Self::Term => "TERM to leasewrap",
            Self::KeeperSigkill => "SIGKILL to leasewrap",
            Self::KeeperCrash => "leasewrap crashes (SIGABRT)",
            Self::KeeperSigstop => "SIGSTOP to leasewrap",
            Self::GuardSigkill => "SIGKILL to the guard",
            Self::GuardSigstop => "SIGSTOP to the guard whenever it is woken",
            Self::DaemonIgnoresTerm => "TERM; the worker daemonizes and ignores it",
            Self::CutConnection => "the line to the database is cut",
            Self::StolenRow => "the row is given to somebody else by SQL",
            Self::ClockAhead => "host lost; a database clock 1h ahead",
            Self::ClockBack => "host lost; a database clock 1h back",
        }
    }

    /// What the old leasewrap may end with.
    pub fn exit_codes(self) -> &'static [u8] {
        match self {
            Self::CleanEnd => &[0],
            Self::Term => &[143],
            Self::KeeperSigkill | Self::DaemonIgnoresTerm | Self::ClockAhead | Self::ClockBack => {
                &[137]
            }
            Self::KeeperCrash => &[134],
            // It is woken once its worker is dead, or its timer ends it.
            Self::KeeperSigstop => &[122, 137],
            Self::GuardSigkill => &[125],
            Self::GuardSigstop => &[122, 125],
            Self::CutConnection | Self::StolenRow => &[122],
        }
    }

    /// Its own host can see it: the lease is given back, and nobody has to
    /// watch it.
    pub fn is_seen_by_the_host(self) -> bool {
        !matches!(
            self,
            Self::CutConnection | Self::StolenRow | Self::ClockAhead | Self::ClockBack
        )
    }

    /// Causes it, and waits for the standby's worker.
    pub async fn cause(self, bench: &Bench, lease: &TestLease) -> Result<Seen, Trouble> {
        let scene = Scene::new(bench, lease)?;
        match self {
            Self::CleanEnd => signalled(scene, &[], end).await,
            Self::Term => signalled(scene, &[], |holder| holder.signal(libc::SIGTERM)).await,
            Self::KeeperSigkill => {
                signalled(scene, &TREE, |holder| holder.signal(libc::SIGKILL)).await
            }
            Self::KeeperCrash => {
                signalled(scene, &TREE, |holder| holder.signal(libc::SIGABRT)).await
            }
            Self::KeeperSigstop => {
                signalled(scene, &TREE, |holder| holder.signal(libc::SIGSTOP)).await
            }
            Self::GuardSigkill => {
                let kill = |holder: &mut Contender| holder.guard()?.signal(libc::SIGKILL);
                signalled(scene, &TREE, kill).await
            }
            Self::DaemonIgnoresTerm => {
                signalled(scene, &TREE, |holder| holder.signal(libc::SIGTERM)).await
            }
            Self::GuardSigstop => guard_sigstop(scene).await,
            Self::CutConnection => cut_connection(scene).await,
            Self::StolenRow => stolen_row(scene).await,
            Self::ClockAhead => lost_host(scene, HOUR).await,
            Self::ClockBack => lost_host(scene, -HOUR).await,
        }
    }

    /// What to say of a hand-over beside its figures.
    pub fn judge(self, seen: &Seen) -> (Verdict, String) {
        let verdict = Verdict::of(seen.hand_over);
        if verdict == Verdict::Holds && !self.exit_codes().contains(&seen.exit_code) {
            let note = format!(
                "leasewrap ended with {}, and not with {:?}",
                seen.exit_code,
                self.exit_codes()
            );
            return (Verdict::Failed, note);
        }
        let mut note = seen.note.clone();
        if self.is_seen_by_the_host() && seen.basis != "released" {
            note = format!("the lease was not given back ({})", seen.basis);
        }
        (verdict, note)
    }
}

fn end(holder: &mut Contender) -> Result<(), Trouble> {
    holder.let_the_worker_end();
    Ok(())
}

/// Something happens at once.
async fn signalled(
    mut scene: Scene<'_>,
    worker: &[&str],
    cause: impl FnOnce(&mut Contender) -> Result<(), Trouble>,
) -> Result<Seen, Trouble> {
    let database = scene.bench.database.clone();
    let (mut holder, _) = scene.hold(&database, worker).await?;
    let standby = scene.stand_by().await?;
    cause(&mut holder)?;
    finish(&mut scene, holder, standby).await
}

/// The guard is stopped whenever it runs: it must be given up.
async fn guard_sigstop(mut scene: Scene<'_>) -> Result<Seen, Trouble> {
    let database = scene.bench.database.clone();
    let (mut holder, _) = scene.hold(&database, &TREE).await?;
    let standby = scene.stand_by().await?;
    let guard = holder.guard()?;
    let limit = clock::now() + scene.bench.take_over_limit();
    let mut looks = ticks();
    while !holder.has_ended() && clock::now() < limit {
        guard.stop();
        looks.tick().await;
    }
    finish(&mut scene, holder, standby).await
}

/// The holder's line is cut: its database hears nothing of it any more.
async fn cut_connection(mut scene: Scene<'_>) -> Result<Seen, Trouble> {
    let hops = scene.bench.settings.hops().map_err(|why| match why {
        NoHop::NoLine | NoHop::Verified => Trouble::NoSuchFault(why.to_string()),
        NoHop::Settings(_) => Trouble::Proxy(why.to_string()),
    })?;
    let proxy = Proxy::before(&hops).await;
    let proxy = proxy.map_err(|error| Trouble::Proxy(error.to_string()))?;
    let database = scene.bench.database.by(proxy.urls().to_vec());
    let (holder, _) = scene.hold(&database, &TREE).await?;
    let standby = scene.stand_by().await?;
    proxy.cut();
    finish(&mut scene, holder, standby).await
}

/// Another holder stands in the row: the worker is killed at once.
async fn stolen_row(mut scene: Scene<'_>) -> Result<Seen, Trouble> {
    let database = scene.bench.database.clone();
    let (holder, token) = scene.hold(&database, &TREE).await?;
    let standby = scene.stand_by().await?;
    let lease = scene.lease;
    let mut store = store(scene.bench, lease);
    // Before it is sent: the holder may see it sooner than its answer is here.
    let at = clock::now();
    let stolen = store.steal(lease, CALL_LIMIT).await;
    changed("change the lease's row", stolen)?;
    let mut seen = finish(&mut scene, holder, standby).await?;
    if let Some(last) = scene.last_of(token)? {
        let lived = millis_between(at, last.at).max(0.0);
        seen.note = format!("the worker was dead within {lived} ms of the theft");
    }
    Ok(seen)
}

/// A host that is lost, for the database: both processes stand still, and are
/// killed before one of them could give the lease back; so the row has to be
/// watched. Meanwhile the worker lives on, and the row shows a database clock
/// that was stepped: whoever trusted it would start a second worker.
async fn lost_host(mut scene: Scene<'_>, seconds: i64) -> Result<Seen, Trouble> {
    let database = scene.bench.database.clone();
    let (holder, _) = scene.hold(&database, &[]).await?;
    let standby = scene.stand_by().await?;
    let guard = holder.guard()?;
    // The keeper first: it would wake its guard.
    holder.signal(libc::SIGSTOP)?;
    guard.signal(libc::SIGSTOP)?;
    // Well before the deadline, from when on the guard acts although it was
    // stopped, and after some polls of the standby's.
    let lost_at = clock::now() + scene.bench.ttl / 2;
    let lease = scene.lease;
    let mut store = store(scene.bench, lease);
    let stepped = store.step_clock(lease, seconds, CALL_LIMIT).await;
    changed("change the lease's row", stepped)?;
    sleep(lost_at.saturating_since(clock::now())).await;
    // The guard first: the keeper's end would wake it.
    guard.signal(libc::SIGKILL)?;
    holder.signal(libc::SIGKILL)?;
    finish(&mut scene, holder, standby).await
}

/// The lease passes on, and everybody ends.
async fn finish(
    scene: &mut Scene<'_>,
    mut holder: Contender,
    mut standby: Contender,
) -> Result<Seen, Trouble> {
    let limit = scene.bench.take_over_limit();
    scene.handed_over(&mut standby, limit).await?;
    let exit_code = holder.end(END_LIMIT).await?;
    standby.let_the_worker_end();
    standby.end(END_LIMIT).await?;
    // Once more: whoever should not have lived has had more time to show it.
    let hand_over = scene
        .judged()?
        .ok_or_else(|| standby.not_seen("the standby's worker"))?;
    let basis = standby
        .said("acquired")
        .and_then(|line| line["basis"].as_str().map(str::to_owned));
    Ok(Seen {
        hand_over,
        exit_code,
        basis: basis.unwrap_or_default(),
        note: String::new(),
    })
}

fn store(bench: &Bench, lease: &TestLease) -> AnyStore {
    AnyStore::new(bench.settings.clone(), lease.name().clone(), clock::now)
}

fn changed(
    what: &'static str,
    done: Result<bool, crate::lease::record::Unknown>,
) -> Result<(), Trouble> {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(Trouble::Store {
            what,
            said: "nobody holds it any more".to_owned(),
        }),
        Err(unknown) => Err(Trouble::Store {
            what,
            said: unknown.message,
        }),
    }
}
