//! What a PostgreSQL server answers, or whoever says that he is one: rows
//! that are right, and changes to their cells (the number of a cell, a length,
//! a text); or an error.
//!
//! words: src/store/postgres/fault.rs src/store/columns.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::time::Duration;

use leasewrap::lease::ids::LeaseName;
use leasewrap::lease::time::BootInstant;
use leasewrap::store::settings::{Given, Surroundings};
use leasewrap::store::{AnyStore, Store, StoreSettings};
use properties::{SECRET, rows, take};

const LIMIT: Duration = Duration::from_secs(10);

/// Every column that some statement asks for, and what is right there.
const COLUMNS: [(&str, Option<&str>); 46] = [
    ("slot", Some("0")),
    ("holder", Some("5e0a2c1e-0a4e-4a9b-8d7c-1f2e3d4c5b6a")),
    ("label", Some("x")),
    ("value", Some("")),
    ("token", Some("7")),
    ("closed_token", None),
    ("revision", Some("1")),
    ("ttl", Some("30.000000")),
    ("takeover_delay", Some("0")),
    ("hold_at_least", Some("0")),
    ("released", Some("f")),
    ("expires_in", Some("20.5")),
    ("held_for", Some("100")),
    ("reserved_for", None),
    ("reserved_in", None),
    ("row_incarnation", Some("7/00000002")),
    ("request_token", None),
    ("request_kind", None),
    ("request_to", None),
    ("incarnation", Some("7/00000002")),
    ("now", Some("1700000000.0")),
    ("session", Some("")),
    ("paused", Some("f")),
    ("pause_reason", Some("")),
    ("pause_role", Some("me")),
    ("pause_since_ms", Some("1700000000000")),
    ("in_recovery", Some("f")),
    ("now_ms", Some("1700000000000")),
    ("lease", Some("fuzzed")),
    ("changes", Some("1")),
    ("acquired_ms", Some("1700000000000")),
    ("renewed_ms", Some("1700000000000")),
    ("expires_ms", Some("1700000030000")),
    ("released_ms", None),
    ("application", Some("leasewrap fuzzed")),
    ("client", Some("local")),
    ("since_ms", Some("1700000000000")),
    ("at_ms", Some("1700000000000")),
    ("what", Some("acquired")),
    ("why", Some("")),
    ("known", Some("100000")),
    ("seen_holder", Some("00000000-0000-0000-0000-000000000000")),
    ("seen_token", Some("7")),
    ("seen_label", Some("x")),
    ("seen_released", Some("f")),
    ("seen_closed", Some("f")),
];

/// A message of the protocol ("Message Formats" in PostgreSQL's manual).
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn count(number: usize) -> [u8; 2] {
    u16::try_from(number).expect("few").to_be_bytes()
}

fn description() -> Vec<u8> {
    let mut body = count(COLUMNS.len()).to_vec();
    for (name, _) in COLUMNS {
        body.extend(name.bytes());
        // No table; a text of any length, as text.
        body.extend([0, 0, 0, 0, 0, 0, 0]);
        body.extend(25_u32.to_be_bytes());
        body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    }
    message(b'T', &body)
}

type Row = Vec<Option<Vec<u8>>>;

fn row(cells: &Row) -> Vec<u8> {
    let mut body = count(cells.len()).to_vec();
    for cell in cells {
        let length = cell
            .as_ref()
            .map_or(-1, |cell| i32::try_from(cell.len()).expect("short"));
        body.extend(length.to_be_bytes());
        body.extend(cell.iter().flatten());
    }
    message(b'D', &body)
}

/// The answer to whatever is asked.
fn answer(mut data: &[u8]) -> Vec<u8> {
    let right = || -> Row {
        let cells = COLUMNS
            .iter()
            .map(|(_, value)| value.map(|value| value.as_bytes().to_vec()));
        cells.collect()
    };
    let mut sets = vec![vec![right()]];
    while let [number, length, ..] = *data {
        data = &data[2..];
        let count = sets.len();
        let set = sets.last_mut().expect("one");
        match usize::from(number) {
            number if number < COLUMNS.len() => {
                let text = (length < 255).then(|| take(&mut data, usize::from(length)).to_vec());
                if let Some(row) = set.last_mut() {
                    row[number] = text;
                }
            }
            0..100 if set.len() < 4 => set.push(right()),
            100..110 if count < 3 => sets.push(vec![right()]),
            110 => drop(set.pop()),
            200 => return refusal(data),
            _ => {}
        }
    }
    let mut answer = Vec::new();
    for set in sets {
        answer.extend(description());
        answer.extend(set.iter().flat_map(row));
        answer.extend(message(b'C', b"SELECT 1\0"));
    }
    answer.extend(message(b'Z', b"I"));
    answer
}

/// An error, which repeats the password where a byte 1 is.
fn refusal(mut data: &[u8]) -> Vec<u8> {
    let code = take(&mut data, 5);
    let code = if code.len() == 5 && code.is_ascii() && !code.contains(&0) {
        code
    } else {
        b"42P01"
    };
    let parts: Vec<_> = data.split(|byte| *byte == 1).collect();
    let mut said = parts.join(SECRET.as_bytes());
    said.retain(|byte| *byte != 0);
    let body = [b"SERROR\0VERROR\0C", code, b"\0M", &said, b"\0\0"].concat();
    [message(b'E', &body), message(b'Z', b"I")].concat()
}

static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// One session, until its end.
fn session(mut stream: UnixStream) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).saturating_sub(4)];
    stream.read_exact(&mut body)?;
    let mut greeting = message(b'R', &[0; 4]);
    greeting.extend(message(b'S', b"server_version\x0015.1\0"));
    greeting.extend(message(b'K', &[0; 8]));
    greeting.extend(message(b'Z', b"I"));
    stream.write_all(&greeting)?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        body.resize(length.saturating_sub(4), 0);
        stream.read_exact(&mut body)?;
        match head[0] {
            b'Q' => {
                let answer = ANSWER.lock().expect("no panic").clone();
                stream.write_all(&answer)?;
            }
            b'X' => return Ok(()),
            other => panic!("the message {other} is not of the simple protocol"),
        }
    }
}

struct Scene {
    runtime: tokio::runtime::Runtime,
    store: AnyStore,
}

impl Scene {
    fn new() -> Self {
        let name = format!("leasewrap-guided-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let socket = directory.join(".s.PGSQL.5432");
        let _left_by_another_one = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).expect("bind");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(|| session(stream));
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let urls = [format!(
            "postgres://u:{SECRET}@/db?host={}",
            directory.display()
        )];
        let surroundings = Surroundings::new([], None, "/".into());
        let settings = StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings);
        let name = LeaseName::new("fuzzed").expect("a name");
        let clock = || BootInstant::from_nanos(1_000_000_000_000);
        let store = AnyStore::new(settings.expect("a URL"), name, clock);
        Self { runtime, store }
    }
}

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if properties::gives_it_away(data) {
        return;
    }
    *ANSWER.lock().expect("no panic") = answer(data);
    SCENE.with_borrow_mut(|Scene { runtime, store }| {
        rows::observed(runtime.block_on(store.observe(LIMIT)));
        rows::asked(runtime, store, LIMIT);
    });
});
