//! The database's side of the loop: one task owns the store and performs one
//! call after the other, so that no call can ever hold up the loop.

use tokio::sync::mpsc;

use crate::lease::keeper::event::{Command, Event};
use crate::lease::record::{Acquire, Term, Terms};
use crate::store::Store;

/// A call of the machine's, as [`Command`] carries it.
#[derive(Debug)]
enum Call {
    Observe,
    Init,
    Acquire(Acquire),
    Renew(Term),
    Settle(Acquire),
    Release(Term, crate::lease::ids::Incarnation),
}

/// The loop's end of the task that owns the store.
pub struct Calls {
    requests: mpsc::Sender<(Call, std::time::Duration)>,
    replies: mpsc::Receiver<Event>,
}

/// The machine has one call under way at a time; the room is for a release
/// that it asks for while the reply of the call before is being handled.
const CALLS: usize = 4;

impl Calls {
    /// Hands `store` to a task of its own.
    pub fn start<S: Store + 'static>(mut store: S, terms: Terms) -> Self {
        let (requests, mut calls) = mpsc::channel(CALLS);
        let (answer, replies) = mpsc::channel(CALLS);
        tokio::spawn(async move {
            while let Some((call, limit)) = calls.recv().await {
                let event = perform(&mut store, call, limit, &terms).await;
                if answer.send(event).await.is_err() {
                    break;
                }
            }
        });
        Self { requests, replies }
    }

    /// Passes a database command on; hands every other command back.
    ///
    /// # Errors
    /// The command itself, where it is not one for the database.
    pub fn perform(&self, command: Command) -> Result<(), Command> {
        let (call, limit) = match command {
            Command::Observe { limit } => (Call::Observe, limit),
            Command::Init { limit } => (Call::Init, limit),
            Command::Acquire { request, limit } => (Call::Acquire(request), limit),
            Command::Renew { term, limit } => (Call::Renew(term), limit),
            Command::Settle { request, limit } => (Call::Settle(request), limit),
            Command::Release {
                term,
                incarnation,
                limit,
            } => (Call::Release(term, incarnation), limit),
            other => return Err(other),
        };
        // Full or closed cannot be while the machine keeps to one call at a
        // time; a call that is not sent is a call without an answer, and its
        // absence is what the deadline is for.
        if self.requests.try_send((call, limit)).is_err() {
            tracing::error!(event = "call_dropped", "a database call found the queue full");
        }
        Ok(())
    }

    /// The next reply. Cancel safe.
    pub async fn next(&mut self) -> Event {
        match self.replies.recv().await {
            Some(event) => event,
            // The task ends only with this struct.
            None => std::future::pending().await,
        }
    }
}

async fn perform<S: Store>(
    store: &mut S,
    call: Call,
    limit: std::time::Duration,
    terms: &Terms,
) -> Event {
    match call {
        Call::Observe => Event::Observed(store.observe(limit).await),
        Call::Init => Event::Initialised(store.init(limit).await),
        Call::Acquire(request) => {
            let timed = store.acquire(&request, limit).await;
            Event::Acquired {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Call::Renew(term) => {
            let timed = store.renew(&term, terms, limit).await;
            Event::Renewed {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Call::Settle(request) => {
            let timed = store.settle(&request, limit).await;
            Event::Renewed {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Call::Release(term, incarnation) => {
            Event::Released(store.release(&term, &incarnation, limit).await)
        }
    }
}
