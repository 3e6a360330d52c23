//! A pod: `serve`, `attach`, and the directory that both have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::scene::Scene;
use crate::support::leasewrap::{Builder, Leasewrap, leasewrap};
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::wait::SOON;

/// For faults after which nobody has to wait for it.
pub const LONG: Duration = Duration::from_secs(20);
/// For a holder that must keep its lease for longer than this.
pub const KEPT: Duration = Duration::from_secs(8);
/// For faults that end at the deadline.
pub const SHORT: Duration = Duration::from_secs(3);
/// A worker that does what it can to live on.
pub const STUBBORN: [&str; 4] = ["children=2", "daemon", "ignore=15", "ignore=1"];

/// A lease of its own, and a socket of its own.
pub struct Pod {
    pub scene: Scene,
    socket: PathBuf,
}

impl Pod {
    pub fn new(fault: &str, ttl: Duration) -> Self {
        Self {
            scene: Scene::new(fault, ttl),
            socket: run().directory("pod").join("s"),
        }
    }

    /// Another pod with the same lease.
    pub fn beside(other: &Self) -> Self {
        let mut pod = Self::new(&other.scene.fault, other.scene.ttl(1.0));
        pod.scene.name.clone_from(&other.scene.name);
        pod
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `serve` on the shared server.
    pub fn serve(&self) -> Builder {
        self.serve_on(&shared().url())
    }

    pub fn serve_on(&self, url: &str) -> Builder {
        subcommand("serve", &self.socket)
            .option("--db", url)
            .option("--name", &self.scene.name)
            .ttl(&format!("{}ms", self.scene.ttl(1.0).as_millis()))
    }

    /// `attach` without a worker yet.
    pub fn attach(&self) -> Builder {
        subcommand("attach", &self.socket)
    }

    /// `attach` with a witness.
    pub fn witness(&self, options: &[&str]) -> Builder {
        self.attach().worker(&self.scene.log.worker(options))
    }

    /// Both, once the worker works.
    #[track_caller]
    pub fn hold(&self, worker: &[&str]) -> Holding {
        self.hold_by(self.serve(), worker)
    }

    #[track_caller]
    pub fn hold_by(&self, serve: Builder, worker: &[&str]) -> Holding {
        let serve = serve.spawn();
        let (attach, token) = self.scene.start(self.witness(worker), worker);
        Holding {
            serve,
            attach,
            token,
        }
    }

    /// Another host that runs a witness as soon as it can.
    pub fn rival_with(&self, worker: &[&str]) -> Leasewrap {
        self.scene.leasewrap(&shared().url(), worker).spawn()
    }

    /// Another host, which stands by for the same lease.
    #[track_caller]
    pub fn rival(&self) -> Leasewrap {
        self.scene.stand_by(&shared().url())
    }
}

/// A pod whose worker works.
pub struct Holding {
    pub serve: Leasewrap,
    pub attach: Leasewrap,
    pub token: i64,
}

/// A subcommand with this socket, and a log for machines.
pub fn subcommand(name: &str, socket: &Path) -> Builder {
    leasewrap()
        .text()
        .switch(name)
        .option("--log-format", "json")
        .option("--socket", &socket.display().to_string())
}

/// Waits until `serve` has a socket: who starts `attach` before gets it too,
/// but waits.
#[track_caller]
pub fn listens(socket: &Path) {
    crate::support::wait::until_true("serve listens", SOON, || socket.exists());
}
