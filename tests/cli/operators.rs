//! What operators type: one clear line, the right exit code, and nothing
//! that is done but not said.

use crate::support::leasewrap::{Builder, holder, lease_name, leasewrap};
use crate::support::run::run;
use crate::support::server::{Options, Server, shared};
use crate::support::wait::{SOON, until_true};

fn steer(command: &str, url: &str) -> Builder {
    leasewrap().text().switch(command).option("--db", url)
}

#[test]
fn a_pause_is_told_of_even_where_nobody_steps_down() {
    let name = lease_name("pause");
    let holder = holder(&shared().url(), &name)
        .worker(&["sleep", "1000"])
        .spawn();
    holder.wait_event("acquired");
    let pause = steer("pause", &shared().url()).option("--name", &name);
    let ended = pause.switch("--step-down").option("--wait", "0s").run();
    let ended = ended.code(1);
    assert!(ended.out.contains("paused"), "{ended:?}");
    assert!(ended.says(&["no step-down"]), "{ended:?}");
}

#[test]
fn a_standby_that_lags_behind_is_asked_by_status_and_not_by_break() {
    let primary = Server::start();
    let name = lease_name("lag");
    let taken = || holder(&primary.url(), &name).ttl("60s");
    taken().sh("true").run().code(0);
    let standby = primary.replica(Options::default());
    standby.psql("alter system set primary_conninfo = ''");
    standby.psql("select pg_reload_conf()");
    until_true("nothing more arrives there", SOON, || {
        standby.psql("select count(*) from pg_stat_wal_receiver") == "0"
    });
    let held = taken().worker(&["sleep", "1000"]).spawn();
    held.wait_event("acquired");
    let any = |server: &Server| format!("{}?target_session_attrs=any", server.url());
    let asked = |command: &str| {
        let urls = steer(command, &any(&standby)).option("--db", &any(&primary));
        urls.option("--name", &name)
    };
    let status = asked("status").run().code(1);
    assert!(!status.out.contains("held"), "{status:?}");
    asked("break").switch("--yes").run().code(0);
    held.end().code(122);
}

#[test]
fn doctor_looks_at_a_file_too() {
    let path = run().file("doctor.db");
    let doctor = |path: &str| steer("doctor", &format!("sqlite:{path}"));
    let path = path.display().to_string();
    for there in [false, true] {
        let ended = doctor(&path).run().code(0);
        for words in ["ok     server", "SQLite", "outage", "containment"] {
            assert!(ended.out.contains(words), "{there}: {}", ended.out);
        }
        let url = format!("sqlite:{path}");
        holder(&url, "x").ttl("9s").sh("true").run().code(0);
    }
    let ended = doctor("/no/such/directory/x").run().code(123);
    assert!(ended.out.contains("/no/such/directory"), "{}", ended.out);
    let other = crate::support::leasewrap::file_with("no database at all");
    doctor(&other.display().to_string()).run().code(123);
}

#[test]
fn doctor_calls_nothing_safe_that_it_could_not_look_at() {
    // The schema is there.
    crate::leasewrap().sh("true").run().code(0);
    let role = format!("blind_{}", std::process::id());
    shared().psql(&format!("create role {role} login"));
    let doctor = steer("doctor", &shared().url_of(&role, "postgres"));
    let ended = doctor.option("--output", "json").run().code(1);
    let seen: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(seen["safe"], false);
    let points = seen["points"].as_array().unwrap();
    let rights = points.iter().find(|point| point["id"] == "rights");
    let rights = rights.unwrap_or_else(|| panic!("{}", ended.out));
    assert_eq!(rights["verdict"], "fails", "{rights}");
    let remedy = rights["remedy"].as_str().unwrap();
    assert!(
        remedy.starts_with("grant usage") && remedy.contains(&role),
        "{remedy}"
    );
    shared().psql(&format!("drop role {role}"));
}

#[test]
fn leasewraps_own_tables_are_not_fenced() {
    // The schema is there.
    crate::leasewrap().sh("true").run().code(0);
    let protect = steer("protect", &shared().url()).option("--name", "x");
    let ended = protect.switch("leasewrap.lease").run().code(1);
    assert!(ended.says(&["leasewrap.lease", "own", "nothing was done"]));
    crate::leasewrap().sh("true").run().code(0);
}

#[test]
fn a_history_of_nothing_is_of_no_time() {
    let path = run().file("nothing.db").display().to_string();
    let history = steer("history", &format!("sqlite:{path}")).option("--output", "json");
    let ended = history.run().code(0);
    let seen: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(seen["now"], serde_json::Value::Null);
}

#[test]
fn a_call_needs_some_time() {
    let status = steer("status", "sqlite:x").option("--call-timeout", "0s");
    let ended = status.run().code(2);
    assert!(ended.says(&["--call-timeout: '0s'", "500ms"]), "{ended:?}");
}
