//! A TCP proxy that breaks lines: each direction passes, holds back, swallows
//! or delays what it gets; connections can be reset, new ones refused or left
//! hanging. All of it can be changed while it runs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Pass,
    /// They wait until the flow changes: a line that is cut, where the kernel
    /// repeats what was lost once the line is mended.
    Hold,
    /// They vanish.
    Swallow,
    /// Each piece passes this much later.
    Delay(Duration),
}

/// What happens to new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// They are connected to the server.
    Pass,
    /// They are accepted and left alone, until this changes.
    Hang,
    /// They are reset.
    Reset,
}

#[derive(Debug, Clone)]
struct Rules {
    port: u16,
    to_server: Flow,
    to_client: Flow,
    accept: Accept,
    /// When a client sends this, all answers are held back from then on.
    hold_after: Option<String>,
    held: u32,
    over: bool,
}

struct Shared {
    rules: Mutex<Rules>,
    changed: Condvar,
    open: Mutex<Vec<Arc<Pair>>>,
    accepted: Mutex<u32>,
}

/// One connection's two ends.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// A proxy in front of one server; dropping it resets its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts a proxy to `port` on 127.0.0.1; everything passes.
    pub fn to(port: u16) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, port)
    }

    /// The same, for clients that reach this host by another address.
    pub fn on(own: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((own, 0)).expect("listen");
        let address = listener.local_addr().expect("the proxy's address");
        let rules = Rules {
            port,
            to_server: Flow::Pass,
            to_client: Flow::Pass,
            accept: Accept::Pass,
            hold_after: None,
            held: 0,
            over: false,
        };
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            changed: Condvar::new(),
            open: Mutex::new(Vec::new()),
            accepted: Mutex::new(0),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &of_thread));
        Self { address, shared }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of the superuser on `database`, through the proxy.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> u32 {
        *locked(&self.shared.accepted)
    }

    /// Lets everything pass, what was held back first.
    pub fn mend(&self) {
        self.change(|rules| {
            rules.to_server = Flow::Pass;
            rules.to_client = Flow::Pass;
            rules.accept = Accept::Pass;
            rules.hold_after = None;
        });
    }

    /// Cuts the line silently: nothing passes, new connections hang.
    pub fn cut(&self) {
        self.change(|rules| {
            rules.to_server = Flow::Hold;
            rules.to_client = Flow::Hold;
            rules.accept = Accept::Hang;
        });
    }

    /// What happens to what clients send.
    pub fn to_server(&self, flow: Flow) {
        self.change(|rules| rules.to_server = flow);
    }

    /// What happens to what the server sends.
    pub fn to_client(&self, flow: Flow) {
        self.change(|rules| rules.to_client = flow);
    }

    /// What happens to new connections.
    pub fn accept(&self, accept: Accept) {
        self.change(|rules| rules.accept = accept);
    }

    /// Lets a request with this text pass, and holds back its answer and all
    /// that come after it, until the line is mended.
    pub fn hold_the_answer_to(&self, text: &str) {
        self.change(|rules| rules.hold_after = Some(text.to_owned()));
    }

    /// Whether such a request has come.
    pub fn has_held(&self) -> bool {
        locked(&self.shared.rules).held > 0
    }

    /// From now on new connections go to this port: another server.
    pub fn redirect(&self, port: u16) {
        self.change(|rules| rules.port = port);
    }

    /// Resets all present connections.
    pub fn reset(&self) {
        for pair in locked(&self.shared.open).drain(..) {
            reset(&pair.client);
            reset(&pair.server);
        }
        // Threads that hold something back look whether their connection is still there.
        self.change(|_| ());
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut locked(&self.shared.rules));
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|rules| rules.over = true);
        self.reset();
        // Wakes the accepting thread.
        let _connection = TcpStream::connect(self.address);
    }
}

/// Has a later close, or shutdown and close, send RST in place of FIN.
fn reset(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _result = setsockopt(stream, sockopt::Linger, &linger);
    let _result = stream.shutdown(Shutdown::Read);
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        if locked(&shared.rules).over {
            return;
        }
        *locked(&shared.accepted) += 1;
        let shared = Arc::clone(shared);
        std::thread::spawn(move || connect(client, &shared));
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) {
    let mut rules = locked(&shared.rules);
    while rules.accept == Accept::Hang && !rules.over {
        rules = shared
            .changed
            .wait(rules)
            .unwrap_or_else(PoisonError::into_inner);
    }
    let refused = rules.over || rules.accept == Accept::Reset;
    let port = rules.port;
    drop(rules);
    let server = if refused {
        None
    } else {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    };
    let Some(server) = server else {
        return reset(&client);
    };
    let _result = client.set_nodelay(true).and(server.set_nodelay(true));
    let pair = Arc::new(Pair { client, server });
    locked(&shared.open).push(Arc::clone(&pair));
    let other = (Arc::clone(&pair), Arc::clone(shared));
    let back = std::thread::spawn(move || pump(&other.0, Direction::ToClient, &other.1));
    pump(&pair, Direction::ToServer, shared);
    let _result = back.join();
    locked(&shared.open).retain(|open| !Arc::ptr_eq(open, &pair));
}

/// Moves the bytes of one direction until its end; its end of file moves like a byte.
fn pump(pair: &Arc<Pair>, direction: Direction, shared: &Shared) {
    let (mut from, mut to) = match direction {
        Direction::ToServer => (&pair.client, &pair.server),
        Direction::ToClient => (&pair.server, &pair.client),
    };
    let mut buffer = vec![0; 65_536];
    loop {
        let count = from.read(&mut buffer);
        let Some(flow) = flow_of(pair, direction, shared) else {
            return;
        };
        let Ok(count @ 1..) = count else {
            let _result = to.shutdown(Shutdown::Write);
            return;
        };
        if let Direction::ToServer = direction {
            look_for(&buffer[..count], shared);
        }
        match flow {
            Flow::Swallow => continue,
            Flow::Delay(delay) => std::thread::sleep(delay),
            Flow::Pass | Flow::Hold => (),
        }
        if to.write_all(&buffer[..count]).is_err() {
            let _result = from.shutdown(Shutdown::Read);
            return;
        }
    }
}

/// Holds the answers back, when the text that was asked for goes by. Before
/// the request itself is passed on: so its answer cannot slip through.
fn look_for(piece: &[u8], shared: &Shared) {
    let mut rules = locked(&shared.rules);
    let Some(text) = &rules.hold_after else {
        return;
    };
    if piece
        .windows(text.len())
        .any(|window| window == text.as_bytes())
    {
        rules.hold_after = None;
        rules.held += 1;
        rules.to_client = Flow::Hold;
    }
}

/// The rule for a piece, once nothing holds it back; `None` when its
/// connection was reset.
fn flow_of(pair: &Arc<Pair>, direction: Direction, shared: &Shared) -> Option<Flow> {
    let mut rules = locked(&shared.rules);
    loop {
        let flow = match direction {
            Direction::ToServer => rules.to_server,
            Direction::ToClient => rules.to_client,
        };
        if rules.over
            || !locked(&shared.open)
                .iter()
                .any(|open| Arc::ptr_eq(open, pair))
        {
            return None;
        }
        if flow != Flow::Hold {
            return Some(flow);
        }
        rules = shared
            .changed
            .wait(rules)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
