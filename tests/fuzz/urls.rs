//! What names the database: URLs and keyword strings, the environment's
//! variables, password files and service files.

use std::fs;

use leasewrap::store::StoreSettings;
use leasewrap::store::settings::{Given, Surroundings};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::support::run::run;

const RUNS: u32 = 6_000;

const SECRET: &str = "hunter2secret";

/// Pieces of which URLs are made, in any order.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "postgres://",
        "postgresql://",
        "sqlite:",
        "sqlite://",
        "user",
        ":",
        "@",
        "/",
        "?",
        "&",
        "=",
        ",",
        "[",
        "]",
        "::1",
        "127.0.0.1",
        "localhost",
        "5432",
        "65536",
        "-1",
        "%",
        "%2",
        "%zz",
        "%00",
        "%2Ftmp",
        "host=",
        "hostaddr=",
        "port=",
        "dbname=",
        "user=",
        "passfile=",
        "service=",
        "sslmode=",
        "verify-full",
        "sslrootcert=",
        "system",
        "sslcert=",
        "sslkey=",
        "options=",
        "-c%20x=y",
        "'",
        "\\",
        "\\'",
        " ",
        "\n",
        "\u{0}",
        "target_session_attrs=",
        "read-write",
        "connect_timeout=",
        "99999999999999999999",
        "application_name=",
        "é",
        "\u{202e}",
        "#",
        "..",
    ];
    prop_oneof![
        6 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
        1 => any::<char>().prop_map(String::from),
    ]
}

fn url() -> impl Strategy<Value = String> {
    (prop::bool::ANY, vec(piece(), 0..14)).prop_map(|(proper, pieces)| {
        let rest = pieces.concat();
        if proper {
            format!("postgres://u:{SECRET}@{rest}")
        } else {
            rest
        }
    })
}

fn variables() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = [
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGOPTIONS",
        "PGSSLMODE",
        "PGSSLROOTCERT",
        "PGCONNECT_TIMEOUT",
        "PGTARGETSESSIONATTRS",
        "PGLOADBALANCEHOSTS",
    ];
    let name = proptest::sample::select(names.to_vec()).prop_map(str::to_owned);
    let value = vec(piece(), 0..4).prop_map(|pieces| pieces.concat());
    vec((name, value), 0..4)
}

/// Settings, or one line without the password.
fn looked_at(url: &str, variables: Vec<(String, String)>) -> Result<(), TestCaseError> {
    let surroundings = Surroundings::new(variables, Some("nobody".to_owned()), "/".into());
    let urls = [url.to_owned()];
    if let Err(error) = StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings) {
        let said = error.to_string();
        prop_assert!(!said.contains('\n'), "more than a line: {said:?}");
        prop_assert!(!said.contains(SECRET), "the password: {said:?}");
        prop_assert!(
            said.chars().count() < 600,
            "{} characters",
            said.chars().count()
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(RUNS))]

    #[test]
    fn urls_are_read_or_refused_in_one_line(url in url(), variables in variables()) {
        looked_at(&url, variables)?;
    }

    #[test]
    fn password_and_service_files_are_read_or_refused_in_one_line(
        passwords in vec(prop_oneof![vec(piece(), 0..12).prop_map(|p| p.concat().into_bytes()),
                                     vec(any::<u8>(), 0..60)], 0..4),
        services in vec(piece(), 0..12),
    ) {
        let dir = run().dir();
        let (pass, service) = (dir.join("fuzzed.pass"), dir.join("fuzzed.service"));
        let mut text = passwords.join(&b'\n');
        text.extend(format!("\n*:*:*:*:{SECRET}\n").bytes());
        fs::write(&pass, text).expect("write");
        fs::write(&service, format!("[one]\n{}\n[two]\nhost=h\n", services.concat())).expect("write");
        let given = |name: &str, path: &std::path::Path| {
            (name.to_owned(), path.display().to_string())
        };
        let variables = vec![given("PGPASSFILE", &pass), given("PGSERVICEFILE", &service)];
        looked_at("postgres://u@h/db", variables.clone())?;
        looked_at("postgres:///?service=one", variables)?;
    }
}
