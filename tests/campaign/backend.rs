//! The database of a world, and what can be done to it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::bouncer::Bouncer;
use crate::plan::Setup;
use crate::support::installation::checked;
use crate::support::run::run;
use crate::support::server::{Options, Server, Stop};
use crate::support::wait::{SOON, maybe};

/// The database of a world.
pub struct Backend {
    bouncer: Option<Bouncer>,
    server: Option<Server>,
    replica: Option<Server>,
    disk: Option<Disk>,
    file: PathBuf,
}

impl Backend {
    /// Sets it up.
    pub fn new(setup: Setup) -> Self {
        let mut options = Options {
            faketime: setup == Setup::Clock,
            ..Options::default()
        };
        if setup == Setup::SmallDisk {
            options = options
                .set("min_wal_size", "2MB")
                .set("max_wal_size", "4MB");
        }
        let server = (setup != Setup::File).then(|| Server::with(options));
        let replica = server.as_ref().filter(|_| setup == Setup::Pair);
        let replica = replica.map(|server| server.replica(Options::default()));
        let pooled = server.as_ref().filter(|_| setup == Setup::Pooled);
        let bouncer = pooled.map(|server| Bouncer::start(server, "transaction", ""));
        let small = server.as_ref().filter(|_| setup == Setup::SmallDisk);
        let disk = small.map(Disk::below);
        Self {
            file: run().file("leases").with_extension("db"),
            bouncer,
            server,
            replica,
            disk,
        }
    }

    /// Where contenders connect to; none for a file.
    pub fn port(&self) -> Option<u16> {
        let pooled = self.bouncer.as_ref().map(|bouncer| bouncer.port);
        pooled.or_else(|| self.server.as_ref().map(Server::port))
    }

    /// The URL of the file.
    pub fn file_url(&self) -> String {
        format!("sqlite:{}", self.file.display())
    }

    /// The file.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }

    /// The server that writes.
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// The pooler.
    pub fn bouncer(&mut self) -> Option<&mut Bouncer> {
        self.bouncer.as_mut()
    }

    /// The replica gets nothing from now on.
    pub fn cut_the_stream(&self) {
        let Some(replica) = &self.replica else { return };
        let quietly = |sql| _ = replica.try_psql("postgres", sql);
        quietly("alter system set primary_conninfo = ''");
        quietly("select pg_reload_conf()");
    }

    /// Waits until the replica has all that the primary has.
    pub fn catch_up(&self) {
        let (Some(primary), Some(replica)) = (&self.server, &self.replica) else {
            return;
        };
        let end = primary.psql("select pg_current_wal_lsn()");
        let ask = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        let _in_time = maybe(SOON, || (replica.psql(&ask) == "t").then_some(()));
    }

    /// The primary dies before its replica takes its place: never do two of
    /// them take writes.
    pub fn fail_over(&mut self) {
        let Some(replica) = self.replica.take() else {
            return;
        };
        if let Some(old) = self.server.replace(replica) {
            old.stop(Stop::Kill);
        }
        if let Some(new) = &self.server {
            new.promote();
        }
    }

    /// A new replica in place of one that was promoted.
    pub fn rebuild(&mut self) {
        if let (None, Some(server)) = (&self.replica, &self.server) {
            self.replica = Some(server.replica(Options::default()));
        }
    }

    /// Fills the file system of the server's log, and has it written on.
    pub fn fill_the_disk(&self) {
        let (Some(disk), Some(server)) = (&self.disk, &self.server) else {
            return;
        };
        disk.fill();
        let write = "select pg_logical_emit_message(false, 'campaign', repeat('x', 400000))";
        let _refused = maybe(SOON, || server.try_psql("postgres", write).err());
    }

    /// Gives the room back, and the server what it needs to get up.
    pub fn free_the_disk(&self) {
        if let (Some(disk), Some(server)) = (&self.disk, &self.server) {
            disk.free();
            // Whatever state it is in: a server whose disk was full may be
            // deaf to anything milder.
            server.restart(Stop::Kill);
        }
    }
}

/// A small file system with a server's write-ahead log.
struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Moves the log of `server` onto a new one.
    fn below(server: &Server) -> Self {
        let disk = Self {
            dir: run().directory("disk"),
        };
        let size = Some("size=24m,mode=777");
        mount(
            Some("lwtests"),
            &disk.dir,
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .expect("mount a small file system");
        server.stop(Stop::Fast);
        let log = server.dir().join("data/pg_wal");
        checked(
            Command::new("cp")
                .arg("-a")
                .arg(&log)
                .arg(disk.dir.join("wal")),
        );
        fs::remove_dir_all(&log).expect("remove the log's old place");
        std::os::unix::fs::symlink(disk.dir.join("wal"), &log).expect("link the log");
        fs::set_permissions(&disk.dir, fs::Permissions::from_mode(0o755)).expect("open the disk");
        server.start_again();
        disk
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.dir.join("ballast")).expect("create the ballast");
        while ballast.write_all(&[0; 16_384]).is_ok() {}
    }

    fn free(&self) {
        let _result = fs::remove_file(self.dir.join("ballast"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _result = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}
