//! Several hosts, servers in recovery, fail-overs.

use std::time::Duration;

use leasewrap::lease::ids::Token;
use leasewrap::lease::record::{Acquired, Expected, Fault, Loss, Observed, Renewed, Unknown};
use leasewrap::store::admin::Admin;
use leasewrap::store::settings::{Given, Surroundings};
use leasewrap::store::{Notice, Store, StoreSettings, Watch};
use tokio::time::{Instant, timeout};

use super::bench_on;
use crate::bench::{self, Bench, LIMIT, granted, run};
use crate::support::proxy::{Accept, Proxy};
use crate::support::server::{Options, Server, Stop};
use crate::support::wait::{SOON, until_true};

/// One URL with these ports, in this order.
fn of_ports(ports: &[u16]) -> StoreSettings {
    of_ports_with(ports, "")
}

fn of_ports_with(ports: &[u16], parameters: &str) -> StoreSettings {
    let hosts: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    bench::settings(
        &format!(
            "postgres://postgres@{}/postgres?{parameters}",
            hosts.join(",")
        ),
        "leasewrap",
    )
}

/// Waits until a standby has the row of `bench`.
fn until_there(standby: &Server, bench: &Bench) {
    let arrived = format!(
        "select count(*) from leasewrap.lease where name = '{}'",
        bench.name
    );
    until_true("the row is on the standby", SOON, || {
        standby.psql(&arrived) == "1"
    });
}

fn unknown(observed: Observed) -> Unknown {
    match observed {
        Observed::Unknown(unknown) => unknown,
        other => panic!("it was answered: {other:?}"),
    }
}

#[test]
fn a_standby_server_is_passed_over_and_not_believed() {
    let primary = Server::start();
    let bench = bench_on(&primary);
    let standby = primary.replica(Options::default());
    run(async {
        let both = Bench {
            settings: of_ports(&[standby.port(), primary.port()]),
            ..bench.clone()
        };
        let mut one = both.contender("one");
        let (term, grant) = one.take(0).await;
        one.renewed(&term).await;
        let mut watch = both.store().watch();
        assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        one.release(&term, &grant).await;
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Changed(_))
        ));

        let only = Bench {
            settings: of_ports(&[standby.port()]),
            ..bench.clone()
        };
        let mut two = only.contender("two");
        let said = unknown(two.store.observe(LIMIT).await);
        assert_eq!(said.fault, Fault::ReadOnly, "{said:?}");
        let renewed = two.renew(&term).await;
        let Renewed::Unknown(said) = renewed else {
            panic!("{renewed:?}")
        };
        assert_eq!(said.fault, Fault::ReadOnly, "{said:?}");
        let Renewed::Unknown(said) = two.store.check(&term, LIMIT).await else {
            panic!()
        };
        assert_eq!(said.fault, Fault::ReadOnly, "{said:?}");
        // Operators may look there.
        let seen = two.store.status(None, LIMIT).await.expect("status");
        assert!(seen.server.in_recovery && seen.value.len() == 1);
    });
}

#[test]
fn any_server_may_be_read_from_and_the_one_to_write_to_is_found() {
    let primary = Server::start();
    let bench = bench_on(&primary);
    let standby = primary.replica(Options::default());
    let any = |server: &Server| format!("{}?target_session_attrs=any", server.url());
    let surroundings = Surroundings::new([], Some("postgres".to_owned()), "/".into());
    let urls = [any(&standby), any(&primary)];
    let settings = StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings);
    let bench = Bench {
        settings: settings.expect("they are right"),
        ..bench
    };
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        one.renewed(&term).await;
        until_there(&standby, &bench);
        let (mut operator, mut reader) = (bench.store(), bench.store());
        reader.only_reads();
        let seen = reader.status(None, LIMIT).await.expect("status");
        assert!(seen.server.in_recovery && seen.value.len() == 1);
        // Whoever does something about what is there reads it as it is.
        let seen = operator.status(None, LIMIT).await.expect("status");
        assert!(!seen.server.in_recovery && seen.value.len() == 1);
        let asked = operator.request_step_down(&bench.name, None, LIMIT).await;
        assert_eq!(asked.expect("it is written").len(), 1);

        primary.stop(Stop::Kill);
        let seen = reader.status(None, LIMIT).await.expect("status");
        assert!(seen.server.in_recovery && seen.value.len() == 1);
        let lost = operator.status(None, LIMIT).await;
        assert!(lost.is_err(), "{lost:?}");
        // It may come back.
        let said = unknown(bench.store().observe(LIMIT).await);
        assert_eq!(said.fault, Fault::Transient, "{said:?}");
    });
}

