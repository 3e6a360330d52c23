//! A backup that is put back into a file without making a new one.

use std::fs;
use std::path::Path;
use std::process::Command;

use leasewrap::lease::record::{Acquired, Refusal};
use leasewrap::store::Store;

use crate::bench::{Bench, LIMIT, run};
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
fn what_the_bell_says_keeps_nobody_from_work() {
    let (bench, path) = bench();
    let bell = path.with_file_name("leases.db-wake");
    run(async {
        turn(&bench).await;
        let before = seen(&bench).await;
        let word = fs::read(&bell).expect("it is there");
        let half = word.split_at(word.len() / 2).0;
        let long = "9".repeat(18) + "\n";
        for wrong in [&b""[..], half, b"all wrong", long.repeat(2).as_bytes()] {
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
