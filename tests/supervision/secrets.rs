//! The password is in no command line, no environment and no log, and
//! leasewrap's own processes cannot be looked into.

use std::fs;
use std::process::Command;

use crate::support::leasewrap::{Leasewrap, holder, lease_name, leasewrap};
use crate::support::proc;
use crate::support::run::{MARK, run};
use crate::support::server::{Options, Server};
use crate::support::user::{NOBODY, by_nobody, is_root};
use crate::support::wait::{SOON, until_true};

const PASSWORD: &str = "pw-Qx7-secret";

fn server() -> Server {
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::with(Options {
        hba: Some(hba.to_owned()),
        ..Options::default()
    });
    server.psql(&format!("create role lw login password '{PASSWORD}'"));
    server.psql("grant create on database postgres to lw");
    server
}

#[track_caller]
fn nowhere(leasewrap: &Leasewrap, when: &str) {
    let mut all = proc::descendants(leasewrap.pid());
    all.push(leasewrap.pid());
    for pid in all {
        let name = proc::comm(pid).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&line).contains(PASSWORD),
            "{when}: in the command line of {name}"
        );
        if pid != leasewrap.pid() {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(
                !String::from_utf8_lossy(&environ).contains(PASSWORD),
                "{when}: in the environment of {name}"
            );
        }
    }
    assert!(
        !leasewrap.log().join("\n").contains(PASSWORD),
        "{when}: in the log"
    );
}

#[test]
fn given_as_an_argument() {
    let server = server();
    let url = server.url_of(&format!("lw:{PASSWORD}"), "postgres");
    let leasewrap = holder(&url, &lease_name("secret"))
        .switch("-vv")
        .worker(&["sleep", "1000"])
        .spawn();
    leasewrap.worker();
    nowhere(&leasewrap, "--db URL");
    let line = fs::read(format!("/proc/{}/cmdline", leasewrap.pid())).unwrap();
    let line = String::from_utf8_lossy(&line).into_owned();
    assert!(
        line.contains("--name\0secret"),
        "the rest of it stays: {line}"
    );
}

#[test]
fn given_as_one_word() {
    let server = server();
    let url = server.url_of(&format!("lw:{PASSWORD}"), "postgres");
    let builder = leasewrap()
        .switch(&format!("--db={url}"))
        .option("--name", &lease_name("secret"));
    let leasewrap = builder.worker(&["sleep", "1000"]).spawn();
    leasewrap.worker();
    nowhere(&leasewrap, "--db=URL");
}

#[test]
fn given_as_a_parameter() {
    let server = server();
    let url = format!(
        "postgres://127.0.0.1:{}/postgres?user=lw&password={PASSWORD}",
        server.port()
    );
    let leasewrap = holder(&url, &lease_name("secret"))
        .worker(&["sleep", "1000"])
        .spawn();
    leasewrap.worker();
    nowhere(&leasewrap, "password=");
}

#[test]
fn given_in_the_environment() {
    let server = server();
    let url = server.url_of(&format!("lw:{PASSWORD}"), "postgres");
    let builder = leasewrap()
        .env("LEASEWRAP_DB", &url)
        .option("--name", &lease_name("secret"));
    let leasewrap = builder.worker(&["sleep", "1000"]).spawn();
    leasewrap.worker();
    nowhere(&leasewrap, "LEASEWRAP_DB");
}

#[test]
fn the_releaser_has_it_all_the_same() {
    let server = server();
    let url = server.url_of(&format!("lw:{PASSWORD}"), "postgres");
    let name = lease_name("secret");
    let leasewrap = holder(&url, &name)
        .ttl("60s")
        .worker(&["sleep", "1000"])
        .spawn();
    leasewrap.worker();
    leasewrap.signal(libc::SIGKILL);
    let released =
        format!("select released_at is not null from leasewrap.lease where name = '{name}'");
    until_true("it is released", SOON, || server.psql(&released) == "t");
}

#[test]
fn nor_in_the_releaser_while_it_waits() {
    let server = server();
    let proxy = crate::support::proxy::Proxy::to(server.port());
    let url = format!(
        "postgres://lw:{PASSWORD}@127.0.0.1:{}/postgres",
        proxy.port()
    );
    let leasewrap = holder(&url, &lease_name("secret"))
        .ttl("20s")
        .worker(&["sleep", "1000"])
        .spawn();
    let worker = leasewrap.worker();
    let guard = leasewrap.guard();
    let before = proxy.accepted();
    proxy.cut();
    leasewrap.signal(libc::SIGKILL);
    until_true("the worker is dead", SOON, || !proc::alive(worker));
    // The guard has executed the releaser in its place by now, or will soon.
    until_true("the releaser waits for the database", SOON, || {
        proxy.accepted() > before
    });
    let line = fs::read(format!("/proc/{guard}/cmdline")).unwrap_or_default();
    assert_eq!(
        String::from_utf8_lossy(&line).trim_end_matches('\0'),
        "lw-guard"
    );
    let environ = fs::read(format!("/proc/{guard}/environ")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environ).contains(PASSWORD));
}

#[test]
fn a_wrong_password_is_not_shown() {
    let server = server();
    for url in [
        server.url_of("lw:wrong-Qx7", "postgres"),
        format!(
            "postgres://127.0.0.1:{}/postgres?user=lw&password=wrong-Qx7",
            server.port()
        ),
        format!(
            "postgres://lw:wrong-Qx7@127.0.0.1:{}/no%zzsuch",
            server.port()
        ),
        format!(
            "postgres://lw:wrong-Qx7@127.0.0.1:{}x/postgres",
            server.port()
        ),
        format!(
            "postgres://lw:wrong-Qx7@127.0.0.1:{}/postgres?nonsense=1",
            server.port()
        ),
    ] {
        let ended = holder(&url, "x")
            .switch("-vv")
            .option("--wait", "2s")
            .sh("true")
            .run();
        assert!([2, 123].contains(&ended.code), "{ended:?}");
        assert!(
            !ended.log.join("\n").contains("wrong-Qx7"),
            "{:?}",
            ended.log
        );
    }
}

#[test]
fn keeper_and_guard_cannot_be_looked_into() {
    let server = server();
    let url = server.url_of(&format!("lw:{PASSWORD}"), "postgres");
    // Root may look into everything: so it is all done by somebody else.
    let user: &[&str] = if is_root() { &NOBODY } else { &["env"] };
    let builder = by_nobody(holder(&url, &lease_name("secret")));
    let leasewrap = builder.sh("exec sleep 1000").spawn();
    let worker = leasewrap.worker();
    let may_look = |pid: i32, file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let status = Command::new(user[0])
            .env(MARK, run().dir())
            .args(&user[1..])
            .args(["head", "-c1", &path])
            .output()
            .unwrap();
        status.status.success()
    };
    until_true("the worker is as it would be", SOON, || {
        may_look(worker, "environ")
    });
    for pid in [leasewrap.pid(), leasewrap.guard()] {
        for file in ["environ", "maps", "mem", "auxv"] {
            assert!(
                !may_look(pid, file),
                "{file} of {}",
                proc::comm(pid).unwrap_or_default()
            );
        }
    }
}
