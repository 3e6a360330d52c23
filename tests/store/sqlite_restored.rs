//! A backup that is put back into a file without making a new one.

use std::fs;
use std::path::Path;
use std::process::Command;

use leasewrap::lease::ids::Token;
use leasewrap::lease::record::{Acquired, Refusal};
use leasewrap::store::Store;
use leasewrap::store::admin::Admin;

use crate::bench::{Bench, LIMIT, granted, run};
use crate::sqlite::{bench, by_hand, sql};
use crate::support::installation::checked;

/// In a process of its own: here, its end would drop SQLite's locks.
fn copy(from: &Path, to: &Path) {
    checked(Command::new("cp").args([from, to]));
}

/// Takes the lease and gives it back; by nobody is the file open then.
async fn turn(bench: &Bench) {
    let mut one = bench.contender("one");
    let (term, grant) = one.take(0).await;
    one.release(&term, &grant).await;
    one.store.close(LIMIT).await;
}

/// Takes the lease as a contender that has watched it in doubt.
async fn doubted(bench: &Bench) -> Token {
    let mut one = bench.contender("one");
    let seen = one.observe().await;
    let mut request = one.request(&seen, 0);
    request.in_doubt = true;
    let taken = one.store.acquire(&request, LIMIT).await.reply;
    one.store.close(LIMIT).await;
    match taken {
        Acquired::Granted(grant) => grant.token,
        other => panic!("{other:?}"),
    }
}

/// What is shown of which database the file is, and whether the row is in
/// doubt.
async fn seen(bench: &Bench) -> (String, bool) {
    let mut store = bench.contender("one");
    let seen = store.observe().await;
    store.store.close(LIMIT).await;
    let server = seen.server.incarnation;
    (server.0.clone(), seen.records[0].incarnation != server)
}

#[test]
fn a_backup_copied_into_the_file_is_another_database() {
    let (bench, path) = bench();
    let backup = path.with_extension("backup");
    run(async {
        turn(&bench).await;
        copy(&path, &backup);
        let (before, doubt) = seen(&bench).await;
        assert!(!doubt);
        turn(&bench).await;
        assert_eq!(seen(&bench).await, (before.clone(), false));
        copy(&backup, &path);
        let (after, doubt) = seen(&bench).await;
        assert!(after != before && doubt);
        assert_eq!(seen(&bench).await.0, after, "it is so once");
        turn(&bench).await;
        assert_eq!(seen(&bench).await, (after, false));
    });
}

/// As where the answer to the acquisition is lost.
#[test]
fn what_is_settled_is_said() {
    let (bench, path) = bench();
    let backup = path.with_extension("backup");
    let bell = path.with_file_name("leases.db-wake");
    run(async {
        turn(&bench).await;
        copy(&path, &backup);
        let before = seen(&bench).await;
        let said = fs::read(&bell).expect("it is there");
        let mut one = bench.contender("one");
        let seen_by_one = one.observe().await;
        let request = one.request(&seen_by_one, 0);
        one.store.acquire(&request, LIMIT).await;
        fs::write(&bell, &said).expect("written");
        granted(one.store.settle(&request, LIMIT).await.reply);
        one.store.close(LIMIT).await;
        copy(&backup, &path);
        let (after, doubt) = seen(&bench).await;
        assert!(after != before.0 && doubt);
    });
}

#[test]
fn a_backup_restored_under_those_who_have_the_file_open_is_another_database() {
    let (bench, path) = bench();
    run(async {
        let [mut one, mut two] = ["one", "two"].map(|label| bench.contender(label));
        let (term, grant) = one.take(0).await;
        one.release(&term, &grant).await;
        let earlier = two.observe().await;
        let request = two.request(&earlier, 0);
        let mut restore = by_hand(&path).await;
        let earlier_one = "update sqlite_sequence set seq = seq - 1 where name = 'event'";
        sql(&mut restore, earlier_one).await.expect("restored");
        let seen = one.observe().await;
        assert_ne!(seen.server.incarnation, earlier.server.incarnation);
        assert_ne!(seen.records[0].incarnation, seen.server.incarnation);
        // The other one has the file open as it was.
        let taken = two.store.acquire(&request, LIMIT).await.reply;
        assert!(
            matches!(taken, Acquired::Refused(Refusal::Changed)),
            "{taken:?}"
        );
        let now = two.observe().await;
        assert_eq!(now.server.incarnation, seen.server.incarnation);
        two.take(0).await;
    });
}

