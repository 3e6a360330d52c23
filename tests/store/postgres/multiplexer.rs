//! A pooler that hands what a client asks for at its start on to whichever
//! session it lends it: a session then looks like the client's own, and is
//! lent to the next one in between. Simple messages alone.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::server::Server;

/// The protocol's version 3.0, and a request for TLS (the manual, "Message Formats").
const VERSION: u32 = 196_608;
const TLS: u32 = 80_877_103;

type Settings = BTreeMap<String, String>;

/// A session of the server, as its last client has set it.
struct Session {
    stream: TcpStream,
    settings: Settings,
}

/// The sessions that nobody uses, the one that has rested longest first.
type Idle = Arc<Mutex<VecDeque<Session>>>;

/// Begins to listen, with so many sessions of `server`; on which port.
pub fn start(server: &Server, sessions: usize) -> u16 {
    let idle: Idle = Arc::default();
    for _ in 0..sessions {
        let session = Session::open(server.port()).expect("a session of the server");
        idle.lock().unwrap().push_back(session);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let idle = Arc::clone(&idle);
            // Ends with its client.
            thread::spawn(move || serve(client, &idle));
        }
    });
    port
}

fn serve(mut client: TcpStream, idle: &Idle) -> io::Result<()> {
    let settings = loop {
        let start = packet(&mut client)?;
        match u32::from_be_bytes([start[0], start[1], start[2], start[3]]) {
            TLS => client.write_all(b"N")?,
            _ => break settings(&start[4..]),
        }
    };
    client.write_all(&message(b'R', &[0, 0, 0, 0]))?;
    client.write_all(&message(b'S', b"server_version\x0015.0\0"))?;
    client.write_all(&message(b'Z', b"I"))?;
    loop {
        let asked = read(&mut client)?;
        if asked[0] != b'Q' {
            return Ok(());
        }
        let mut session = loop {
            if let Some(session) = idle.lock().unwrap().pop_front() {
                break session;
            }
            thread::yield_now();
        };
        session.be(&settings)?;
        session.stream.write_all(&asked)?;
        loop {
            let answer = read(&mut session.stream)?;
            client.write_all(&answer)?;
            if answer[0] == b'Z' {
                break;
            }
        }
        idle.lock().unwrap().push_back(session);
    }
}

impl Session {
    fn open(port: u16) -> io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut start = VERSION.to_be_bytes().to_vec();
        start.extend(b"user\0postgres\0database\0postgres\0\0");
        let length = u32::try_from(start.len() + 4).expect("a short packet");
        stream.write_all(&[length.to_be_bytes().as_slice(), &start].concat())?;
        while read(&mut stream)?[0] != b'Z' {}
        let settings = Settings::new();
        Ok(Self { stream, settings })
    }

    /// Sets what the client has asked for.
    fn be(&mut self, settings: &Settings) -> io::Result<()> {
        if self.settings == *settings {
            return Ok(());
        }
        let set = settings.iter().map(|(name, value)| {
            let name = name.replace('.', "\".\"");
            format!("set \"{name}\" to '{value}';")
        });
        let sql = format!("{}\0", set.collect::<String>());
        self.stream.write_all(&message(b'Q', sql.as_bytes()))?;
        while read(&mut self.stream)?[0] != b'Z' {}
        self.settings.clone_from(settings);
        Ok(())
    }
}

/// What a start-up packet asks for: the `-c name=value` of `options`.
fn settings(start: &[u8]) -> Settings {
    let texts = String::from_utf8_lossy(start).into_owned();
    let mut texts = texts.split('\0');
    let options = texts.by_ref().find(|text| *text == "options");
    let given = options.and_then(|_| texts.next()).unwrap_or_default();
    let each = given
        .split("-c ")
        .filter_map(|pair| pair.trim().split_once('='));
    each.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// A message as it came.
fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(message(kind[0], &packet(stream)?))
}

/// What follows a length.
fn packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}
