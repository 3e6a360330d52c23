//! Who is compared: leasewrap, and what people put in front of a command
//! today. What is not installed is left out, and named.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::etcd::Etcd;
use crate::support::installation::on_path;
use crate::support::leasewrap::binary;
use crate::support::run::run;
use crate::support::server::Server;

/// The ttl of everything that has one.
pub const TTL_SECONDS: u64 = 5;

/// A wrapper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrapper {
    /// These two look after a process tree, and know no lock.
    Tini,
    DumbInit,
    Flock,
    /// A session that holds an advisory lock, and runs the command by `\!`.
    Psql,
    Etcdctl,
    /// From PyPI. It does not wait for a lease that is held.
    Dislock,
    Leasewrap,
    /// With `--pid-namespace`.
    Contained,
}

/// Everybody who is there, and what they need.
pub struct Field<'a> {
    server: &'a Server,
    etcd: Option<Etcd>,
    /// In the order of the tables.
    pub wrappers: Vec<Wrapper>,
}

impl Wrapper {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tini => "tini (no lock)",
            Self::DumbInit => "dumb-init (no lock)",
            Self::Flock => "flock",
            Self::Psql => "psql, advisory lock",
            Self::Etcdctl => "etcdctl lock",
            Self::Dislock => "dislock",
            Self::Leasewrap => "leasewrap",
            Self::Contained => "leasewrap --pid-namespace",
        }
    }

    /// Whether it waits for a lock that is held.
    pub fn waits(self) -> bool {
        ![Self::Tini, Self::DumbInit, Self::Dislock].contains(&self)
    }
}

impl<'a> Field<'a> {
    /// Looks who is there.
    pub fn new(server: &'a Server) -> Self {
        let mut wrappers = Vec::new();
        let etcd = on_path("etcd")
            .and(on_path("etcdctl"))
            .map(|_| Etcd::start());
        let all = [
            (Wrapper::Tini, on_path("tini").is_some()),
            (Wrapper::DumbInit, on_path("dumb-init").is_some()),
            (Wrapper::Flock, true),
            (Wrapper::Psql, true),
            (Wrapper::Etcdctl, etcd.is_some()),
            (Wrapper::Dislock, on_path("dislock").is_some()),
        ];
        for (wrapper, there) in all {
            if there {
                wrappers.push(wrapper);
            } else {
                println!("not installed, so left out: {}", wrapper.name());
            }
        }
        wrappers.extend([Wrapper::Leasewrap, Wrapper::Contained]);
        server.psql("create table lease_of_dislock (key text primary key, value text, expire_at timestamptz)");
        Self {
            server,
            etcd,
            wrappers,
        }
    }

    /// The port of the server that keeps its locks, where there is one.
    pub fn port(&self, wrapper: Wrapper) -> Option<u16> {
        match wrapper {
            Wrapper::Tini | Wrapper::DumbInit | Wrapper::Flock => None,
            Wrapper::Etcdctl => self.etcd.as_ref().map(Etcd::port),
            Wrapper::Psql | Wrapper::Dislock | Wrapper::Leasewrap | Wrapper::Contained => {
                Some(self.server.port())
            }
        }
    }

    /// Stops the server that keeps its locks, or lets it go on.
    pub fn hang(&self, wrapper: Wrapper, hung: bool) {
        match (wrapper, &self.etcd) {
            (Wrapper::Etcdctl, Some(etcd)) => etcd.hang(hung),
            _ if hung => self.server.freeze(),
            _ => self.server.thaw(),
        }
    }

    /// Takes the lock from whoever holds it, and leaves it to the next one:
    /// as an operator would who has taken the wrong one.
    pub fn steal(&self, wrapper: Wrapper, lock: &str) {
        match wrapper {
            Wrapper::Flock => fs::remove_file(run().dir().join(lock)).expect("remove the file"),
            Wrapper::Psql => drop(self.server.psql(
                "select pg_terminate_backend(pid) from pg_locks
                 where locktype = 'advisory' and granted",
            )),
            Wrapper::Etcdctl => {
                let mut command = Command::new("etcdctl");
                let endpoint = self.etcd.as_ref().map_or("", |etcd| etcd.endpoint());
                command.args(["--endpoints", endpoint, "del", "--prefix", lock]);
                let deleted = command.stdout(Stdio::null()).status();
                assert!(deleted.expect("run etcdctl").success());
            }
            // Nobody would wait to take it.
            Wrapper::Tini | Wrapper::DumbInit | Wrapper::Dislock => {}
            Wrapper::Leasewrap | Wrapper::Contained => drop(self.server.psql(&format!(
                "update leasewrap.lease set holder = gen_random_uuid(), token = token + 1,
                 released_at = clock_timestamp() where name = '{lock}'"
            ))),
        }
    }

    /// The command line that runs `worker` under the lock `lock`.
    pub fn command(&self, wrapper: Wrapper, lock: &str, worker: &[String]) -> Command {
        self.command_by(wrapper, self.port(wrapper), lock, worker)
    }

    /// The same, with the server at another port: a line that can be cut.
    pub fn command_by(
        &self,
        wrapper: Wrapper,
        port: Option<u16>,
        lock: &str,
        worker: &[String],
    ) -> Command {
        let port = port.unwrap_or_default();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let mut command = match wrapper {
            Wrapper::Tini => {
                let mut command = Command::new("tini");
                command.args(["-s", "--"]).args(worker);
                command
            }
            Wrapper::DumbInit => {
                let mut command = Command::new("dumb-init");
                command.args(worker);
                command
            }
            Wrapper::Flock => {
                let mut command = Command::new("flock");
                command.arg(run().dir().join(lock)).args(worker);
                command
            }
            Wrapper::Psql => {
                let mut command = Command::new("psql");
                let take = format!("select pg_advisory_lock(hashtext('{lock}'))");
                command.args(["-qAtX", "-d", &url, "-c", &take]);
                // Words of ours alone: nothing to be quoted.
                command.args(["-c", &format!("\\! exec {}", worker.join(" "))]);
                command
            }
            Wrapper::Etcdctl => {
                let mut command = Command::new("etcdctl");
                let endpoint = format!("http://127.0.0.1:{port}");
                command.args(["--endpoints", &endpoint, "lock", "--ttl"]);
                command.args([&TTL_SECONDS.to_string(), lock]).args(worker);
                command
            }
            Wrapper::Dislock => {
                let mut command = Command::new("dislock");
                command.env("BENCH_URL", &url).env("LOCK_KEY", lock);
                command.env("LOCK_TABLE", "lease_of_dislock");
                command.env("LOCK_STRATEGY", "lease");
                command.env("RUN_LOCK_TTL_SECONDS", TTL_SECONDS.to_string());
                command.arg("BENCH_URL").args(worker);
                command
            }
            Wrapper::Leasewrap | Wrapper::Contained => {
                let mut command = Command::new(binary());
                command.args(["-q", "--db", &url, "--name", lock]);
                if wrapper == Wrapper::Contained {
                    command.arg("--pid-namespace");
                }
                command.args(["--ttl", &format!("{TTL_SECONDS}s"), "--"]);
                command.args(worker);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let ours = [Wrapper::Leasewrap, Wrapper::Contained].contains(&wrapper);
        if !ours {
            // They say a lot at each end.
            command.stderr(Stdio::null());
        }
        command
    }
}
