//! The files that SQLite and leasewrap have of a database: by which name, beside
//! it, and whose.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use leasewrap::lease::ids::Token;
use leasewrap::lease::record::{Acquired, Fault, Renewed};
use leasewrap::store::admin::Admin;
use leasewrap::store::{Notice, Store, Watch};
use tokio::time::{sleep, timeout};

use crate::bench::{Bench, LIMIT, granted, run};
use crate::sqlite::{bench, bench_at, by_hand, path, refused, sql};
use crate::support::installation::checked;
use crate::support::leasewrap::{holder, leasewrap};
use crate::support::run::run as test_run;
use crate::support::user::{by_nobody, is_root};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// What lies beside the file while somebody has it open, or was killed.
fn rest(path: &Path) -> Vec<PathBuf> {
    let rest = ["-wal", "-shm"].map(|suffix| beside(path, suffix));
    rest.into_iter().filter(|path| path.exists()).collect()
}

async fn told(watch: &mut impl Watch) -> Notice {
    timeout(LIMIT, watch.next())
        .await
        .expect("a notice in time")
}

#[test]
fn a_file_with_two_names_is_refused() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        let second = beside(&path, "-second");
        fs::hard_link(&path, &second).expect("linked");
        for bench in [&bench, &bench_at(&second)] {
            let said = refused(bench).await;
            assert!(
                said.fault == Fault::Final && said.message.contains("2 names"),
                "{said:?}"
            );
            let init = bench.store().init(LIMIT).await.expect_err("it must stay");
            assert_eq!(init.message, said.message);
        }
        // Nobody else can have come by another name.
        granted(one.renew(&term).await);
        fs::remove_file(&second).expect("removed");
        assert_eq!(bench.contender("two").record(0).await.token, term.token);
    });
}

#[test]
fn a_symbolic_link_is_the_file_that_it_leads_to() {
    let path = path();
    let link = test_run().directory("sqlite-link").join("link.db");
    symlink(&path, &link).expect("linked");
    let by_link = bench_at(&link);
    run(async {
        let mut watch = by_link.store().watch();
        assert_eq!(told(&mut watch).await, Notice::Connected);
        let mut one = bench_at(&path).contender("one");
        one.store.init(LIMIT).await.expect("set up");
        assert!(matches!(
            told(&mut watch).await,
            Notice::Changed(_) | Notice::Connected
        ));
        assert!(beside(&path, "-wake").exists() && !beside(&link, "-wake").exists());
        // Somewhere else, it is another file.
        let mut two = by_link.contender("two");
        let before = two.observe().await.server.incarnation;
        let elsewhere = self::path();
        bench_at(&elsewhere)
            .store()
            .init(LIMIT)
            .await
            .expect("set up");
        let next = link.with_extension("next");
        symlink(&elsewhere, &next).expect("linked");
        fs::rename(&next, &link).expect("turned");
        assert_ne!(two.observe().await.server.incarnation, before);
    });
}

/// Those of one process have to be closed before it opens new ones: it would
/// read these by what it still has of the old.
#[test]
fn what_is_beside_the_file_is_made_anew() {
    for suffixes in [&["-wal", "-shm"][..], &["-wal"], &["-shm"]] {
        let (bench, path) = bench();
        run(async {
            let mut one = bench.contender("one");
            let (term, _) = one.take(0).await;
            one.store.get_ready(LIMIT).await;
            let renewed = one.renewed(&term).await;
            let mut watch = bench.store().watch();
            assert_eq!(told(&mut watch).await, Notice::Connected);
            for suffix in suffixes {
                fs::remove_file(beside(&path, suffix)).expect("removed");
            }
            let noticed = told(&mut watch).await;
            assert!(
                matches!(noticed, Notice::Changed(_) | Notice::Connected),
                "{suffixes:?}: {noticed:?}"
            );
            let again = one.renewed(&term).await;
            assert_eq!(rest(&path).len(), 2, "{suffixes:?}");
            // What was removed with it may be lost, a renewal here.
            let counted = again.revision.0 - renewed.revision.0;
            assert_eq!(counted, i64::from(*suffixes == ["-shm"]), "{suffixes:?}");
            let seen = bench.contender("two").record(0).await;
            assert_eq!(seen.revision, again.revision);
        });
    }
}

