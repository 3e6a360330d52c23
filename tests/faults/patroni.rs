//! Patroni over etcd, two PostgreSQL servers: one leader is killed, the next
//! one is switched over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::scene::Scene;
use crate::support::etcd::Etcd;
use crate::support::installation::{as_owner, tool};
use crate::support::run::{MARK, run};
use crate::support::server::free_port;
use crate::support::wait::until;
use crate::support::{proc, sys};

/// Patroni's own, and the least that it takes: a leader that is gone with its
/// host is followed after this long.
const PATRONI_TTL: u64 = 20;

/// For a bootstrap, a fail-over, a server that joins again.
const LIMIT: Duration = Duration::from_secs(120);

/// One member: Patroni and its PostgreSQL.
struct Member {
    name: &'static str,
    dir: PathBuf,
    port: u16,
    patroni: Option<Child>,
}

struct Cluster {
    _etcd: Etcd,
    members: [Member; 2],
}

impl Member {
    fn new(name: &'static str, etcd: &Etcd) -> Self {
        let dir = run().directory(name);
        let [port, rest] = [free_port(), free_port()];
        let (etcd, bin) = (etcd.endpoint(), tool("postgres"));
        let bin = bin.parent().expect("a folder").display();
        let shown = dir.display();
        // Synchronous, or a fail-over may lose the row; `loop_wait` and
        // `retry_timeout` are as short as they may be.
        let configuration = format!(
            "scope: leases\nname: {name}\n\
             restapi: {{ listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}' }}\n\
             etcd3: {{ url: '{etcd}' }}\n\
             bootstrap:\n  dcs:\n    ttl: {PATRONI_TTL}\n    loop_wait: 1\n    retry_timeout: 3\n\
             \x20   synchronous_mode: true\n    postgresql: {{ use_pg_rewind: true }}\n\
             \x20 initdb: [ {{ encoding: UTF8 }} ]\n\
             \x20 pg_hba: [ 'local all all trust', 'host all all 127.0.0.1/32 trust', \
             'host replication all 127.0.0.1/32 trust' ]\n\
             postgresql:\n  listen: '127.0.0.1:{port}'\n  connect_address: '127.0.0.1:{port}'\n\
             \x20 data_dir: '{shown}/data'\n  bin_dir: '{bin}'\n  pgpass: '{shown}/pgpass'\n\
             \x20 authentication:\n    superuser: {{ username: postgres, password: x }}\n\
             \x20   replication: {{ username: replicator, password: x }}\n\
             \x20 parameters: {{ unix_socket_directories: '{shown}', fsync: 'off', \
             dynamic_shared_memory_type: mmap, shared_buffers: 16MB }}\n"
        );
        fs::write(dir.join("patroni.yml"), configuration).expect("write patroni.yml");
        Self {
            name,
            dir,
            port,
            patroni: None,
        }
    }

    fn start(&mut self) {
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join("log"))
            .expect("open the log");
        let mut command = as_owner(Path::new("/usr/bin/patroni"));
        command.arg(self.dir.join("patroni.yml"));
        command.env(MARK, run().dir()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("share the log"));
        command.stderr(log);
        let patroni = command.spawn();
        self.patroni = Some(patroni.expect("start patroni: install Debian's package `patroni`"));
    }

    /// Its host is gone: Patroni and PostgreSQL at once.
    fn kill(&mut self) {
        let Some(mut patroni) = self.patroni.take() else {
            return;
        };
        let pid = i32::try_from(patroni.id()).expect("a pid");
        // PostgreSQL is started as a daemon: it is found by its directory.
        let postmaster = fs::read_to_string(self.dir.join("data/postmaster.pid"));
        let postmaster = postmaster
            .ok()
            .and_then(|file| file.lines().next()?.parse().ok());
        let mut all = vec![pid];
        all.extend(proc::descendants(pid));
        all.extend(postmaster);
        all.extend(postmaster.map(proc::descendants).unwrap_or_default());
        for pid in all {
            sys::kill(pid, libc::SIGKILL);
        }
        let _ended = patroni.wait();
    }

    /// `t`: it is a standby.
    fn asked(&self, sql: &str) -> Option<String> {
        let output = Command::new(tool("psql"))
            .args(["-XAtq", "-U", "postgres", "-h", "127.0.0.1", "-c", sql])
            .args(["-p", &self.port.to_string(), "postgres"])
            .env("PGCONNECT_TIMEOUT", "3")
            .output()
            .expect("run psql");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let from = log.len().saturating_sub(2000);
            eprintln!("--- {} ---\n{}", self.name, log.get(from..).unwrap_or(&log));
        }
        self.kill();
    }
}

