//! What concerns SQLite alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasewrap::lease::ids::Incarnation;
use leasewrap::lease::record::{Acquired, Fault, Loss, Observed, Refusal, Renewed, Unknown};
use leasewrap::store::admin::{Admin, ProtectError, Protection};
use leasewrap::store::{Notice, Store, Watch};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::time::{Instant, timeout};

use crate::bench::{self, Bench, LIMIT, granted, run};
use crate::conformance;
use crate::support::run::run as test_run;

pub fn path() -> PathBuf {
    test_run().directory("sqlite").join("leases.db")
}

pub fn bench_at(path: &Path) -> Bench {
    Bench::new(bench::settings(
        &format!("sqlite:{}", path.display()),
        "leasewrap",
    ))
}

/// A lease in a file of its own that is set up.
pub fn bench() -> (Bench, PathBuf) {
    let path = path();
    let bench = bench_at(&path);
    run(async { bench.store().init(LIMIT).await }).expect("set up");
    (bench, path)
}

macro_rules! tests {
    ($($test:ident),* $(,)?) => {$(
        #[test]
        fn $test() {
            let bench = match stringify!($test) {
                "a_missing_schema_is_told_and_made" => bench_at(&path()),
                _ => bench().0,
            };
            run(conformance::$test(bench));
        }
    )*};
}

mod suite {
    use super::*;
    conformance::every_test!(tests);
}

/// Somebody with the `sqlite3` tool.
pub async fn by_hand(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.expect("open the file")
}

pub async fn sql(connection: &mut SqliteConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}

pub async fn refused(bench: &Bench) -> Unknown {
    match bench.store().observe(LIMIT).await {
        Observed::Unknown(unknown) => unknown,
        other => panic!("it was opened: {other:?}"),
    }
}

#[test]
fn a_locked_file_is_told_in_time() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        let mut blocker = by_hand(&path).await;
        sql(&mut blocker, "begin immediate").await.expect("locked");
        let limit = Duration::from_secs(2);
        let in_time = |start: Instant| start.elapsed() < limit + Duration::from_secs(10);
        // SQLite's sleeps may last so long on a busy host that its answer
        // misses the limit, but not each time.
        let told_late = |said: &Unknown| {
            said.message.contains("no answer in time") && said.fault == Fault::Transient
        };
        for turn in 1.. {
            let start = Instant::now();
            let renewed = one
                .store
                .renew(&term, &one.terms.clone(), limit)
                .await
                .reply;
            assert!(in_time(start));
            match renewed {
                Renewed::Unknown(said) if said.message.contains("locked") => {
                    assert_eq!(said.fault, Fault::Transient);
                    break;
                }
                Renewed::Unknown(said) if told_late(&said) && turn < 10 => {}
                other => panic!("{other:?}"),
            }
        }
        let seen = one.observe().await;
        let request = one.request(&seen, 0);
        for turn in 1.. {
            let start = Instant::now();
            let taken = one.store.acquire(&request, limit).await.reply;
            assert!(in_time(start));
            match taken {
                Acquired::Refused(Refusal::Locked { .. }) => break,
                Acquired::Unknown(said) if told_late(&said) && turn < 10 => {}
                other => panic!("{other:?}"),
            }
        }
        sql(&mut blocker, "rollback").await.expect("unlocked");
        assert_eq!(
            one.record(0).await.revision,
            grant.revision,
            "nothing happens later"
        );
        granted(one.renew(&term).await);
    });
}

#[test]
fn what_cannot_be_a_file_of_leases_is_told() {
    let no_directory = bench_at(Path::new("/nowhere/at/all.db"));
    let directory = bench_at(&test_run().directory("sqlite"));
    let garbage = path();
    fs::write(
        &garbage,
        "this is no database, and longer than the header of one. ".repeat(40),
    )
    .expect("write");
    let foreign = path();
    run(async {
        let options = SqliteConnectOptions::new()
            .filename(&foreign)
            .create_if_missing(true);
        let mut connection = options.connect().await.expect("make the file");
        sql(&mut connection, "create table lease (flat text)")
            .await
            .expect("make the table");
        let cases = [
            (no_directory, "/nowhere/at"),
            (directory, "no file"),
            (bench_at(&garbage), "not a database"),
            (bench_at(&foreign), "not leasewrap's"),
        ];
        for (bench, expected) in cases {
            let said = refused(&bench).await;
            assert!(
                said.fault == Fault::Final && said.message.contains(expected),
                "{said:?}"
            );
            let init = bench.store().init(LIMIT).await.expect_err("it must stay");
            assert_eq!(init.message, said.message);
        }
    });
}

#[test]
fn a_file_of_another_host_is_refused_until_it_is_taken_over_by_hand() {
    let (bench, path) = bench();
    run(async {
        let (_, grant) = bench.contender("one").take(0).await;
        let mut other = by_hand(&path).await;
        let mine = "update lease_schema set boot = 'an earlier one'";
        let others = "update lease_schema set boot = 'another', machine = 'abcdef'";
        sql(&mut other, mine).await.expect("changed");
        let seen = bench.contender("two").observe().await;
        assert_eq!(
            seen.server.incarnation, grant.incarnation,
            "it was only a reboot"
        );
        sql(&mut other, others).await.expect("changed");
        if fs::read_to_string("/etc/machine-id")
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            // A host that has no name cannot tell.
            return;
        }
        let said = refused(&bench).await;
        assert!(
            said.fault == Fault::Final && said.message.contains("another host"),
            "{said:?}"
        );
        bench.store().init(LIMIT).await.expect("it is ours now");
        let mut two = bench.contender("two");
        assert_eq!(two.observe().await.records.len(), 1);
    });
}

