use super::*;
use crate::store::postgres::url::parse;

/// Variables and their values.
type Variables = &'static [(&'static str, &'static str)];

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Surroundings::new(variables, Some("me".to_owned()), PathBuf::from("/"))
}

fn resolved(url: &str, variables: &[(&str, &str)]) -> Result<Vec<Target>, UrlError> {
    resolve(parse(url)?, &surroundings(variables))
}

fn shown(url: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match resolved(url, variables) {
        Ok(targets) => targets.into_iter().map(|target| target.shown).collect(),
        Err(error) => panic!("{url}: {error}"),
    }
}

#[test]
fn hosts_and_ports_are_put_together_as_in_libpq() {
    let cases: &[(&str, Variables, &[&str])] = &[
        ("postgres://a", &[], &["a:5432"]),
        ("postgres://a:1,b,c:3", &[], &["a:1", "b:5432", "c:3"]),
        ("postgres://a,b?port=7", &[], &["a:7", "b:7"]),
        ("postgres://[::1]:9", &[], &["[::1]:9"]),
        (
            "postgres:///d?host=/run,x&port=1,2",
            &[],
            &["/run/.s.PGSQL.1", "x:2"],
        ),
        ("postgres://a?hostaddr=10.0.0.1", &[], &["10.0.0.1:5432"]),
        (
            "postgres://",
            &[("PGHOST", "x,y"), ("PGPORT", "3")],
            &["x:3", "y:3"],
        ),
        ("postgres://z", &[("PGHOST", "x")], &["z:5432"]),
    ];
    for (url, variables, expected) in cases {
        assert_eq!(shown(url, variables), *expected, "{url}");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let cases: &[(&str, Variables, &str)] = &[
        ("postgres://a:0", &[], "1 to 65535"),
        ("postgres://a:70000", &[], "port=70000"),
        ("postgres://u:s3cret/d", &[], "port=… cannot"),
        ("postgres://a,b,c?port=1,2", &[], "one for each host"),
        ("postgres://a,b?hostaddr=10.0.0.1", &[], "as many of one"),
        ("postgres://a?hostaddr=b", &[], "IP address"),
        ("postgres://a?sslmode=verify", &[], "verify-full"),
        (
            "postgres://a?target_session_attrs=standby",
            &[],
            "must be written",
        ),
        ("postgres://a?connect_timeout=5s", &[], "whole seconds"),
        ("postgres://a?options=x", &[], "-c NAME=VALUE"),
        (
            "postgres://a?sslmode=verify-ca&sslrootcert=/nowhere/ca",
            &[],
            "cannot be read",
        ),
        ("postgres://a?sslrootcert=system", &[], "verify-full"),
        (
            "postgres://a?sslmode=verify-ca",
            &[("HOME", "/nowhere")],
            "sslrootcert=PATH",
        ),
        (
            "postgres://a?service=nowhere",
            &[("PGSERVICEFILE", "/nowhere")],
            "no service file",
        ),
        (
            "postgres://a",
            &[("PGCHANNELBINDING", "require")],
            "PGCHANNELBINDING",
        ),
    ];
    for (url, variables, expected) in cases {
        let Err(error) = resolved(url, variables) else {
            panic!("{url} is taken");
        };
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
}

#[test]
fn user_and_database_have_their_defaults() {
    let targets = resolved("postgres://a", &[]).expect("it is right");
    assert_eq!(targets[0].options.get_username(), "me");
    assert_eq!(targets[0].options.get_database(), Some("me"));
    let targets = resolved("postgres://you@a/d", &[]).expect("it is right");
    assert_eq!(targets[0].options.get_username(), "you");
    assert_eq!(targets[0].options.get_database(), Some("d"));
}

#[test]
fn options_are_read_as_the_server_reads_them() {
    let parsed = parse_options(r"-c a.b=1 -cd=x\ y --work-mem=5MB").expect("it is right");
    let pairs: Vec<(&str, &str)> = parsed
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(pairs, [("a.b", "1"), ("d", "x y"), ("work_mem", "5MB")]);
}

#[test]
fn a_password_is_taken_out_of_messages() {
    let targets = resolved("postgres://u:hunter2@a", &[]).expect("it is right");
    assert_eq!(targets[0].scrubbed("no hunter2 here"), "no … here");
}

#[test]
fn the_default_socket_is_localhost_for_the_password_file() {
    let names = |hosts: &str| {
        let places = places(Some(hosts), None, None).expect("places");
        places
            .into_iter()
            .map(|place| place.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("/tmp,/var/run/postgresql/,/run/mine,h,"),
        ["localhost", "localhost", "/run/mine", "h", "localhost"]
    );
}

#[test]
fn certificates_may_have_words_of_any_encoding_between_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("roots");
    std::fs::write(&path, b"# Autorit\xe9 de certification\n").expect("write the file");
    let url = format!(
        "postgres://a?sslmode=verify-ca&sslrootcert={}",
        path.display()
    );
    let found = resolved(&url, &[]);
    assert!(found.is_ok(), "{:?}", found.err());
}

#[test]
fn the_default_roots_are_used_where_they_are_there() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().to_str().expect("it is UTF-8");
    let roots = |url: &str| {
        let targets = resolved(url, &[("HOME", path)]);
        targets.map(|targets| targets[0].roots()).map_err(drop)
    };
    let (ca, full) = (
        "postgres://a?sslmode=verify-ca",
        "postgres://a?sslmode=verify-full",
    );
    assert_eq!([roots(ca), roots(full)], [Err(()), Ok(Some(Roots::System))]);
    // Nothing is checked over a socket.
    assert_eq!(roots("postgres:///d?host=/run&sslmode=verify-ca"), Ok(None));

    let dir = home.path().join(".postgresql");
    std::fs::create_dir(&dir).expect("make it");
    std::fs::write(dir.join("root.crt"), "").expect("write it");
    for url in [ca, full, "postgres://a?sslmode=require"] {
        assert_eq!(roots(url), Ok(Some(Roots::Own)), "{url}");
    }
}