#[test]
fn a_server_that_has_become_read_only_is_left() {
    let primary = Server::start();
    super::set_up(&bench::settings(&primary.url(), "leasewrap"));
    let standby = primary.replica(Options::default());
    let ports = [primary.port(), standby.port()];
    let attributes = ["", "target_session_attrs=any"];
    let leases = attributes.map(|attributes| Bench::new(of_ports_with(&ports, attributes)));
    run(async {
        let mut held = Vec::new();
        for bench in &leases {
            let mut one = bench.contender("one");
            let (term, _) = one.take(0).await;
            until_there(&standby, bench);
            held.push((bench, one, term));
        }
        standby.promote();
        primary.psql("alter system set default_transaction_read_only = on");
        primary.psql("select pg_reload_conf()");
        until_true("it is read-only", SOON, || {
            primary.psql("show transaction_read_only") == "on"
        });
        let sessions = "from pg_stat_activity where application_name like 'leasewrap %'";
        primary.psql(&format!("select pg_terminate_backend(pid) {sessions}"));
        until_true("its sessions have ended", SOON, || {
            primary.psql(&format!("select count(*) {sessions}")) == "0"
        });
        for (bench, mut one, term) in held {
            let grant = one.renewed(&term).await;
            let mut watch = bench.store().watch();
            assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
            one.release(&term, &grant).await;
            assert!(matches!(
                timeout(LIMIT, watch.next()).await,
                Ok(Notice::Changed(_))
            ));
        }
    });
}

#[test]
fn a_host_that_hangs_does_not_eat_the_others_time() {
    let server = Server::start();
    let bench = bench_on(&server);
    let hanging = Proxy::to(server.port());
    hanging.accept(Accept::Hang);
    let urls = [hanging.url("postgres"), server.url()];
    let surroundings = Surroundings::new([], Some("postgres".to_owned()), "/".into());
    let repeated = StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings);
    let in_one_url = of_ports(&[hanging.port(), hanging.port(), server.port()]);
    run(async {
        for settings in [repeated.expect("they are right"), in_one_url] {
            let bench = Bench {
                settings,
                ..bench.clone()
            };
            assert!(matches!(
                bench.store().observe(LIMIT).await,
                Observed::Seen(_)
            ));
        }
        // `connect_timeout` is for each host.
        let alone = format!("{}?connect_timeout=1", hanging.url("postgres"));
        let bench = Bench {
            settings: bench::settings(&alone, "leasewrap"),
            ..bench
        };
        let start = Instant::now();
        let said = unknown(bench.store().observe(LIMIT).await);
        assert!(
            start.elapsed() < LIMIT - Duration::from_secs(1) && said.fault == Fault::Transient,
            "{said:?}"
        );
    });
}