/// As a standby in a long precheck, or a holder that waits for a hook.
#[test]
fn who_closes_what_was_removed_leaves_the_file_as_others_made_it() {
    for in_order in [true, false] {
        let (bench, path) = bench();
        let mut idle = bench.contender("idle");
        run(idle.observe());
        // Of other processes: in this one SQLite would share what is open.
        let next = || {
            let url = format!("sqlite:{}", path.display());
            let next = holder(&url, bench.name.as_str()).ttl("1s");
            let out = next.sh("echo $LEASEWRAP_TOKEN").run().code(0).out;
            out.trim().parse::<i64>().expect("a token")
        };
        let first = next();
        for suffix in ["-wal", "-shm"] {
            fs::remove_file(beside(&path, suffix)).expect("removed");
        }
        // A release was lost by that, but no acquisition.
        let (second, last) = (next(), next());
        assert!(first < second && second < last);
        run(async {
            if in_order {
                idle.store.close(LIMIT).await;
            } else {
                drop(idle);
                closed(&path).await;
            }
            let mut look = by_hand(&path).await;
            let row: (String, i64) =
                sqlx::query_as("select integrity_check, token from pragma_integrity_check, lease")
                    .fetch_one(&mut look)
                    .await
                    .expect("asked");
            assert_eq!(row, ("ok".to_owned(), last));
            drop(look);
            closed(&path).await;
        });
        // It may be barred no longer than that.
        run(async {
            let mut one = bench.contender("one");
            one.observe().await;
            one.store.close(LIMIT).await;
            assert!(rest(&path).is_empty());
        });
    }
}

#[test]
fn a_file_that_was_replaced_is_not_kept_open() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        one.observe().await;
        let next = path.with_extension("next");
        bench_at(&next).store().init(LIMIT).await.expect("set up");
        for path in rest(&path) {
            fs::remove_file(path).expect("removed");
        }
        fs::rename(&next, &path).expect("replaced");
        one.store.close(LIMIT).await;
        assert_eq!(open(&path), Vec::<PathBuf>::new());
        // Nor is the next one.
        one.observe().await;
        one.store.close(LIMIT).await;
        assert_eq!(open(&path), Vec::<PathBuf>::new());
    });
}

/// What this process has open of the file and beside it.
fn open(path: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc/self/fd").expect("read").flatten();
    let names = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    let path = path.to_string_lossy();
    names
        .filter(|name| name.to_string_lossy().starts_with(&*path))
        .collect()
}

/// Waits until this process has nothing open beside the file.
async fn closed(path: &Path) {
    let beside = format!("{}-", path.display());
    let wait = async {
        let is_beside = |name: &PathBuf| name.to_string_lossy().starts_with(&beside);
        while open(path).iter().any(is_beside) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("it is closed");
}

#[test]
fn what_is_left_beside_the_file_may_be_deleted() {
    let (bench, path) = bench();
    assert!(rest(&path).is_empty(), "init has closed it");
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        one.store.get_ready(LIMIT).await;
        assert_eq!(alone(&bench, &path).await, Some(term.token));
        let name = bench.name.clone();
        one.store.pause(&name, "", LIMIT).await.expect("paused");
        one.store.close(LIMIT).await;
        assert!(rest(&path).is_empty());
        let seen = bench.store().status(Some(&bench.name), LIMIT).await;
        assert!(seen.expect("it can be read").value[0].paused.is_some());
    });
}

/// A worker that runs for so long has its lease watched, over a connection
/// that may be the last one.
#[test]
fn a_run_leaves_nothing_beside_the_file() {
    let path = path();
    let url = format!("sqlite:{}", path.display());
    for _ in 0..10 {
        holder(&url, "short").sh("sleep 0.2").run().code(0);
        assert!(rest(&path).is_empty());
    }
}

/// The token that is in the file itself, as after a crash and the loss of what
/// lies beside it.
async fn alone(bench: &Bench, path: &Path) -> Option<Token> {
    let left = test_run().directory("sqlite-left").join("leases.db");
    // In a process of its own: here, its end would drop SQLite's locks.
    checked(Command::new("cp").args([path, &left]));
    let mut store = bench_at(&left).store();
    let seen = store.status(Some(&bench.name), LIMIT).await;
    let seen = seen.expect("it can be read").value;
    seen.first().map(|lease| lease.slots[0].record.token)
}