#[test]
fn an_earlier_boot_puts_only_unreleased_rows_in_doubt() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        let mut reboot = by_hand(&path).await;
        let file = grant
            .incarnation
            .0
            .split_once('/')
            .expect("file and boot")
            .0;
        let earlier = format!("update lease set incarnation = '{file}/an earlier one.1'");
        sql(&mut reboot, &earlier).await.expect("changed");
        let seen = one.record(0).await;
        assert_ne!(seen.incarnation, one.observe().await.server.incarnation);
        // Its own holder in another time namespace renews as ever.
        let renewed = one.renewed(&term).await;
        assert_eq!(renewed.incarnation, grant.incarnation);
        let earlier_one = Incarnation(format!("{file}/an earlier one.1"));
        let released = one.store.release(&term, &earlier_one, LIMIT).await;
        assert_eq!(released, leasewrap::lease::record::Released::Done);
        let seen = one.record(0).await;
        assert_eq!(seen.incarnation, one.observe().await.server.incarnation);
        let (next, _) = one.take(0).await;
        assert_eq!(next.token.0, term.token.0 + 1);
    });
}

#[test]
fn a_file_that_is_replaced_is_another_database() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        let before = one.observe().await.server.incarnation;
        let backup = path.with_extension("backup");
        let (early, _) = one.take(0).await;
        let mut copier = by_hand(&path).await;
        let into = format!("vacuum into '{}'", backup.display());
        sql(&mut copier, &into).await.expect("backed up");
        drop(copier);
        let mut watch = bench.store().watch();
        assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        let (late, _) = one.take(0).await;
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Changed(_))
        ));
        for rest in ["-wal", "-shm"] {
            let _there_or_not = fs::remove_file(format!("{}{rest}", path.display()));
        }
        fs::rename(&backup, &path).expect("restored");
        let told = timeout(LIMIT, watch.next()).await;
        assert!(
            matches!(told, Ok(Notice::Changed(_) | Notice::Connected)),
            "{told:?}"
        );
        let lost = Loss::OtherHolder {
            label: "one".to_owned(),
            token: early.token,
        };
        assert_eq!(one.renew(&late).await, Renewed::Lost(lost));
        let seen = one.observe().await;
        assert_ne!(seen.server.incarnation, before);
        assert_ne!(
            seen.records[0].incarnation, seen.server.incarnation,
            "it is in doubt"
        );
        fs::remove_file(&path).expect("deleted");
        assert_eq!(one.renew(&early).await, Renewed::Lost(Loss::Missing));
        assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
    });
}

#[test]
fn standbys_are_woken_before_there_is_a_file_and_within_milliseconds() {
    let path = path();
    let bench = bench_at(&path);
    run(async {
        let mut watch = bench.store().watch();
        assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        bench.store().init(LIMIT).await.expect("set up");
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Changed(_) | Notice::Connected)
        ));
        // Until it is quiet.
        while timeout(Duration::from_millis(300), watch.next())
            .await
            .is_ok()
        {}
        let start = Instant::now();
        one.release(&term, &grant).await;
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Changed(_))
        ));
        println!("noticed after {:?}, the release included", start.elapsed());
    });
}

#[test]
fn what_was_never_committed_is_gone() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        let mut torn = by_hand(&path).await;
        sql(
            &mut torn,
            "begin immediate; update lease set token = token + 5",
        )
        .await
        .expect("torn");
        drop(torn);
        granted(one.renew(&term).await);
        let mut check = by_hand(&path).await;
        let row: (String, i64) = sqlx::query_as("select journal_mode, (select synchronous from pragma_synchronous) from pragma_journal_mode")
            .fetch_one(&mut check)
            .await
            .expect("asked");
        assert_eq!(row.0, "wal");
    });
}

#[test]
fn rows_cannot_be_deleted_and_rights_are_told() {
    let (bench, path) = bench();
    run(async {
        let mut one = bench.contender("one");
        one.take(0).await;
        let mut other = by_hand(&path).await;
        let said = sql(&mut other, "delete from lease")
            .await
            .expect_err("it is refused");
        assert!(said.to_string().contains("never deleted"), "{said}");
        let protection = Protection {
            tables: vec!["t".to_owned()],
            name: bench.name.clone(),
            allow_roles: Vec::new(),
        };
        assert_eq!(
            one.store.protect(&protection, LIMIT).await,
            Err(ProtectError::Unsupported)
        );
        assert_eq!(one.store.schema_sql(), None);
    });
    if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("chmod");
        run(async {
            let taken = bench.contender("two").try_take(0).await;
            assert!(
                matches!(&taken, Acquired::Unknown(said) if said.fault == Fault::Final),
                "{taken:?}"
            );
        });
    }
}
