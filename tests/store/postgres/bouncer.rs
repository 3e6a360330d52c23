//! PgBouncer in front of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::support::installation::as_owner;
use crate::support::run::run;
use crate::support::server::Server;
use crate::support::sys;
use crate::support::wait::{SOON, until_true};

/// A running PgBouncer, reached by a Unix socket.
pub struct Bouncer {
    dir: PathBuf,
    child: Child,
}

impl Bouncer {
    /// In front of `server`, with `pool_mode` and further lines of configuration.
    pub fn start(server: &Server, mode: &str, more: &str) -> Self {
        let dir = run().directory("pgbouncer");
        let configuration = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {}\nauth_type = any\npool_mode = {mode}\nlogfile = {}\n\
             max_client_conn = 500\ndefault_pool_size = 20\n{more}\n",
            server.dir().display(),
            server.port(),
            dir.display(),
            dir.join("log").display(),
        );
        // Without users a database needs a forced one; `any` takes whoever comes.
        let configuration = configuration.replace("port=", "user=postgres port=");
        let ini = dir.join("pgbouncer.ini");
        fs::write(&ini, configuration).expect("write pgbouncer.ini");
        fs::set_permissions(&ini, fs::Permissions::from_mode(0o644)).expect("open pgbouncer.ini");
        let mut command = as_owner(Path::new("/usr/sbin/pgbouncer"));
        command.arg("-q").arg(&ini);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .expect("start pgbouncer: install Debian's package `pgbouncer`");
        let bouncer = Self { dir, child };
        let socket = bouncer.dir.join(".s.PGSQL.6432");
        until_true("PgBouncer listens", SOON, || socket.exists());
        bouncer
    }

    /// The URL of a database, by way of PgBouncer.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port=6432&user=postgres",
            self.dir.display()
        )
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            sys::kill(pid, libc::SIGKILL);
        }
        let _status = self.child.wait();
    }
}
