//! Causing a fault, and mending it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::Contender;
use crate::faults::Fault;
use crate::plan::Strike;
use crate::support::proxy::{Accept, Flow, Proxy};
use crate::support::run::{MARK, number, run};
use crate::support::server::Stop;
use crate::support::session::Session;
use crate::support::{proc, sys};
use crate::world::Lease;

/// Of the acquisition of a lease that is there, and of nothing else.
const ACQUISITION: &str = "released_at = null";
/// Programs that want the processor, beside what else runs.
const HOGS: usize = 6;

/// What has to be mended, and what has to die before the next fault.
#[derive(Default)]
pub struct Wounds {
    stopped: Vec<i32>,
    /// Who was hit so that it must end.
    pub fatal: Vec<i32>,
    starved: Vec<i32>,
    cages: Vec<(PathBuf, i32)>,
    sessions: Vec<Session>,
    hogs: Vec<Child>,
    server_stopped: bool,
    frozen: bool,
    pooler_stopped: bool,
    disk_full: bool,
    lagging: bool,
    file_lock: Option<std::sync::mpsc::Sender<()>>,
}

impl Wounds {
    fn signal(&mut self, pid: i32, signal: i32) {
        sys::kill(pid, signal);
        match signal {
            libc::SIGSTOP => self.stopped.push(pid),
            libc::SIGTERM => (),
            _ => self.fatal.push(pid),
        }
    }

    /// A process gets no memory any more: its next allocation fails.
    fn starve(&mut self, pid: i32) {
        limit_memory(pid, "1");
        self.starved.push(pid);
    }

    /// The kernel's OOM killer is set on a process: it is alone in a memory
    /// cgroup with next to no memory. Where there are none, and where it asks
    /// for nothing while the fault lasts, a SIGKILL has to do.
    fn out_of_memory(&mut self, pid: i32) {
        match cage(pid) {
            Some(cage) => {
                self.cages.push((cage, pid));
                self.fatal.push(pid);
            }
            None => self.signal(pid, libc::SIGKILL),
        }
    }

    /// A fault of one lease.
    pub fn strike(&mut self, lease: &Lease, backend: &Backend, strike: &Strike) {
        use crate::faults::Reach;
        match strike.fault.reach() {
            Reach::Process => self.hit_process(lease, strike),
            Reach::Line => hit_lines(lease, strike),
            Reach::Row => self.hit_row(lease, backend, strike.fault),
            Reach::World => (),
        }
    }

    fn hit_process(&mut self, lease: &Lease, strike: &Strike) {
        use Fault as F;
        let Some(holder) = lease.holder(strike.slot) else {
            return;
        };
        let (keeper, parent) = (holder.keeper(), holder.guards_parent());
        let (guard, worker) = (holder.guard(), holder.worker_pid());
        let standby = lease.standby().map(Contender::keeper);
        let pods = || lease.contenders.iter().filter(|one| one.shape().pod);
        let attach = pods().find(|one| std::ptr::eq(*one, holder));
        let attach = attach
            .or_else(|| pods().next())
            .map(Contender::guards_parent);
        let mut signal = |pid: Option<i32>, signal| {
            if let Some(pid) = pid {
                self.signal(pid, signal);
            }
        };
        match strike.fault {
            F::KeeperKilled => signal(Some(keeper), libc::SIGKILL),
            F::KeeperStopped => signal(Some(keeper), libc::SIGSTOP),
            F::KeeperAborts => signal(Some(keeper), libc::SIGABRT),
            F::KeeperCrashes => signal(Some(keeper), libc::SIGSEGV),
            F::GuardKilled => signal(guard, libc::SIGKILL),
            F::GuardStopped => signal(guard, libc::SIGSTOP),
            F::GuardAborts => signal(guard, libc::SIGABRT),
            F::WorkerKilled => signal(worker, libc::SIGKILL),
            F::WorkerStopped => signal(worker, libc::SIGSTOP),
            F::StandbyKilled => signal(standby, libc::SIGKILL),
            F::StandbyStopped => signal(standby, libc::SIGSTOP),
            F::OrderlyStop => signal(Some(parent), libc::SIGTERM),
            F::AttachKilled => signal(attach, libc::SIGKILL),
            F::AttachStopped => signal(attach, libc::SIGSTOP),
            F::BothKilled if holder.shape().contained => {
                // None of the two sees the other's end.
                sys::kill(parent, libc::SIGSTOP);
                signal(guard, libc::SIGSTOP);
                signal(guard, libc::SIGKILL);
                signal(Some(parent), libc::SIGKILL);
            }
            F::BothStopped if holder.shape().contained => {
                signal(Some(parent), libc::SIGSTOP);
                signal(guard, libc::SIGSTOP);
            }
            F::KeeperOutOfMemory => self.out_of_memory(keeper),
            F::GuardOutOfMemory => _ = guard.map(|pid| self.out_of_memory(pid)),
            F::WorkerOutOfMemory => _ = worker.map(|pid| self.out_of_memory(pid)),
            F::KeeperWithoutMemory => self.starve(keeper),
            F::GuardWithoutMemory => _ = guard.map(|pid| self.starve(pid)),
            _ => (),
        }
    }

