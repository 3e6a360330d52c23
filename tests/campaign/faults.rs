//! The named faults, and the promise of each that it attacks.

use crate::plan::{Setup, Shape, Spec};

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Processes of one host that contends for a lease.
    Process,
    /// The line of one lease's contenders to the database.
    Line,
    /// The row of one lease.
    Row,
    /// What all leases of a world share: the server, its clock, the machine.
    World,
}

macro_rules! faults {
    ($($fault:ident $name:literal $reach:ident $promise:literal;)*) => {
        /// A fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $($fault),* }

        /// All of them.
        pub const ALL: &[Fault] = &[$(Fault::$fault),*];

        impl Fault {
            /// Its name, as in reports.
            pub fn name(self) -> &'static str {
                match self { $(Self::$fault => $name),* }
            }

            /// Where it strikes.
            pub fn reach(self) -> Reach {
                match self { $(Self::$fault => Reach::$reach),* }
            }

            /// The promise that it attacks.
            pub fn promise(self) -> &'static str {
                match self { $(Self::$fault => $promise),* }
            }
        }
    };
}

faults! {
    KeeperKilled "keeper-sigkill" Process "the guard alone kills the tree and gives the lease back";
    KeeperStopped "keeper-sigstop" Process "the guard keeps the deadline, whatever state the keeper is in";
    KeeperAborts "keeper-sigabrt" Process "a crash is a SIGKILL";
    KeeperCrashes "keeper-sigsegv" Process "a crash is a SIGKILL; no handler swallows the first one";
    KeeperOutOfMemory "keeper-oom-kill" Process "the kernel's OOM killer takes the keeper";
    KeeperWithoutMemory "keeper-no-memory" Process "no allocation of the keeper succeeds any more";
    GuardKilled "guard-sigkill" Process "the keeper finishes the tree and gives the lease back";
    GuardStopped "guard-sigstop" Process "the keeper wakes the guard, or kills it and finishes the tree";
    GuardAborts "guard-sigabrt" Process "a crash is a SIGKILL";
    GuardOutOfMemory "guard-oom-kill" Process "the kernel's OOM killer takes the guard";
    GuardWithoutMemory "guard-no-memory" Process "no allocation of the guard succeeds any more";
    WorkerKilled "worker-sigkill" Process "the end of the worker gives the lease back, with all that it left behind dead";
    WorkerStopped "worker-sigstop" Process "a stopped worker is killed as any other";
    WorkerOutOfMemory "worker-oom-kill" Process "the kernel's OOM killer takes the worker";
    BothKilled "both-sigkill" Process "with --pid-namespace the kernel ends the tree (contained worlds alone)";
    BothStopped "both-sigstop" Process "with --pid-namespace the timers and the kernel end the tree (contained worlds alone)";
    AttachKilled "attach-sigkill" Process "the guard of a pod kills when its attach is gone";
    AttachStopped "attach-sigstop" Process "the guard of a pod keeps the deadline by itself";
    StandbyKilled "standby-sigkill" Process "an acquisition under way is settled by nobody: it runs out";
    StandbyStopped "standby-sigstop" Process "what a standby has seen before it stood still gives it no right";
    OrderlyStop "orderly-sigterm" Process "the lease is renewed until the tree is empty, then released";

    LineCut "line-cut" Line "a deadline counts from the last renewal that was sent";
    LineReset "line-reset" Line "a dead connection is replaced";
    LineRefused "line-refused" Line "connections that are refused give no right";
    RequestsLost "requests-lost" Line "an unknown answer moves no deadline";
    AnswersLost "answers-lost" Line "renewals that arrive unseen give no right";
    RequestsHeld "requests-held" Line "what was given up on must not happen late";
    AnswersHeld "answers-held" Line "an answer never revives a right that has run out";
    AnswersLate "answers-late" Line "a deadline counts from the send, not from the answer";
    AcquisitionUnanswered "acquisition-unanswered" Line "an acquisition without an answer is settled before the next one";
    HostCut "host-cut" Line "a host whose network is down kills in time (its own network namespace)";
    HostDeaf "host-deaf" Line "a host that nothing reaches kills in time (its own network namespace)";
    HostMute "host-mute" Line "a host whose packets go nowhere kills in time (its own network namespace)";

    RowLocked "row-locked" Row "a locked row holds up no enforcement";
    RowStolen "row-stolen" Row "another holder that is seen kills at once";
    TokenClosed "token-closed" Row "a closed token kills at once, and frees by watching alone";
    RevisionBack "revision-back" Row "a lower revision alone is no loss, and frees nothing";
    RowDeleted "row-deleted" Row "a row that was seen and is gone is free by watching alone";
    SchemaDropped "schema-dropped" World "a schema made anew goes on above the old tokens";

    ServerCrashed "server-crashed" World "a server that crashes and recovers frees nothing early";
    ServerKilled "server-killed" World "a server that is away longer than the ttl frees nothing early";
    ServerFrozen "server-frozen" World "a hung server holds up no enforcement";
    ServerClock "server-clock-stepped" World "the database's clock frees nothing early and keeps nothing for hours";
    DiskFull "disk-full" World "a server without room for its log gives no right";
    PoolerRestarted "pooler-restarted" World "no session state is relied on";
    PoolerAway "pooler-away" World "a pooler that is away is a line that is cut";
    Promoted "replica-promoted" World "a fail-over that loses nothing is ridden out";
    PromotedLagging "lagging-replica-promoted" World "lost commits free nothing early, and no token repeats";
    FileLocked "file-locked" World "an SQLite file that is locked holds up no enforcement";
    CpuStarved "cpu-starved" World "deadlines hold on a busy machine";
}

