//! Passwords, files, TLS, addresses; errors that people must understand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leasewrap::lease::record::{Fault, Observed, Unknown};
use leasewrap::store::settings::{Given, SettingsError, Surroundings};
use leasewrap::store::{AnyStore, Store, StoreSettings};

use crate::bench::{self, Bench, LIMIT, clock, run};
use crate::support::installation::checked;
use crate::support::leasewrap::{holder, lease_name};
use crate::support::run::run as test_run;
use crate::support::server::{Options, Server};

const SECRET: &str = "hunter2 & 'so' on";

fn password_server() -> Server {
    let hba = "local all postgres trust\nlocal all all scram-sha-256\n\
               host all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::with(Options {
        hba: Some(hba.to_owned()),
        ..Options::default()
    });
    server.psql(&format!(
        "create role app login password '{}'",
        SECRET.replace('\'', "''")
    ));
    server.psql("grant create on database postgres to app");
    server
}

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Surroundings::new(variables, Some("nobody".to_owned()), "/".into())
}

fn with(urls: &[&str], variables: &[(&str, &str)]) -> StoreSettings {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings(variables))
        .expect("it is right")
}

async fn observe(settings: StoreSettings) -> Observed {
    AnyStore::new(settings, bench::name(), clock)
        .observe(LIMIT)
        .await
}

async fn refused(settings: StoreSettings) -> Unknown {
    match observe(settings).await {
        Observed::Unknown(unknown) => {
            assert!(!unknown.message.contains("hunter2"), "{unknown:?}");
            assert!(!unknown.message.contains('\n'), "{unknown:?}");
            unknown
        }
        other => panic!("it was let in: {other:?}"),
    }
}

#[test]
fn passwords_come_from_where_libpq_takes_them() {
    let server = password_server();
    let plain = format!("postgres://app@127.0.0.1:{}/postgres", server.port());
    let escaped = "hunter2%20%26%20%27so%27%20on";
    let file = test_run().file("pgpass");
    fs::write(
        &file,
        format!("127.0.0.1:{}:*:app:{SECRET}\n", server.port()),
    )
    .expect("write");
    let passfile = file.display().to_string();
    run(async {
        for (mode, ok) in [(0o600, true), (0o640, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
            let settings = with(&[&plain], &[("PGPASSFILE", &passfile)]);
            if ok {
                assert_eq!(observe(settings).await, Observed::NoSchema);
            } else {
                let said = refused(settings).await;
                assert_eq!(said.fault, Fault::Final);
                assert!(said.message.contains("chmod 600"), "{said:?}");
            }
        }
        let good = [
            with(&[&plain.replace("app@", &format!("app:{escaped}@"))], &[]),
            with(&[&plain], &[("PGPASSWORD", SECRET)]),
            with(&[&format!("{plain}?password={escaped}")], &[]),
            with(
                &["postgres://"],
                &[
                    ("PGHOST", &server.dir().display().to_string()),
                    ("PGPORT", &server.port().to_string()),
                    ("PGUSER", "app"),
                    ("PGPASSWORD", SECRET),
                    ("PGDATABASE", "postgres"),
                    ("PGSSLMODE", "require"),
                ],
            ),
            with(
                &[&format!(
                    "host={} port={} user=postgres dbname=postgres",
                    server.dir().display(),
                    server.port()
                )],
                &[],
            ),
        ];
        for settings in good {
            assert_eq!(observe(settings).await, Observed::NoSchema);
        }
        let wrong = [
            with(&[&plain.replace("app@", "app:hunter2wrong@")], &[]),
            with(&[&plain], &[]),
            with(&[&plain.replace("app@", "other:hunter2@")], &[]),
            with(
                &[&plain
                    .replace("app@", &format!("app:{escaped}@"))
                    .replace("/postgres", "/nowhere")],
                &[],
            ),
        ];
        for settings in wrong {
            let said = refused(settings).await;
            assert_eq!(said.fault, Fault::Final, "{said:?}");
        }
    });
}

#[test]
fn a_rotated_password_is_read_again() {
    let server = password_server();
    let file = test_run().file("url");
    let write = |password: &str| {
        let url = format!(
            "postgres://app:{password}@127.0.0.1:{}/postgres\n",
            server.port()
        );
        fs::write(&file, url).expect("write");
    };
    write("hunter2%20%26%20%27so%27%20on");
    let settings =
        StoreSettings::new(Given::File(&file), "leasewrap", surroundings(&[])).expect("right");
    let bench = Bench::new(settings);
    super::set_up(&bench.settings);
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        server.psql("alter role app password 'rotated'");
        server.psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'");
        let terms = one.terms.clone();
        // The present connection was cut; the password is not known yet.
        one.store.renew(&term, &terms, LIMIT).await;
        let reply = one.store.renew(&term, &terms, LIMIT).await.reply;
        assert!(
            matches!(&reply, leasewrap::lease::record::Renewed::Unknown(unknown) if unknown.fault == Fault::Final),
            "{reply:?}"
        );
        write("rotated");
        one.renewed(&term).await;
        fs::remove_file(&file).expect("remove");
        let gone = refused(bench.settings.clone()).await;
        assert!(gone.message.contains("--db-file"), "{gone:?}");
    });
}