#[test]
fn a_holder_keeps_a_row_that_survived_a_fail_over_and_loses_one_that_did_not() {
    let primary = Server::start();
    let bench = bench_on(&primary);
    let standby = primary.replica(Options::default());
    let settings = of_ports(&[primary.port(), standby.port()]);
    let kept = Bench {
        settings: settings.clone(),
        ..bench
    };
    let lost = Bench {
        settings,
        name: bench::name(),
    };
    run(async {
        let (mut one, mut two) = (kept.contender("one"), lost.contender("two"));
        let (term, grant) = one.take(0).await;
        until_there(&standby, &kept);
        standby.psql("alter system set primary_conninfo = ''");
        standby.psql("select pg_reload_conf()");
        until_true("nothing more arrives there", SOON, || {
            standby.psql("select count(*) from pg_stat_wal_receiver") == "0"
        });
        let (gone, gone_grant) = two.take(0).await;
        let released = one.renewed(&term).await;
        one.release(&term, &released).await;
        let (again, _) = one.take(0).await;
        // The primary dies with all that: another term, its token, a release.
        primary.stop(Stop::Kill);
        standby.promote();

        assert_eq!(two.renew(&gone).await, Renewed::Lost(Loss::Missing));
        assert_eq!(
            two.store.check(&gone, LIMIT).await,
            Renewed::Lost(Loss::Missing)
        );
        let reply = one.renew(&again).await;
        let Renewed::Lost(Loss::OtherHolder { token, .. }) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(token, term.token, "the row has gone back");
        let survived = one.renewed(&term).await;
        assert_ne!(survived.incarnation, grant.incarnation);
        assert_eq!(
            survived.incarnation.0,
            grant.incarnation.0.replace("/00000001", "/00000002")
        );

        let seen = two.observe().await;
        assert_eq!(seen.server.timeline, Some(2));
        assert!(seen.server.incarnation != gone_grant.incarnation);
        let seen = two.observe().await;
        assert!(
            seen.server.known_for.is_some_and(|known| known < SOON),
            "{seen:?}"
        );
        let mut request = two.request(&seen, 0);
        assert_eq!(request.expected, Expected::Missing);
        request.in_doubt = true;
        let reply = two.store.acquire(&request, LIMIT).await.reply;
        let Acquired::Granted(new) = reply else {
            panic!("{reply:?}")
        };
        assert!(
            new.token >= Token(2 << 40) && new.token > gone.token,
            "{new:?}"
        );
        granted(one.renew(&term).await);
    });
}

#[test]
fn a_server_that_went_away_and_came_back_is_found_again() {
    let server = Server::start();
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        let mut watch = bench.store().watch();
        assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        server.stop(Stop::Fast);
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Unavailable(_))
        ));
        let said = unknown(one.store.observe(LIMIT).await);
        assert_eq!(said.fault, Fault::Transient, "{said:?}");
        assert!(said.message.contains("connection refused"), "{said:?}");
        server.start_again();
        assert_eq!(
            one.renewed(&term).await.incarnation,
            grant.incarnation,
            "a restart loses nothing"
        );
        assert_eq!(
            timeout(LIMIT * 2, watch.next()).await,
            Ok(Notice::Connected)
        );
    });
}

#[test]
fn the_postmasters_start_stands_in_where_the_timeline_cannot_be_read() {
    let server = Server::start();
    server.psql(
        "revoke execute on function pg_control_system() from public; create role narrow login",
    );
    server.psql("grant create on database postgres to narrow");
    let url = server.url_of("narrow", "postgres");
    let bench = Bench::new(bench::settings(&url, "leasewrap"));
    super::set_up(&bench.settings);
    run(async {
        let mut one = bench.contender("one");
        let seen = one.observe().await;
        assert!(
            seen.server.incarnation.0.starts_with("started "),
            "{seen:?}"
        );
        assert_eq!(seen.server.timeline, None);
        let (term, grant) = one.take(0).await;
        server.restart(Stop::Fast);
        let renewed = one
            .store
            .renew(&term, &one.terms.clone(), LIMIT)
            .await
            .reply;
        let renewed = match renewed {
            // The idle connection was closed by the restart.
            Renewed::Unknown(_) => one.renewed(&term).await,
            other => granted(other),
        };
        assert_ne!(renewed.incarnation, grant.incarnation);
    });
}

#[test]
fn a_crowd_is_told_one_after_the_other_and_a_holder_at_once() {
    let server = Server::with(Options::default().set("max_connections", "200"));
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        let mut crowd: Vec<_> = (0..60).map(|_| bench.store().watch()).collect();
        for watch in &mut crowd {
            watch.spread(true);
            assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        }
        // The last one knows how many there are by now.
        let mut holder = bench.store().watch();
        assert_eq!(timeout(LIMIT, holder.next()).await, Ok(Notice::Connected));
        let start = Instant::now();
        one.take(0).await;
        assert!(matches!(
            timeout(LIMIT, holder.next()).await,
            Ok(Notice::Changed(_))
        ));
        let at_once = start.elapsed();
        let told = crowd.iter_mut().map(|watch| async {
            assert!(matches!(
                timeout(LIMIT, watch.next()).await,
                Ok(Notice::Changed(_))
            ));
            start.elapsed()
        });
        let mut told = futures_util::future::join_all(told).await;
        told.sort_unstable();
        println!(
            "a holder after {at_once:?}, a crowd after {:?} to {:?}",
            told[0], told[59]
        );
    });
}