impl Fault {
    /// Whether it can happen in such a world at all.
    pub fn fits(self, spec: &Spec) -> bool {
        use Fault as F;
        let any = |has: fn(&Shape) -> bool| spec.contenders.iter().any(has);
        match self {
            F::BothKilled | F::BothStopped => any(|shape| shape.contained),
            F::AttachKilled | F::AttachStopped => any(|shape| shape.pod),
            F::HostCut | F::HostDeaf | F::HostMute => any(|shape| shape.own_network),
            F::ServerClock => spec.setup == Setup::Clock,
            F::DiskFull => spec.setup == Setup::SmallDisk,
            F::PoolerRestarted | F::PoolerAway => spec.setup == Setup::Pooled,
            F::Promoted | F::PromotedLagging => spec.setup == Setup::Pair,
            F::FileLocked => spec.setup == Setup::File,
            F::ServerCrashed | F::ServerKilled | F::ServerFrozen => spec.setup != Setup::File,
            F::RowDeleted | F::SchemaDropped => {
                matches!(spec.setup, Setup::Plain | Setup::Pooled)
            }
            _ => match self.reach() {
                Reach::Line | Reach::Row => spec.setup != Setup::File,
                Reach::Process | Reach::World => true,
            },
        }
    }

    /// Whether only one kind of database has it: it would be rare otherwise.
    pub fn is_of_one_setup(self) -> bool {
        use Fault as F;
        matches!(
            self,
            F::ServerClock
                | F::DiskFull
                | F::PoolerRestarted
                | F::PoolerAway
                | F::Promoted
                | F::PromotedLagging
                | F::FileLocked
        )
    }

    /// Whether rows vanish behind everybody's back.
    pub fn forgets(self) -> bool {
        matches!(self, Self::RowDeleted | Self::SchemaDropped)
    }
}

/// Why faults of one lease are not caused at the same instant: what the
/// promise does not cover (contract of the README, "What it does not").
/// `None` where it does.
pub fn left_out(spec: &Spec, faults: &[Fault]) -> Option<&'static str> {
    let of = |reach| faults.iter().filter(|f| f.reach() == reach).count();
    if of(Reach::Process) > 1 {
        return Some(
            "keeper and guard of one host hit at one instant leave nobody to kill the tree; \
             with --pid-namespace that has a fault of its own, both-sigkill",
        );
    }
    if faults.iter().any(|fault| fault.forgets()) {
        if faults.len() > 1 {
            return Some(
                "a contender that starts while a superuser deletes the row has nothing to know \
                 it by: it is deleted while all contenders have seen it, and by itself",
            );
        }
        if spec.slots > 1 {
            return Some(
                "a holder whose slot was deleted ends, and starts again as one that has never \
                 seen the row of the other slot",
            );
        }
        if spec.contenders.iter().any(|c| c.rejoin || c.pod) {
            return Some("a contender that rejoins, or attaches again, has seen no row so far");
        }
    }
    if of(Reach::World) + of(Reach::Row) + of(Reach::Line) > 2 {
        return Some("three faults at once: two name the culprit better");
    }
    // Never generated, because there is no fault for it: two primaries that
    // both write (the old one is dead before a replica is promoted), a row
    // released by hand (that gives the lease away), a machine paused as a
    // whole, a data directory put back onto the same timeline.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_a_place_in_the_table() {
        let table = include_str!("../README.md");
        for (index, fault) in ALL.iter().enumerate() {
            let name = fault.name();
            assert!(ALL[..index].iter().all(|other| other.name() != name));
            let row = format!("| `{name}` | {} |", fault.promise());
            assert!(table.contains(&row), "tests/README.md lacks {row}");
        }
    }
}