#[test]
fn wrong_settings_are_told_in_one_line() {
    let missing = PathBuf::from("/nowhere/url");
    let cases: [(Given<'_>, &str, &str); 4] = [
        (Given::Urls(&[]), "leasewrap", "--db"),
        (Given::File(&missing), "leasewrap", "/nowhere/url"),
        (
            Given::Urls(&["postgres://h?sslmod=x".to_owned()]),
            "leasewrap",
            "sslmod",
        ),
        (Given::Urls(&["postgres://h".to_owned()]), "pg_own", "pg_"),
    ];
    for (given, schema, expected) in cases {
        let error: SettingsError =
            StoreSettings::new(given, schema, surroundings(&[])).expect_err("it is wrong");
        let said = error.to_string();
        assert!(said.contains(expected) && !said.contains('\n'), "{said}");
    }
}

/// A certificate for `name` in `dir`, signed by `by`, or by itself.
fn certificate(dir: &Path, name: &str, by: Option<&str>) {
    let key = dir.join(format!("{name}.key"));
    let crt = dir.join(format!("{name}.crt"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]);
    command.args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&crt);
    if let Some(by) = by {
        command.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.arg("-CA").arg(dir.join(format!("{by}.crt")));
        command.arg("-CAkey").arg(dir.join(format!("{by}.key")));
    }
    checked(&mut command);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
}

#[test]
fn tls_is_verified_in_full_with_own_certificates() {
    let dir = test_run().directory("tls");
    certificate(&dir, "ca", None);
    certificate(&dir, "other-ca", None);
    certificate(&dir, "localhost", Some("ca"));
    certificate(&dir, "app", Some("ca"));
    let path = |name: &str| dir.join(name).display().to_string();
    // The server runs as another user, if we are root.
    let server_key = format!("{}/server.key", dir.display());
    fs::copy(dir.join("localhost.key"), &server_key).expect("copy");
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres")
            .expect("look")
            .expect("postgres");
        nix::unistd::chown(server_key.as_str(), Some(user.uid), Some(user.gid)).expect("chown");
    }
    let hba = "local all all trust\nhostssl all app all cert\nhostssl all postgres all trust\n\
               hostnossl all plain all trust\nhostssl all plain all reject\n";
    let options = Options {
        hba: Some(hba.to_owned()),
        ..Options::default()
    };
    let server = Server::with(
        options
            .set("ssl", "on")
            .set("ssl_cert_file", &path("localhost.crt"))
            .set("ssl_key_file", &server_key)
            .set("ssl_ca_file", &path("ca.crt")),
    );
    server.psql("create role app login; create role plain login");
    let url = |user: &str, host: &str, rest: &str| {
        format!("postgres://{user}@{host}:{}/postgres?{rest}", server.port())
    };
    let own = format!("sslcert={}&sslkey={}", path("app.crt"), path("app.key"));
    let full = format!("sslmode=verify-full&sslrootcert={}", path("ca.crt"));
    run(async {
        for good in [
            url("postgres", "localhost", &full),
            url("app", "localhost", &format!("{full}&{own}")),
            url("postgres", "127.0.0.1", &full.replace("full", "ca")),
            url("postgres", "127.0.0.1", "sslmode=require"),
            url("postgres", "127.0.0.1", ""),
            // Where the server wants no TLS for this role, `prefer` goes without.
            url("plain", "127.0.0.1", ""),
            url("plain", "127.0.0.1", "sslmode=allow"),
            url("postgres", "127.0.0.1", "sslmode=allow"),
        ] {
            assert_eq!(
                observe(with(&[&good], &[])).await,
                Observed::NoSchema,
                "{good}"
            );
        }
        for bad in [
            url("postgres", "127.0.0.1", &full),
            url(
                "postgres",
                "localhost",
                &full.replace("ca.crt", "other-ca.crt"),
            ),
            url("postgres", "127.0.0.1", "sslmode=disable"),
            url("app", "localhost", &full),
            url("plain", "127.0.0.1", "sslmode=require"),
        ] {
            let said = refused(with(&[&bad], &[])).await;
            assert_eq!(said.fault, Fault::Final, "{bad}: {said:?}");
        }
    });
    // The system's roots, which know the server's authority here, count for
    // nothing beside a file that is named.
    let tried = |roots: &str| {
        let rest = format!("sslmode=verify-full&sslrootcert={}", path(roots));
        holder(&url("postgres", "localhost", &rest), &lease_name("tls"))
            .env("SSL_CERT_FILE", &path("ca.crt"))
            .sh("echo $SSL_CERT_FILE")
            .run()
    };
    let ended = tried("other-ca.crt").code(123);
    assert!(ended.says(&["certificate"]), "{ended:?}");
    let ended = tried("ca.crt").code(0);
    assert_eq!(ended.out.trim(), path("ca.crt"), "it stays the worker's");
    fs::set_permissions(dir.join("app.key"), fs::Permissions::from_mode(0o644)).expect("chmod");
    let open = url("app", "localhost", &format!("{full}&{own}"));
    let error = StoreSettings::new(Given::Urls(&[open]), "leasewrap", surroundings(&[]));
    let said = error.expect_err("others may use the key").to_string();
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn ipv6_is_reached() {
    let server = Server::with(
        Options {
            hba: Some("local all all trust\nhost all all ::1/128 trust\n".to_owned()),
            ..Options::default()
        }
        .set("listen_addresses", "::1"),
    );
    let url = format!("postgres://postgres@[::1]:{}/postgres", server.port());
    run(async {
        assert_eq!(observe(with(&[&url], &[])).await, Observed::NoSchema);
    });
}