impl Cluster {
    fn start() -> Self {
        let etcd = Etcd::start();
        let mut members = [Member::new("one", &etcd), Member::new("two", &etcd)];
        members[0].start();
        until("the first member leads", LIMIT, || {
            (members[0].asked("select pg_is_in_recovery()")? == "f").then_some(())
        });
        members[1].start();
        let cluster = Self {
            _etcd: etcd,
            members,
        };
        cluster.wait_synchronous(0);
        cluster
    }

    /// Until a commit on member `leader` waits for the other one.
    fn wait_synchronous(&self, leader: usize) {
        let ask = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        until("the other one is synchronous", LIMIT, || {
            (self.members[leader].asked(ask)? == "1").then_some(())
        });
    }

    fn url(&self) -> String {
        let [one, two] = [self.members[0].port, self.members[1].port];
        format!(
            "postgres://postgres@127.0.0.1:{one},127.0.0.1:{two}/postgres\
             ?target_session_attrs=read-write"
        )
    }

    /// A member that has just joined may be refused as a candidate at first,
    /// which patronictl only says.
    fn switch_over(&self, from: usize, to: usize) {
        let [from, to] = [from, to].map(|member| &self.members[member]);
        until("the other one leads", LIMIT, || {
            if to.asked("select pg_is_in_recovery()")? == "f" {
                return Some(());
            }
            let mut command = as_owner(Path::new("/usr/bin/patronictl"));
            command.arg("-c").arg(from.dir.join("patroni.yml"));
            command.args(["switchover", "--force", "leases"]);
            command.args(["--master", from.name, "--candidate", to.name]);
            // The limit above decides, not one answer of a busy etcd.
            let _said = command.stdin(Stdio::null()).output();
            None
        });
    }
}

#[test]
fn a_patroni_leader_is_killed_and_later_switched_over() {
    let mut cluster = Cluster::start();
    // It rides out 2 ttl of Patroni's and more.
    let scene = Scene::new("patroni", Duration::from_secs(6 * PATRONI_TTL));
    let often = scene.leasewrap(&cluster.url(), &[]);
    let often = often.option("--renew-every", "3s").option("--grace", "2s");
    let (holder, token) = scene.start(often, &[]);
    let standby = scene.stand_by(&cluster.url());
    // It is there, if the acquisition was really synchronous.
    cluster.members[0].kill();
    let begun = std::time::Instant::now();
    until("the other one leads", LIMIT, || {
        (cluster.members[1].asked("select pg_is_in_recovery()")? == "f").then_some(())
    });
    scene.say(&format!(
        "leader killed, the next one leads after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let revision = |cluster: &Cluster, leader: usize| {
        let ask = format!(
            "select revision from leasewrap.lease where name = '{}'",
            scene.name
        );
        cluster.members[leader].asked(&ask)?.parse::<i64>().ok()
    };
    let renewed = |cluster: &Cluster, leader: usize| {
        let before = revision(cluster, leader);
        until("it is renewed there", LIMIT, || {
            (revision(cluster, leader) > before).then_some(())
        });
    };
    renewed(&cluster, 1);
    cluster.members[0].start();
    cluster.wait_synchronous(1);
    cluster.switch_over(1, 0);
    renewed(&cluster, 0);
    scene.goes_on(
        token,
        Duration::from_secs(1),
        "a killed leader and a switch-over",
    );
    assert_eq!(scene.log.spans().len(), 1);
    scene.say("ridden out, the lease kept");
    // And then it is handed over as ever.
    holder.signal(libc::SIGTERM);
    scene.handed_over(token, LIMIT);
    holder.end().code(143);
    standby.signal(libc::SIGTERM);
    standby.end().code(143);
}
