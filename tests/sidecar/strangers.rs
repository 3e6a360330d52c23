//! Whoever else connects to the socket: they can neither stop `serve` nor
//! keep a guard out.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use leasewrap::wire::attach::{FromAttach, ToAttach};
use leasewrap::wire::{FromGuard, Hello, MAX_FRAME, ToGuard, VERSION};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, connect, listen,
    recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use proptest::test_runner::{Config, TestRunner};

use crate::pod::{LONG, Pod, listens};
use crate::support::proc;
use crate::support::user::is_root;
use crate::support::wait::{SOON, until, until_true};

/// Somebody at a socket.
struct Stranger(OwnedFd);

impl Stranger {
    fn socket() -> OwnedFd {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap()
    }

    /// One that connects; `None` while too many wait at the door.
    fn at(path: &Path) -> Option<Self> {
        let socket = Self::socket();
        let timeout = TimeVal::milliseconds(10_000);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).unwrap();
        setsockopt(&socket, sockopt::SendTimeout, &timeout).unwrap();
        let address = UnixAddr::new(path).unwrap();
        // Between bind and listen there is a file already.
        let connected = until("somebody listens", SOON, || {
            let connected = connect(socket.as_raw_fd(), &address);
            (connected != Err(Errno::ECONNREFUSED)).then_some(connected)
        });
        connected.ok()?;
        Some(Self(socket))
    }

    fn says(&self, frame: &[u8]) -> bool {
        send(self.0.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL).is_ok()
    }

    /// The next frame; `None` at the end.
    fn hears(&self) -> Option<ToAttach> {
        let mut buffer = [0; MAX_FRAME];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        ToAttach::decode(&buffer[..length]).ok()
    }
}

fn hello() -> Hello {
    use std::os::unix::fs::MetadataExt;
    Hello {
        version: VERSION,
        time_namespace: std::fs::metadata("/proc/self/ns/time").map_or(0, |ns| ns.ino()),
    }
}

const ATTACH: FromAttach = FromAttach::Attach {
    first_process: false,
};

#[test]
fn another_version_is_refused_on_both_sides() {
    let pod = Pod::new("sidecar-version", LONG);
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let stranger = Stranger::at(pod.socket()).unwrap();
    let other = Hello {
        version: VERSION + 1,
        ..hello()
    };
    let mut frame = FromAttach::Hello(other.clone()).encode();
    frame.push(7);
    assert!(stranger.says(&frame));
    assert_eq!(stranger.hears(), Some(ToAttach::Hello(hello())));
    assert_eq!(stranger.hears(), None);
    let refused = serve.wait_event("stranger");
    let words = refused["message"].as_str().unwrap();
    assert!(
        words.contains(&format!("version {}", VERSION + 1)),
        "{words}"
    );
    assert_eq!(refused["pid"], std::process::id());
    pod.attach().sh("exit 3").run().code(3);
    drop(serve);

    let mut frame = ToAttach::Hello(other).encode();
    frame.push(7);
    let ended = greeted_by(&pod, &frame);
    assert!(
        ended.says(&["version", "run the same leasewrap"]),
        "{ended:?}"
    );
}

#[test]
fn another_time_namespace_is_refused_on_both_sides() {
    let pod = Pod::new("sidecar-time-namespace", LONG);
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let stranger = Stranger::at(pod.socket()).unwrap();
    let other = Hello {
        time_namespace: 1,
        ..hello()
    };
    assert!(stranger.says(&FromAttach::Hello(other.clone()).encode()));
    assert_eq!(stranger.hears(), Some(ToAttach::Hello(hello())));
    assert_eq!(stranger.hears(), None);
    let refused = serve.wait_event("stranger").to_string();
    assert!(refused.contains("time namespace"), "{refused}");
    drop(serve);
    let ended = greeted_by(&pod, &ToAttach::Hello(other).encode());
    assert!(ended.says(&["another time namespace"]), "{ended:?}");
    if is_root() {
        let serve = pod.serve().spawn();
        listens(pod.socket());
        let attach = pod.attach().sh("exit 1");
        let attach = attach.below(&["unshare", "--time", "--boottime", "1000", "--fork"]);
        let ended = attach.run().code(125);
        assert!(ended.says(&["another time namespace"]), "{ended:?}");
        drop(serve);
    }
}

/// What an attach makes of a serve that greets with this frame.
fn greeted_by(pod: &Pod, frame: &[u8]) -> crate::support::leasewrap::Ended {
    let _result = std::fs::remove_file(pod.socket());
    let false_serve = Stranger::socket();
    bind(
        false_serve.as_raw_fd(),
        &UnixAddr::new(pod.socket()).unwrap(),
    )
    .unwrap();
    listen(&false_serve, Backlog::new(4).unwrap()).unwrap();
    let attach = pod.attach().sh("exit 1").spawn();
    let connection = accept(&false_serve).unwrap();
    send(connection.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL).unwrap();
    let ended = attach.end().code(125);
    drop(connection);
    let _result = std::fs::remove_file(pod.socket());
    ended
}

