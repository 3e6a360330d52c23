//! Workers that do not come to a start.

use super::*;

#[test]
fn a_command_that_cannot_be_executed_is_reported_when_nothing_is_left() {
    let mut guard = greeted();
    let _ = frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), 100);
    let _ = guard.step(Event::Forked { pid: 42 }, at(100));
    let why = NotStarted::Exec { errno: 2 };
    let failed = guard.step(Event::NotExecuted(why.clone()), at(101));
    assert_eq!(failed, [Action::KillTree]);
    let ended = Event::WorkerEnded(WorkerEnd::Exited(127));
    assert_eq!(guard.step(ended, at(101)), []);
    assert_eq!(
        guard.step(Event::TreeEmpty { killed: 0 }, at(101)),
        [Action::Send(FromGuard::NotStarted(why))]
    );
}

#[test]
fn a_fork_that_fails_is_reported_whatever_was_asked_for_meanwhile() {
    let message = "fork: no memory".to_owned();
    let failed = NotStarted::Failed {
        message: message.clone(),
    };
    for killed in [false, true] {
        let mut guard = greeted();
        let _ = frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), 100);
        if killed {
            assert_eq!(frame(&mut guard, ToGuard::Kill, 101), [Action::KillTree]);
        }
        let message = message.clone();
        assert_eq!(
            guard.step(Event::NotForked { message }, at(102)),
            [Action::Send(FromGuard::NotStarted(failed.clone()))]
        );
        assert_eq!(guard.self_kill_at(), None);
    }
}
