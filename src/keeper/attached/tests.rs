use super::super::frames::Frames;
use super::super::link::tests::on_a_loop;
use super::*;
use crate::sys::socket::Channel;

/// A place that a guest has, and the guest's end of the channel.
fn taken() -> (Attached, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut attached = Attached {
        guests: mpsc::channel(1).1,
        seat: Seat::Vacant,
        yields: false,
        ahead: VecDeque::new(),
    };
    let peer = Peer {
        pid: 1,
        uid: 0,
        gid: 0,
    };
    attached.came(Guest {
        frames: Frames::new(&ours).unwrap(),
        channel: ours,
        peer,
        end: None,
    });
    (attached, theirs)
}

fn says(guest: &Channel, frame: FromGuard) {
    guest.send(&FromAttach::Guard(frame).encode());
}

#[test]
fn an_answer_that_was_not_read_yet_is_no_silence() {
    on_a_loop(async || {
        let (mut attached, guest) = taken();
        let asked_at = clock::now() + ASK_EVERY;
        assert_eq!(attached.wake(asked_at), News::Nothing);
        says(&guest, FromGuard::Ack { seq: 1 });
        assert_eq!(attached.wake(asked_at + PATIENCE * 2), News::Nothing);
    });
}

#[test]
fn one_that_answers_nothing_stands_still_whatever_it_says() {
    on_a_loop(async || {
        let (mut attached, guest) = taken();
        let asked_at = clock::now() + ASK_EVERY;
        assert_eq!(attached.wake(asked_at), News::Nothing);
        let word = FromGuard::WorkerStopped { signal: 20 };
        for _ in 0..READ_AHEAD * 2 {
            says(&guest, word.clone());
        }
        let gone = News::Event(GuardEvent::Gone);
        assert_eq!(attached.wake(asked_at + PATIENCE), gone);
        assert_eq!(attached.ahead.len(), READ_AHEAD);
        for _ in 0..READ_AHEAD * 2 {
            assert_eq!(attached.next().await, News::of(word.clone()));
        }
    });
}
