//! PgBouncer in front of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::installation::{as_owner, checked, tool};
use crate::support::run::run;
use crate::support::server::{Server, free_port};
use crate::support::sys;
use crate::support::wait::{SOON, until_true};

/// A running PgBouncer, reached by a Unix socket or by TCP.
pub struct Bouncer {
    dir: PathBuf,
    /// On 127.0.0.1, and in the name of the socket.
    pub port: u16,
    child: Child,
}

impl Bouncer {
    /// In front of `server`, with `pool_mode` and further lines of configuration.
    pub fn start(server: &Server, mode: &str, more: &str) -> Self {
        let dir = run().directory("pgbouncer");
        let port = free_port();
        let configuration = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\n\
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
        let child = launch(&ini);
        let bouncer = Self { dir, port, child };
        bouncer.wait();
        bouncer
    }

    fn wait(&self) {
        until_true("PgBouncer listens", SOON, || {
            UnixStream::connect(self.socket()).is_ok()
        });
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Kills it and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it after a [`Self::kill`].
    pub fn start_again(&mut self) {
        self.child = launch(&self.dir.join("pgbouncer.ini"));
        self.wait();
    }

    /// Says something to its console.
    pub fn command(&self, command: &str) {
        let mut psql = Command::new(tool("psql"));
        psql.args(["-XAtq", "-U", "postgres", "-d", "pgbouncer", "-p"]);
        psql.arg(self.port.to_string());
        checked(psql.arg("-h").arg(&self.dir).args(["-c", command]));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            sys::kill(pid, libc::SIGKILL);
        }
        let _status = self.child.wait();
        let _socket = fs::remove_file(self.socket());
    }

    /// The URL of a database, by way of PgBouncer.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port={}&user=postgres",
            self.dir.display(),
            self.port
        )
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(ini: &Path) -> Child {
    let mut command = as_owner(Path::new("/usr/sbin/pgbouncer"));
    command.arg("-q").arg(ini);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .spawn()
        .expect("start pgbouncer: install Debian's package `pgbouncer`")
}
