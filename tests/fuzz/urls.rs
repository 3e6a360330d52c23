//! What names the database: URLs and keyword strings, the environment's
//! variables, password files and service files.

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::properties::{SECRET, gives_it_away, urls};
use crate::support::run::run;

const RUNS: u32 = 6_000;

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

/// One with a password, or any text.
fn url() -> impl Strategy<Value = (u8, String)> {
    let text = vec(piece(), 0..14).prop_map(|pieces| pieces.concat());
    (0..2 * urls::WAYS, text)
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

proptest! {
    #![proptest_config(cases(RUNS))]

    #[test]
    fn urls_are_read_or_refused_in_one_line((way, text) in url(), variables in variables()) {
        prop_assume!(!gives_it_away(text.as_bytes()));
        if way < urls::WAYS {
            let url = urls::with_password(way, &text);
            urls::nobody_sees_it(&url);
            urls::read_or_refused(&url, variables);
        } else {
            urls::read_or_refused(&text, variables);
        }
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
        urls::read_or_refused("postgres://u@h/db", variables.clone());
        urls::read_or_refused("postgres:///?service=one", variables);
    }
}