#[test]
fn what_is_taken_is_put_into_the_file_once_nobody_reads() {
    let (bench, path) = bench();
    run(async {
        let mut reader = by_hand(&path).await;
        let mut one = bench.contender("one");
        let begin = "begin; select * from lease";
        sql(&mut reader, begin).await.expect("begun");
        let (term, grant) = one.take(0).await;
        assert_eq!(alone(&bench, &path).await, None, "he is not waited for");
        // What has failed is not done: that call has left no connection.
        let mut blocker = by_hand(&path).await;
        sql(&mut blocker, "begin immediate").await.expect("locked");
        let (terms, limit) = (one.terms.clone(), Duration::from_millis(500));
        let renewed = one.store.renew(&term, &terms, limit).await.reply;
        assert!(matches!(renewed, Renewed::Unknown(_)), "{renewed:?}");
        one.store.get_ready(LIMIT).await;
        sql(&mut blocker, "rollback").await.expect("unlocked");
        sql(&mut reader, "commit").await.expect("ended");
        one.renewed(&term).await;
        one.store.get_ready(LIMIT).await;
        assert_eq!(alone(&bench, &path).await, Some(term.token));
        one.release(&term, &grant).await;
        sql(&mut reader, begin).await.expect("begun");
        let seen = one.observe().await;
        let request = one.request(&seen, 0);
        let taken = one.store.acquire(&request, LIMIT).await.reply;
        let Acquired::Granted(grant) = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(alone(&bench, &path).await, Some(term.token));
        sql(&mut reader, "commit").await.expect("ended");
        let settled = bench.store().settle(&request, LIMIT).await.reply;
        assert_eq!(granted(settled).token, grant.token);
        assert_eq!(alone(&bench, &path).await, Some(grant.token));
    });
}

#[test]
fn containers_of_the_host_leave_it_its_file() {
    let own = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let own = own.trim();
    if own.is_empty() {
        // A host that has no name cannot tell.
        return;
    }
    let (bench, path) = bench();
    run(async {
        let mut other = by_hand(&path).await;
        let machines = async || {
            let mut look = by_hand(&path).await;
            let row: (String,) = sqlx::query_as("select machine from lease_schema")
                .fetch_one(&mut look)
                .await
                .expect("asked");
            row.0
        };
        assert_eq!(machines().await, own);
        // One of them has made it, and the host comes in the same boot.
        let container = "update lease_schema set machine = 'abcdef'";
        sql(&mut other, container).await.expect("changed");
        bench.contender("one").take(0).await;
        assert_eq!(machines().await, format!("abcdef {own}"));
        let reboot = "update lease_schema set boot = 'an earlier one'";
        sql(&mut other, reboot).await.expect("changed");
        bench.contender("two").observe().await;
        assert_eq!(machines().await, format!("{own} abcdef"));
    });
}

#[test]
fn a_bell_that_is_none_holds_nobody_up() {
    let (bench, path) = bench();
    let fifo = beside(&path, "-fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    run(async {
        let mut watch = bench.store().watch();
        assert_eq!(told(&mut watch).await, Notice::Connected);
        fs::rename(&fifo, beside(&path, "-wake")).expect("put there");
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        one.release(&term, &grant).await;
        let said = loop {
            match told(&mut watch).await {
                Notice::Unavailable(said) => break said.message,
                Notice::Changed(_) | Notice::Connected => {}
            }
        };
        assert!(said.contains("-wake is no regular file"), "{said}");
    });
}

#[test]
fn whoever_may_write_to_the_file_may_ring() {
    let (bench, path) = bench();
    let bell = beside(&path, "-wake");
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(&path, 0o660);
    mode(&bell, 0o600);
    run(async {
        let mut watch = bench.store().watch();
        assert_eq!(told(&mut watch).await, Notice::Connected);
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        assert_eq!(told(&mut watch).await, Notice::Changed(None));
        let metadata = fs::metadata(&bell).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        // Of one that is made anew, too; nobody hears the old one any more.
        fs::remove_file(&bell).expect("removed");
        one.release(&term, &grant).await;
        while told(&mut watch).await != Notice::Connected {}
        let metadata = fs::metadata(&bell).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    });
}

#[test]
fn whoever_may_only_read_the_file_sees_who_holds_it() {
    let (bench, path) = bench();
    let url = format!("sqlite:{}", path.display());
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        // The next one has something to write down first.
        let mut reboot = by_hand(&path).await;
        let earlier = "update lease_schema set boot = 'an earlier one'";
        sql(&mut reboot, earlier).await.expect("changed");
        let mode = if is_root() { 0o644 } else { 0o444 };
        for path in rest(&path).iter().chain([&path]) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let asked = |command: &str| {
            let asked = by_nobody(leasewrap()).text().switch(command);
            asked.option("--db", &url)
        };
        let seen = asked("status").option("--name", bench.name.as_str());
        let seen = seen.run().code(0).out;
        assert!(seen.contains(&term.token.to_string()), "{seen}");
        let paused = asked("pause").option("--name", bench.name.as_str());
        let ended = paused.run().code(123);
        let why = ["write to the file and to its directory"];
        assert!(ended.says(&why));
        // A run could never take it: that is not told at the hand-over only.
        let run = by_nobody(leasewrap()).text();
        let run = run
            .option("--db", &url)
            .option("--name", bench.name.as_str());
        assert!(run.sh("true").run().code(123).says(&why));
        granted(one.renew(&term).await);
    });
}