#[test]
fn a_holder_whose_row_survived_is_in_doubt_no_longer_than_to_its_next_renewal() {
    let (bench, path) = bench();
    run(async {
        let [mut one, mut two] = ["one", "two"].map(|label| bench.contender(label));
        let (term, grant) = one.take(0).await;
        let mut restore = by_hand(&path).await;
        let earlier_one = "update sqlite_sequence set seq = seq - 1 where name = 'event'";
        sql(&mut restore, earlier_one).await.expect("restored");
        let before = two.observe().await;
        assert_ne!(before.server.incarnation, grant.incarnation);
        let renewed = one.renewed(&term).await;
        assert_eq!(renewed.token, term.token);
        assert_eq!(renewed.incarnation, before.server.incarnation);
        let after = two.record(0).await;
        assert_eq!(after.incarnation, renewed.incarnation);
        assert_eq!(after.revision, renewed.revision);
    });
}

#[test]
fn no_token_goes_back_with_the_database() {
    let (bench, path) = bench();
    let backup = path.with_extension("backup");
    let bell = path.with_file_name("leases.db-wake");
    let taken = async || {
        let mut one = bench.contender("one");
        one.store.init(LIMIT).await.expect("set up");
        let token = one.take(0).await.0.token;
        one.store.close(LIMIT).await;
        token
    };
    run(async {
        turn(&bench).await;
        copy(&path, &backup);
        let mut last = Token(0);
        for _ in 0..9 {
            let token = doubted(&bench).await;
            assert!(token > last && token.0 >= 1 << 40);
            last = token;
            copy(&backup, &path);
            // Whoever has less to say leaves it as it is.
            turn(&bench).await;
        }
        for by_older in [false, true] {
            last = doubted(&bench).await;
            if by_older {
                let word = fs::read(&bell).expect("it is there");
                fs::write(&bell, word.split_at(word.len() / 2).0).expect("written");
            }
            let dropped = bench.store().drop_schema(LIMIT).await;
            assert_eq!(dropped, Ok(true));
            let token = taken().await;
            assert!(token > last, "{token} after {last}");
            fs::remove_file(&path).expect("removed");
            assert!(taken().await > token);
        }
        // Nobody need know how high it was.
        let word = fs::read(&bell).expect("it is there");
        fs::write(&bell, word.split_at(word.len() / 2).0).expect("written");
        fs::remove_file(&path).expect("removed");
        assert!(taken().await.0 < 1 << 40);
    });
}

#[test]
fn what_the_bell_says_keeps_nobody_from_work() {
    let (bench, path) = bench();
    let bell = path.with_file_name("leases.db-wake");
    run(async {
        turn(&bench).await;
        let before = seen(&bench).await;
        let word = fs::read(&bell).expect("it is there");
        let half = word.split_at(word.len() / 4).0;
        let long = "9".repeat(18) + "\n";
        for wrong in [&b""[..], half, b"all wrong", long.repeat(4).as_bytes()] {
            fs::write(&bell, wrong).expect("written");
            assert_eq!(seen(&bench).await, before);
            turn(&bench).await;
        }
        // Nor is a word written over something else.
        let other = path.with_extension("other");
        fs::write(&other, "").expect("written");
        fs::remove_file(&bell).expect("removed");
        fs::hard_link(&other, &bell).expect("linked");
        turn(&bench).await;
        assert_eq!(fs::read(&other).expect("it is there"), b"");
        fs::remove_file(&bell).expect("removed");
        turn(&bench).await;
        let again = fs::read(&bell).expect("it is made again");
        assert!(again.len() == word.len() && again > word);
    });
}
