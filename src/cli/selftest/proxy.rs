//! A line to a database that can be cut: a proxy in this process. What is cut
//! passes nothing on and ends nothing, as a network does that loses packets;
//! new connections hang.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::store::postgres::{Hop, Place};

/// Proxies in front of all servers of one database. Dropping it ends them.
pub struct Proxy {
    urls: Vec<String>,
    cut: watch::Sender<bool>,
    tasks: Vec<AbortHandle>,
}

impl Proxy {
    /// In front of these servers; everything passes.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn before(hops: &[Hop]) -> std::io::Result<Self> {
        let mut proxy = Self {
            urls: Vec::new(),
            cut: watch::Sender::new(false),
            tasks: Vec::new(),
        };
        for hop in hops {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            proxy.urls.push(hop.url(listener.local_addr()?.port()));
            let place = Arc::new(hop.place.clone());
            let task = tokio::spawn(serve(listener, place, proxy.cut.subscribe()));
            proxy.tasks.push(task.abort_handle());
        }
        Ok(proxy)
    }

    /// The servers behind it.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Cuts the line for good.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Its connections end with it.
async fn serve(listener: TcpListener, place: Arc<Place>, cut: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(connect(client, Arc::clone(&place), cut.clone()));
            }
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn connect(client: TcpStream, place: Arc<Place>, mut cut: watch::Receiver<bool>) {
    passing(&mut cut).await;
    // A server that is not there: the client sees its connection end.
    match &*place {
        Place::Tcp(host, port) => {
            if let Ok(server) = TcpStream::connect((host.as_str(), *port)).await {
                drop(server.set_nodelay(true).and(client.set_nodelay(true)));
                join(client, server, cut).await;
            }
        }
        Place::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                join(client, server, cut).await;
            }
        }
    }
}

async fn join(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    cut: watch::Receiver<bool>,
) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::join!(
        pump(from_client, to_server, cut.clone()),
        pump(from_server, to_client, cut)
    );
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await;
        passing(&mut cut).await;
        let passed = match count {
            Ok(count @ 1..) => to.write_all(&buffer[..count]).await,
            Ok(0) | Err(_) => {
                // The other end may be gone already.
                drop(to.shutdown().await);
                return;
            }
        };
        if passed.is_err() {
            return;
        }
    }
}

/// Waits until the line is not cut.
async fn passing(cut: &mut watch::Receiver<bool>) {
    // An error: whoever could mend it is gone, and ends this task.
    if cut.wait_for(|cut| !cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}