#[test]
fn silence_and_garbage_keep_nobody_out() {
    let pod = Pod::new("sidecar-strangers", LONG);
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let silent: Vec<_> = (0..40).filter_map(|_| Stranger::at(pod.socket())).collect();
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0],
        &[0xff; 40],
        &[1; MAX_FRAME + 1],
        &ATTACH.encode(),
        &FromAttach::Guard(FromGuard::Empty { killed: 1 }).encode(),
    ];
    for frame in garbage {
        let stranger = Stranger::at(pod.socket()).unwrap();
        stranger.says(frame);
        assert_eq!(stranger.hears(), None, "{frame:?}");
    }
    pod.attach().sh("exit 3").run().code(3);
    serve.wait_event("stranger");
    // After a second they have to go.
    for stranger in &silent {
        assert_eq!(stranger.hears(), None);
    }
    pod.attach().sh("exit 4").run().code(4);
}

#[test]
fn one_that_takes_the_place_can_hold_up_nothing() {
    let pod = Pod::new("sidecar-impostor", LONG);
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let stranger = Stranger::at(pod.socket()).unwrap();
    stranger.says(&FromAttach::Hello(hello()).encode());
    stranger.says(&ATTACH.encode());
    assert_eq!(stranger.hears(), Some(ToAttach::Hello(hello())));
    assert_eq!(stranger.hears(), Some(ToAttach::Attached));
    assert!(matches!(
        stranger.hears(),
        Some(ToAttach::Guard(ToGuard::Start(_)))
    ));
    // A flood of what means nothing: serve renews all the same.
    let renewed = |row: &str| row.parse::<i64>().unwrap_or(0);
    let revision = || renewed(&pod.scene.row(crate::support::server::shared(), "revision"));
    let before = revision();
    let ack = FromAttach::Guard(FromGuard::Ack { seq: 0 }).encode();
    let flood = std::thread::spawn(move || while stranger.says(&ack) {});
    until_true("it renews", SOON, || revision() > before + 1);
    serve.signal(libc::SIGTERM);
    serve.wait_event("stopping");
    until_true("it hurries", SOON, || {
        serve.signal(libc::SIGTERM);
        serve
            .log()
            .iter()
            .any(|line| line.contains("guard-does-not-kill") || line.contains("stands-still"))
    });
    // Without a word of the tree it renews as long as the connection stands.
    assert!(proc::alive(serve.pid()));
    serve.signal(libc::SIGKILL);
    flood.join().unwrap();
    serve.end().code(137);
}

/// Frames made at random, from bytes and from pieces of real ones, by somebody
/// who is a stranger, or in the guard's place.
#[test]
fn frames_at_random_neither_block_nor_end_serve() {
    let pod = Pod::new("sidecar-fuzz", Duration::from_secs(2));
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let real: Vec<Vec<u8>> = vec![
        FromAttach::Hello(hello()).encode(),
        ATTACH.encode(),
        FromAttach::Stopping { signal: 15 }.encode(),
        FromAttach::Guard(FromGuard::Started { pid: 1 }).encode(),
        FromAttach::Guard(FromGuard::Empty { killed: 3 }).encode(),
        FromAttach::Guard(FromGuard::WorkerStopped { signal: 19 }).encode(),
        FromAttach::Guard(FromGuard::LeftBehind {
            processes: vec!["1 x".to_owned(); 9],
        })
        .encode(),
    ];
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 1..200);
    let mutation = (0..real.len(), 0..64_usize, proptest::num::u8::ANY);
    let frames = proptest::collection::vec((bytes, mutation, 0..4_u8), 1..12);
    let cases = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(cases)
        .run(&(frames, proptest::bool::ANY), |(frames, seated)| {
            let Some(stranger) = Stranger::at(pod.socket()) else {
                return Ok(());
            };
            if seated {
                stranger.says(&real[0]);
                stranger.says(&real[1]);
            }
            for (bytes, (which, at, byte), kind) in frames {
                let frame = match kind {
                    0 => bytes,
                    1 => real[which].clone(),
                    _ => {
                        let mut frame = real[which].clone();
                        let at = at % frame.len();
                        frame[at] = byte;
                        frame
                    }
                };
                stranger.says(&frame);
            }
            Ok(())
        })
        .unwrap();
    assert!(proc::alive(serve.pid()), "{:?}", serve.log());
    // A busy host is too slow for a short ttl, now and then.
    let ends = (0..5).map(|_| pod.attach().sh("exit 3").run());
    let ended = ends.into_iter().find(|ended| ended.code != 122);
    ended.expect("one that was in time").code(3);
    serve.signal(libc::SIGTERM);
    serve.end().code(143);
}
