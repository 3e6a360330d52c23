//! `--listen`: pages for people, probes and Prometheus.
//!
//! They are served by a thread of their own, with a runtime of its own, so
//! that slow, hostile or many clients cannot hold up a renewal; and there is
//! a limit to all they can use: connections (the oldest gives way, so that a
//! probe gets through whatever others hold open), time, and bytes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::signal::SigSet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub mod board;
pub mod listen;
pub mod metered;
pub mod metrics;
mod respond;
pub mod snapshot;

use listen::Listener;
use metrics::Metrics;
use respond::respond;
use snapshot::Snapshot;

/// How many connections are open at a time.
const CONNECTIONS: usize = 64;

/// How long a client may take to ask.
const HEADER: Duration = Duration::from_secs(5);

/// How long a connection lasts; a browser opens the next one.
const CONNECTION: Duration = Duration::from_secs(60);

/// The most that a request's head may have, in bytes.
const HEAD: usize = 16 * 1024;

/// Of the thread.
const STACK: usize = 256 * 1024;

/// What is served.
pub struct Site {
    /// The keeper, as it stands.
    pub snapshot: watch::Receiver<Snapshot>,
    /// What is counted.
    pub metrics: Metrics,
    /// How many lines of the log were dropped.
    pub dropped_lines: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Reads the boot clock.
    pub clock: fn() -> crate::lease::time::BootInstant,
}

/// Starts to serve, until the process ends.
///
/// # Errors
/// When there can be no thread or runtime.
pub fn start(listener: Listener, site: Site) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("lw-http".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // Signals are for the main thread.
            if SigSet::all().thread_block().is_ok() {
                runtime.block_on(serve(listener, Arc::new(site)));
            }
        })?;
    Ok(())
}

async fn serve(listener: Listener, site: Arc<Site>) {
    let failed = match listener {
        Listener::Tcp(listener) => match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => accept_all(&site, async || Ok(listener.accept().await?.0)).await,
            Err(error) => error,
        },
        Listener::Unix(listener) => match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => accept_all(&site, async || Ok(listener.accept().await?.0)).await,
            Err(error) => error,
        },
    };
    tracing::error!(
        event = "http-failed",
        "cannot serve the pages of --listen: {failed}"
    );
}

/// Never ends.
async fn accept_all<S>(site: &Arc<Site>, accept: impl AsyncFn() -> io::Result<S>) -> io::Error
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut open = Connections::default();
    loop {
        match accept().await {
            Ok(stream) => open.add(stream, site),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Out of descriptors or memory: accepting again at once would spin. What
/// concerns one connection alone (accept(2)) is over already.
async fn pause_after(error: &io::Error) {
    const EACH: [io::ErrorKind; 3] = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    if !EACH.contains(&error.kind()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The connections that are open, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Connections {
    fn add<S>(&mut self, stream: S, site: &Arc<Site>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        if self.handles.len() >= CONNECTIONS
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        let site = Arc::clone(site);
        self.handles
            .push_back(self.tasks.spawn(connection(stream, site)));
    }
}

async fn connection<S>(stream: S, site: Arc<Site>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|request| {
        let response = respond(&request, &site);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    // Clients that go, or that do not speak HTTP, are no news.
    drop(tokio::time::timeout(CONNECTION, connection).await);
}

#[cfg(test)]
mod tests;
