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

#[test]
fn a_child_that_is_stopped_before_it_executes_is_a_stopped_worker() {
    let mut guard = greeted();
    let _ = frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), 100);
    let stopped = Event::WorkerStopped { signal: 20 };
    assert_eq!(guard.step(stopped.clone(), at(100)), [], "not forked yet");
    let _ = guard.step(Event::Forked { pid: 42 }, at(100));
    assert_eq!(
        guard.step(stopped, at(101)),
        [Action::Send(FromGuard::WorkerStopped { signal: 20 })]
    );
    assert_eq!(
        guard.step(Event::WorkerContinued, at(102)),
        [Action::Send(FromGuard::WorkerContinued)]
    );
}

#[test]
fn a_stop_before_the_execution_waits_for_it() {
    let mut guard = greeted();
    let _ = frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), 100);
    let _ = guard.step(Event::Forked { pid: 42 }, at(100));
    let stop = ToGuard::Stop {
        signal: INT,
        kill_by: at(500),
    };
    // One that a signal has stopped right before would never execute.
    assert_eq!(frame(&mut guard, stop, 100), [Action::WakeWorker]);
    let mut executed = guard.clone();
    assert_eq!(
        executed.step(Event::Executed, at(101)),
        [
            Action::Send(FromGuard::Started { pid: 42 }),
            stop_tree(INT, StopTo::Tree),
        ]
    );
    // And an execution that hangs is not waited for.
    assert_eq!(guard.step(Event::Wake, at(500)), [Action::KillTree]);
}
