//! A simulated leasewrap: the keeper's machine and the store's real code with
//! its two connections. Guard and worker are left out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::ids::{HolderId, Label, Value};
use leasewrap::lease::keeper::event::{Command, Event, GuardEvent, Transition};
use leasewrap::lease::keeper::{Config, Keeper, Now, Takeover};
use leasewrap::lease::record::{Grant, Term, Terms};
use leasewrap::lease::timing::{Chance, Timing, TimingOptions};
use leasewrap::store::{Notice, Store, Watch};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::contender::{Bench, clock};

/// What is told of a lease.
pub enum News {
    Acquired(Term),
    Renewed(Grant),
    IncarnationChanged,
    /// Notifications arrive.
    Listening,
    /// What must not happen.
    Lost(String),
}

/// The defaults of the command line.
pub fn config() -> Config {
    let timing = Timing::new(TimingOptions::default()).expect("defaults fit");
    let terms = Terms {
        ttl: timing.ttl(),
        takeover_delay: Duration::ZERO,
        hold_at_least: Duration::ZERO,
        label: Label::new("simulated").expect("it is a label"),
        value: Value::new("").expect("it is a value"),
    };
    Config {
        timing,
        slots: 1,
        terms,
        takeover: Takeover::Observed,
        wait: None,
        rejoin: false,
        precheck: false,
        attached: false,
    }
}

fn now() -> Now {
    Now {
        at: clock(),
        chance: Chance(rand::random()),
        fresh: HolderId(Uuid::new_v4()),
    }
}

/// Takes the lease and holds it, until it is lost or nobody listens. Behind a
/// pooler a leasewrap has no connection that `listens`, once it has seen that
/// nothing arrives there.
pub async fn hold<T: Copy>(
    which: T,
    bench: Bench,
    config: Arc<Config>,
    listens: bool,
    news: UnboundedSender<(T, News)>,
) {
    let mut store = bench.store();
    let mut keeper = Keeper::new(Arc::clone(&config), &now());
    let mut commands = VecDeque::from(keeper.start(&now()));
    commands.extend(keeper.step(Event::Guard(GuardEvent::Ready), &now()));
    let mut watch = None;
    loop {
        while let Some(command) = commands.pop_front() {
            let told = told(&command);
            let lost = matches!(told, Some(News::Lost(_)));
            if told.is_some_and(|told| news.send((which, told)).is_err()) || lost {
                return;
            }
            if let Some(event) = perform(&mut store, command, &config.terms).await {
                commands.extend(keeper.step(event, &now()));
            }
        }
        let pause = keeper
            .next_wakeup()
            .map_or(Duration::MAX, |at| at.saturating_since(clock()));
        let Some(term) = keeper.term().filter(|_| listens).cloned() else {
            sleep(pause).await;
            commands.extend(keeper.step(Event::Wake, &now()));
            continue;
        };
        let watch = watch.get_or_insert_with(|| store.watch());
        let event = match timeout(pause, watch.next()).await {
            Err(_elapsed) => Event::Wake,
            Ok(Notice::Unavailable(_)) => continue,
            Ok(notice) => {
                if notice == Notice::Connected && news.send((which, News::Listening)).is_err() {
                    return;
                }
                let limit = config.timing.call_timeout() / 3;
                Event::Checked(store.check(&term, limit).await)
            }
        };
        commands.extend(keeper.step(event, &now()));
    }
}

/// What there is to tell of a command.
fn told(command: &Command) -> Option<News> {
    match command {
        Command::Tell(Transition::Acquired { term, .. }) => Some(News::Acquired(term.clone())),
        Command::Tell(Transition::Renewed { grant, .. }) => Some(News::Renewed(grant.clone())),
        Command::Tell(Transition::IncarnationChanged { .. }) => Some(News::IncarnationChanged),
        Command::StopTree { .. } | Command::KillTree | Command::End(_) => {
            Some(News::Lost(format!("{command:?}")))
        }
        _ => None,
    }
}

/// The reply to a command that has one.
async fn perform<S: Store>(store: &mut S, command: Command, terms: &Terms) -> Option<Event> {
    Some(match command {
        Command::Observe { limit } => Event::Observed(store.observe(limit).await),
        Command::Init { limit } => Event::Initialised(store.init(limit).await),
        Command::Acquire { request, limit } => {
            let timed = store.acquire(&request, limit).await;
            Event::Acquired {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Command::Renew { term, limit } => {
            let timed = store.renew(&term, terms, limit).await;
            Event::Renewed {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Command::Settle { request, limit } => {
            let timed = store.settle(&request, limit).await;
            Event::Renewed {
                sent_at: timed.sent_at,
                reply: timed.reply,
            }
        }
        Command::Spawn { .. } => Event::Guard(GuardEvent::Started { pid: 1 }),
        _ => return None,
    })
}