    fn hit_row(&mut self, lease: &Lease, backend: &Backend, fault: Fault) {
        let Some(server) = backend.server() else {
            return;
        };
        let name = &lease.name;
        let row = format!("where name = '{name}'");
        let quietly = "set session_replication_role = replica;";
        let sql = match fault {
            Fault::RowLocked => {
                let mut session = server.session("postgres");
                session.run("begin");
                session.run(&format!("select from leasewrap.lease {row} for update"));
                self.sessions.push(session);
                return;
            }
            Fault::RowStolen => format!(
                "update leasewrap.lease set holder = gen_random_uuid(), token = token + 1, \
                 revision = revision + 1, label = 'thief' {row}"
            ),
            Fault::TokenClosed => format!("update leasewrap.lease set closed_token = token {row}"),
            Fault::RevisionBack => format!(
                "{quietly} update leasewrap.lease set revision = revision - 2, \
                 renewed_at = renewed_at - interval '1 s', \
                 expires_at = expires_at - interval '1 s' {row} and released_at is null"
            ),
            Fault::RowDeleted => format!("{quietly} delete from leasewrap.lease {row}"),
            _ => return,
        };
        // A row that is not there, or is locked, is none that can be hit.
        let _result = server.try_psql("postgres", &format!("set lock_timeout = '1s'; {sql}"));
    }

    /// A fault that all leases of a world share.
    pub fn strike_all(&mut self, backend: &mut Backend, strike: &Strike) {
        match strike.fault {
            Fault::PoolerRestarted => _ = backend.bouncer().map(|bouncer| bouncer.restart()),
            Fault::PoolerAway => {
                backend
                    .bouncer()
                    .into_iter()
                    .for_each(|bouncer| bouncer.kill());
                self.pooler_stopped = true;
            }
            Fault::FileLocked => self.file_lock = Some(lock_file(backend.file())),
            Fault::CpuStarved => self.hogs = (0..HOGS).map(|_| hog()).collect(),
            Fault::DiskFull => {
                backend.fill_the_disk();
                self.disk_full = true;
            }
            Fault::PromotedLagging => {
                backend.catch_up();
                backend.cut_the_stream();
                self.lagging = true;
            }
            Fault::Promoted => {
                backend.catch_up();
                backend.fail_over();
            }
            _ => {
                if let Some(server) = backend.server() {
                    self.strike_server(server, strike);
                }
            }
        }
    }

    fn strike_server(&mut self, server: &crate::support::server::Server, strike: &Strike) {
        match strike.fault {
            Fault::ServerCrashed => server.restart(Stop::Immediate),
            Fault::ServerKilled => {
                server.stop(Stop::Kill);
                self.server_stopped = true;
            }
            Fault::ServerFrozen => {
                server.freeze();
                self.frozen = true;
            }
            Fault::ServerClock => {
                let offsets = [3600, -3600, 0];
                server.step_clock(offsets[usize::try_from(strike.pick % 3).unwrap_or(0)]);
            }
            Fault::SchemaDropped => {
                let drop = "set lock_timeout = '2s'; drop schema if exists leasewrap cascade";
                let _result = server.try_psql("postgres", drop);
            }
            _ => (),
        }
    }

    /// Mends all of it. What was hit so that it must end may still be ending.
    pub fn mend(&mut self, leases: &[Lease], backend: &mut Backend) {
        self.stopped
            .drain(..)
            .for_each(|pid| _ = sys::kill(pid, libc::SIGCONT));
        self.starved
            .drain(..)
            .for_each(|pid| limit_memory(pid, "unlimited"));
        for (cage, pid) in self.cages.drain(..) {
            sys::kill(pid, libc::SIGKILL);
            let gone = || fs::remove_dir(&cage).ok();
            let _result = crate::support::wait::maybe(Duration::from_secs(5), gone);
        }
        self.file_lock = None;
        for mut hog in self.hogs.drain(..) {
            let _result = hog.kill();
            let _status = hog.wait();
        }
        if std::mem::take(&mut self.frozen)
            && let Some(server) = backend.server()
        {
            server.thaw();
        }
        self.sessions.clear();
        if std::mem::take(&mut self.lagging) {
            backend.fail_over();
        }
        if std::mem::take(&mut self.server_stopped)
            && let Some(server) = backend.server()
        {
            server.start_again();
        }
        if std::mem::take(&mut self.disk_full) {
            backend.free_the_disk();
        }
        if std::mem::take(&mut self.pooler_stopped)
            && let Some(bouncer) = backend.bouncer()
        {
            bouncer.start_again();
        }
        for contender in leases.iter().flat_map(|lease| &lease.contenders) {
            contender.host.iter().for_each(|host| host.mend());
            if let (Some(line), Some(port)) = (&contender.line, backend.port()) {
                line.redirect(port);
                line.mend();
            }
        }
    }

