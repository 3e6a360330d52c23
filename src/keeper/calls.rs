//! The database's side of the loop: one task owns the store and performs one
//! call after the other, so that no call can ever hold up the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::lease::ids::Incarnation;
use crate::lease::keeper::event::{Command, Event};
use crate::lease::record::{Acquire, Term, Terms};
use crate::store::Store;
use crate::sys::clock;

/// A call of the machine's, as [`Command`] carries it.
#[derive(Debug)]
enum Call {
    Observe,
    Init,
    Acquire(Acquire),
    Renew(Term),
    Settle(Acquire),
    Release(Term, Incarnation),
    /// Not the machine's: a notification came.
    Check(Term),
}

/// A call, its limit, and the words for the history that go with it.
type Request = (Call, Duration, Option<String>);

/// The loop's end of the task that owns the store.
pub struct Calls {
    requests: mpsc::Sender<Request>,
    replies: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    /// Calls under way.
    awaited: usize,
    /// A check is under way; and another one is wanted after it.
    checking: bool,
    check_again: Option<(Term, Duration)>,
    why: Option<String>,
    finds_lost_clients: Arc<AtomicBool>,
}

/// The machine has one call under way at a time; the rest is for a check.
const CALLS: usize = 4;

/// What share of a call's limit the store has to make ready for the next: so
/// much later that one may come.
const READY_IN: u32 = 10;

/// What has to fit into that time: so many times what the last answer took.
/// It takes two round trips, and one that comes too late costs the connection.
const READY_TAKES: u32 = 4;

/// How long the end may wait for the store to be closed.
pub(super) const CLOSING: Duration = Duration::from_millis(500);

impl Calls {
    /// Hands `store` to a task of its own.
    pub fn start<S: Store + 'static>(mut store: S, terms: Terms) -> Self {
        let (requests, mut calls) = mpsc::channel::<Request>(CALLS);
        let (answer, replies) = mpsc::channel(CALLS);
        let finds_lost_clients = Arc::new(AtomicBool::new(false));
        let finds = Arc::clone(&finds_lost_clients);
        let task = tokio::spawn(async move {
            while let Some((call, limit, why)) = calls.recv().await {
                if let Some(why) = why {
                    store.because(&why);
                }
                let sent = clock::now();
                let event = perform(&mut store, call, limit, &terms).await;
                let took = clock::now().saturating_since(sent);
                finds.store(store.finds_lost_clients(), Ordering::Relaxed);
                if answer.send(event).await.is_err() {
                    break;
                }
                let ready_in = limit / READY_IN;
                if calls.is_empty() && took * READY_TAKES < ready_in {
                    tokio::select! {
                        biased;
                        () = answer.closed() => break,
                        () = store.get_ready(ready_in) => {}
                    }
                }
            }
            store.close(CLOSING).await;
        });
        Self {
            requests,
            replies,
            task,
            awaited: 0,
            checking: false,
            check_again: None,
            why: None,
            finds_lost_clients,
        }
    }

    /// [`Store::finds_lost_clients`], as of the last answer.
    pub fn finds_lost_clients(&self) -> bool {
        self.finds_lost_clients.load(Ordering::Relaxed)
    }

    /// Why what is called from now on is called, for the history.
    pub fn because(&mut self, why: String) {
        self.why = Some(why);
    }

    /// Sends a database command off. (All others are none of its business.)
    pub fn perform(&mut self, command: Command) {
        match command {
            Command::Observe { limit } => self.send(Call::Observe, limit),
            Command::Init { limit } => self.send(Call::Init, limit),
            Command::Acquire { request, limit } => self.send(Call::Acquire(request), limit),
            Command::Renew { term, limit } => self.send(Call::Renew(term), limit),
            Command::Settle { request, limit } => self.send(Call::Settle(request), limit),
            Command::Release {
                term,
                incarnation,
                limit,
            } => self.send(Call::Release(term, incarnation), limit),
            Command::Precheck
            | Command::Spawn { .. }
            | Command::Extend { .. }
            | Command::StopTree { .. }
            | Command::KillTree
            | Command::Dismiss(_)
            | Command::NewGuard
            | Command::Tell(_)
            | Command::End(_) => {}
        }
    }

    /// Reads one's own row, because of a notification: one check at a time,
    /// and one more for whatever comes meanwhile.
    pub fn check(&mut self, term: Term, limit: Duration) {
        if self.checking {
            self.check_again = Some((term, limit));
        } else {
            self.checking = true;
            self.send(Call::Check(term), limit);
        }
    }

    fn send(&mut self, call: Call, limit: Duration) {
        // Full or closed cannot be while the machine keeps to one call at a
        // time (checks leave it its room); were it so, the deadline holds.
        let why = self.why.take();
        if self.requests.try_send((call, limit, why)).is_ok() {
            self.awaited += 1;
        } else {
            tracing::error!(
                event = "call-dropped",
                "a call to the database found the queue full"
            );
        }
    }

    /// Nothing more is called: the store is closed, unless a call is still
    /// under way, and may hang.
    pub async fn close(self) {
        let Self {
            requests,
            replies,
            task,
            awaited,
            ..
        } = self;
        drop((requests, replies));
        if awaited == 0 {
            let _closed_or_not = timeout(CLOSING, task).await;
        }
    }

    /// The next reply. Cancel safe.
    pub async fn next(&mut self) -> Event {
        // The task ends only with this struct.
        let Some(event) = self.replies.recv().await else {
            return std::future::pending().await;
        };
        self.awaited = self.awaited.saturating_sub(1);
        if let Event::Checked(_) = event {
            self.checking = false;
            if let Some((term, limit)) = self.check_again.take() {
                self.check(term, limit);
            }
        }
        event
    }
}

async fn perform<S: Store>(store: &mut S, call: Call, limit: Duration, terms: &Terms) -> Event {
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
        Call::Check(term) => Event::Checked(store.check(&term, limit).await),
        Call::Release(term, incarnation) => {
            Event::Released(store.release(&term, &incarnation, limit).await)
        }
    }
}
