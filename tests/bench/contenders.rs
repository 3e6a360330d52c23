//! Who is compared: leasewrap, and what people put in front of a command
//! today. What is not installed is left out, and named.

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
        self != Self::Dislock
    }
}

impl<'a> Field<'a> {
    /// Looks who is there.
    pub fn new(server: &'a Server) -> Self {
        let mut wrappers = vec![Wrapper::Flock, Wrapper::Psql];
        let etcd = on_path("etcd")
            .and(on_path("etcdctl"))
            .map(|_| Etcd::start());
        let rest = [
            (Wrapper::Etcdctl, etcd.is_some()),
            (Wrapper::Dislock, on_path("dislock").is_some()),
        ];
        for (wrapper, there) in rest {
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

    /// The command line that runs `worker` under the lock `lock`.
    pub fn command(&self, wrapper: Wrapper, lock: &str, worker: &[String]) -> Command {
        let url = self.server.url();
        let mut command = match wrapper {
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
                let endpoint = self.etcd.as_ref().map_or("", |etcd| etcd.endpoint());
                command.args(["--endpoints", endpoint, "lock", "--ttl"]);
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
