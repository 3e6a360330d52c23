//! A throwaway etcd of one member.

use std::process::{Child, Command, Stdio};

use super::run::{MARK, run};
use super::server::free_port;
use super::sys;
use super::wait::{SOON, until_true};

/// A running etcd; dropping it kills it.
pub struct Etcd {
    process: Child,
    port: u16,
    endpoint: String,
}

impl Etcd {
    /// Starts one, and waits until it is healthy.
    pub fn start() -> Self {
        let port = free_port();
        let [client, peer] = [port, free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        let dir = run().directory("etcd");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .env(MARK, run().dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start etcd: install Debian's package `etcd-server`");
        until_true("etcd is healthy", SOON, || {
            let mut asked = Command::new("etcdctl");
            asked.args(["--endpoints", &client, "endpoint", "health"]);
            asked.stdout(Stdio::null()).stderr(Stdio::null());
            let asked = asked.status();
            let asked = asked.expect("run etcdctl: install Debian's package `etcd-client`");
            asked.success()
        });
        Self {
            process,
            port,
            endpoint: client,
        }
    }

    /// Its URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The port of that.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it, or lets it go on.
    pub fn hang(&self, hung: bool) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        sys::kill(pid, if hung { libc::SIGSTOP } else { libc::SIGCONT });
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _result = self.process.kill();
        let _result = self.process.wait();
    }
}