    /// Whether all that must end has ended.
    pub fn all_dead(&self) -> bool {
        self.fatal.iter().all(|pid| !proc::alive(*pid))
    }
}

fn hit_lines(lease: &Lease, strike: &Strike) {
    use Fault as F;
    let holder = lease.holder(strike.slot);
    let all: Vec<&Contender> = lease.contenders.iter().collect();
    let (mut victims, others): (Vec<&Contender>, Vec<&Contender>) = all
        .into_iter()
        .partition(|one| holder.is_some_and(|holder| std::ptr::eq(holder, *one)));
    match strike.pick % 4 {
        0 => victims.extend(others),
        1 => victims = others,
        _ => (),
    }
    match strike.fault {
        F::HostCut | F::HostDeaf | F::HostMute => {
            for host in lease.contenders.iter().filter_map(|all| all.host.as_ref()) {
                match strike.fault {
                    F::HostCut => host.cut(),
                    F::HostDeaf => host.deafen(),
                    _ => host.mute(),
                }
            }
        }
        F::AcquisitionUnanswered => {
            let lines = lease.contenders.iter().filter_map(|all| all.line.as_ref());
            lines.for_each(|line| line.hold_the_answer_to(ACQUISITION));
            holder
                .iter()
                .for_each(|holder| _ = sys::kill(holder.guards_parent(), libc::SIGTERM));
        }
        fault => {
            let lines = victims.iter().filter_map(|victim| victim.line.as_ref());
            lines.for_each(|line| hit_line(line, fault, strike.pick));
        }
    }
}

fn hit_line(line: &Proxy, fault: Fault, pick: u64) {
    match fault {
        Fault::LineCut => line.cut(),
        Fault::LineReset => line.reset(),
        Fault::LineRefused => {
            line.accept(Accept::Reset);
            line.reset();
        }
        Fault::RequestsLost => line.to_server(Flow::Swallow),
        Fault::AnswersLost => line.to_client(Flow::Swallow),
        Fault::RequestsHeld => line.to_server(Flow::Hold),
        Fault::AnswersHeld => line.to_client(Flow::Hold),
        Fault::AnswersLate => {
            line.to_client(Flow::Delay(Duration::from_millis(50 + pick / 4 % 1_500)));
        }
        _ => (),
    }
}

/// A shell that does nothing, as fast as it can.
fn hog() -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]);
    command.env(MARK, run().dir()).stdin(Stdio::null());
    command.spawn().expect("start a busy shell")
}

fn limit_memory(pid: i32, limit: &str) {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--pid={pid}"))
        .arg(format!("--as={limit}:unlimited"));
    // One that has ended in the meantime has no limits.
    let _result = command.stderr(Stdio::null()).status();
}

/// A memory cgroup with next to no memory, and `pid` in it.
fn cage(pid: i32) -> Option<PathBuf> {
    let kinds = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ];
    let name = format!("lwtest-{}-{}", std::process::id(), number());
    for (root, limit) in kinds {
        let path = Path::new(root).join(&name);
        if fs::create_dir(&path).is_err() {
            continue;
        }
        let caged = path.join(limit).exists()
            && fs::write(path.join("cgroup.procs"), pid.to_string()).is_ok()
            && fs::write(path.join(limit), "16384").is_ok();
        if caged {
            return Some(path);
        }
        let _result = fs::remove_dir(&path);
    }
    None
}

/// Holds the file's lock for writing until the sender is dropped.
fn lock_file(path: &Path) -> std::sync::mpsc::Sender<()> {
    let (until, over) = std::sync::mpsc::channel::<()>();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let connection = runtime.block_on(async {
            use sqlx::ConnectOptions as _;
            let mut connection = options.connect().await.ok()?;
            sqlx::query("begin exclusive")
                .execute(&mut connection)
                .await
                .ok()?;
            Some(connection)
        });
        let _over = over.recv();
        drop(connection);
    });
    until
}
