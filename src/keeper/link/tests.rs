use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};

use super::*;
use crate::sys::socket::{Channel, Received};
use crate::wire::MAX_FRAME;

/// A process that passes for a guard, and that guard's end of the channel.
struct Guard {
    process: Child,
    channel: Channel,
}

impl Guard {
    fn new() -> (Link, Self) {
        let (ours, theirs) = Channel::pair().unwrap();
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        let link = Link::new(GuardProcess::of_child(&process, ours)).unwrap();
        (
            link,
            Self {
                process,
                channel: theirs,
            },
        )
    }

    fn says(&self, frame: &FromGuard) {
        self.channel.send(&frame.encode());
    }

    /// Answers what it was asked.
    fn answers(&self) {
        let mut buffer = [0; MAX_FRAME];
        while let Received::Frame(frame) = self.channel.receive(&mut buffer) {
            if let Ok(ToGuard::Ping { seq } | ToGuard::Deadline { seq, .. }) =
                ToGuard::decode(frame)
            {
                self.says(&FromGuard::Ack { seq });
            }
        }
    }

    /// Which signal ends it: this one, where none has yet.
    fn ends_by(&mut self, signal: i32) -> Option<i32> {
        let pid = self.process.id().cast_signed();
        crate::sys::process::signal(pid, signal).unwrap();
        self.process.wait().unwrap().signal()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn on_a_loop(run: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn told(link: &mut Link) -> News {
    loop {
        let news = link.next().await;
        if news.is_any() {
            return news;
        }
    }
}

/// Long after any limit.
fn later() -> BootInstant {
    clock::now() + Duration::from_secs(9)
}

#[test]
fn an_answer_that_was_not_read_yet_is_no_silence() {
    on_a_loop(async || {
        let (mut link, mut guard) = Guard::new();
        link.kill(clock::now());
        guard.answers();
        let empty = FromGuard::Empty { killed: 2 };
        guard.says(&empty);
        assert_eq!(link.wake(later(), &[]), News::Nothing);
        assert_eq!(guard.ends_by(libc::SIGTERM), Some(libc::SIGTERM));
        assert_eq!(told(&mut link).await, News::of(empty));
    });
}

#[test]
fn a_guard_that_answers_nothing_is_killed_whatever_it_says() {
    on_a_loop(async || {
        let (mut link, mut guard) = Guard::new();
        link.kill(clock::now());
        let word = FromGuard::WorkerStopped { signal: 20 };
        for _ in 0..READ_AHEAD * 2 {
            guard.says(&word);
        }
        assert_eq!(link.wake(later(), &[]), News::Nothing);
        assert_eq!(guard.ends_by(libc::SIGTERM), Some(libc::SIGKILL));
        // What it has said is told nevertheless, and before its end.
        for _ in 0..READ_AHEAD * 2 {
            assert_eq!(told(&mut link).await, News::of(word.clone()));
        }
        assert_eq!(told(&mut link).await, News::Event(GuardEvent::Gone));
    });
}

#[test]
fn a_stranger_is_noted_once_the_guard_has_answered_after_it_was_seen() {
    on_a_loop(async || {
        let (mut link, guard) = Guard::new();
        link.tell(&ToGuard::Signal(libc::SIGHUP), clock::now());
        guard.answers();
        let (_, stranger) = Guard::new();
        let pid = stranger.process.id().cast_signed();
        link.note_strangers(&[], clock::now());
        assert_eq!(link.next().await, News::Nothing);
        assert!(!strangers::noted().contains(&pid));
        guard.answers();
        assert_eq!(link.next().await, News::Nothing);
        assert!(strangers::noted().contains(&pid));
        drop(stranger);
        assert!(!strangers::noted().contains(&pid));
    });
}
