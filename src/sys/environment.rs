//! Environments: the caller's, less what configures this leasewrap, plus what
//! the worker is told (contract, section 7).

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use super::role::{GUARD_VARIABLE, RELEASE_VARIABLE};
use crate::wire::{Content, PgOptions, Start};

/// What configures this leasewrap: the variables of its options, sorted. The
/// worker gets none of them (contract, section 7), so that a leasewrap inside
/// a leasewrap inherits nothing by accident.
pub const OPTIONS: [&str; 36] = [
    "LEASEWRAP_CALL_TIMEOUT",
    "LEASEWRAP_CONFLICT_EXIT_CODE",
    "LEASEWRAP_DB",
    "LEASEWRAP_DB_FILE",
    "LEASEWRAP_GRACE",
    "LEASEWRAP_HOLD_AT_LEAST",
    "LEASEWRAP_HOOK_TIMEOUT",
    "LEASEWRAP_JITTER",
    "LEASEWRAP_LABEL",
    "LEASEWRAP_LISTEN",
    "LEASEWRAP_LOG",
    "LEASEWRAP_LOG_FORMAT",
    "LEASEWRAP_LOST_EXIT_CODE",
    "LEASEWRAP_MARGIN",
    "LEASEWRAP_NAME",
    "LEASEWRAP_ON_EVENT",
    "LEASEWRAP_PASS_NOTIFY",
    "LEASEWRAP_PGOPTIONS",
    "LEASEWRAP_PID_NAMESPACE",
    "LEASEWRAP_POLL_EVERY",
    "LEASEWRAP_PRECHECK",
    "LEASEWRAP_REJOIN",
    "LEASEWRAP_RENEW_EVERY",
    "LEASEWRAP_SCHEMA",
    "LEASEWRAP_SLOTS",
    "LEASEWRAP_SOCKET",
    "LEASEWRAP_SOCKET_MODE",
    "LEASEWRAP_STOP_SIGNAL",
    "LEASEWRAP_STOP_TIMEOUT",
    "LEASEWRAP_STOP_TO",
    "LEASEWRAP_TAKEOVER",
    "LEASEWRAP_TAKEOVER_DELAY",
    "LEASEWRAP_TTL",
    "LEASEWRAP_VALUE",
    "LEASEWRAP_WAIT",
    "LEASEWRAP_WORKER_WATCHDOG",
];

/// The caller's service manager speaks to leasewrap by these.
const OF_THE_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// What the worker is told anew, and must not have from a leasewrap outside.
const OF_THE_TERM: [&str; 10] = [
    "LEASEWRAP_LEASE",
    "LEASEWRAP_SLOT",
    "LEASEWRAP_HOLDER",
    "LEASEWRAP_TOKEN",
    "LEASEWRAP_TTL_MS",
    // Of a hook.
    "LEASEWRAP_EVENT",
    "LEASEWRAP_REASON",
    "LEASEWRAP_MESSAGE",
    "LEASEWRAP_HOLDER_LABEL",
    "LEASEWRAP_HOLDER_VALUE",
];

/// Passed descriptors (`sd_listen_fds(3)`) are the worker's alone.
const OF_THE_SOCKETS: [&str; 4] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// Whether a variable of this name stays with leasewrap.
fn is_withheld(name: &str) -> bool {
    OPTIONS.contains(&name) || OF_THE_MANAGER.contains(&name)
}

unsafe extern "C" {
    static environ: *const *const std::ffi::c_char;
}

/// Where OpenSSL, and the TLS layer after it, look for the system's roots.
const OF_SYSTEM_ROOTS: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What the caller has said of them, once that does not hold in this process.
static SYSTEM_ROOTS: OnceLock<Vec<CString>> = OnceLock::new();

/// The TLS layer of this process finds no certificate of the system's from
/// here on: it would trust them beside those of `sslrootcert`, where libpq
/// trusts that file alone. Children get these variables as the caller gave
/// them. To be called before there are threads.
pub fn distrust_system_roots() {
    if SYSTEM_ROOTS.get().is_some() {
        return;
    }
    let mut given = variables();
    given.retain(|variable| says_system_roots(variable));
    // Only a second call could fail to set it.
    let _ = SYSTEM_ROOTS.set(given);
    // SAFETY: there is one thread, and [`variables`] has copied what it read.
    unsafe {
        std::env::remove_var("SSL_CERT_DIR");
        std::env::set_var("SSL_CERT_FILE", "/dev/null");
    }
}

fn says_system_roots(variable: &CStr) -> bool {
    let mut names = OF_SYSTEM_ROOTS.iter();
    names.any(|name| name_of(variable) == name.as_bytes())
}

/// Every variable as the kernel gave it, malformed ones included.
fn variables() -> Vec<CString> {
    let mut found = now();
    if let Some(given) = SYSTEM_ROOTS.get() {
        found.retain(|variable| !says_system_roots(variable));
        found.extend(given.iter().cloned());
    }
    found
}

/// Every variable as it stands in this process.
fn now() -> Vec<CString> {
    let mut found = Vec::new();
    // SAFETY: only read here; the environment is changed only by
    // [`distrust_system_roots`], before there are threads.
    let mut next = unsafe { environ };
    loop {
        // SAFETY: an array that ends with null (environ(7)); null itself when
        // there is none.
        let Some(text) = (unsafe { next.as_ref() }).filter(|text| !text.is_null()) else {
            return found;
        };
        // SAFETY: each a C string.
        found.push(unsafe { CStr::from_ptr(*text) }.to_owned());
        // SAFETY: not the end yet.
        next = unsafe { next.add(1) };
    }
}

fn name_of(variable: &CStr) -> &[u8] {
    let bytes = variable.to_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=');
    end.map_or(bytes, |end| &bytes[..end])
}

fn keep(withheld: impl Fn(&str) -> bool) -> Vec<CString> {
    let mut variables = variables();
    // No name of ours is anything but ASCII.
    variables.retain(|variable| {
        std::str::from_utf8(name_of(variable)).map_or(true, |name| !withheld(name))
    });
    variables
}

/// This process's environment less some variables.
pub(super) fn without(names: &[&str]) -> Vec<CString> {
    keep(|name| names.contains(&name))
}

/// For a guard: the caller's less what stays with leasewrap.
pub(super) fn for_guard() -> Vec<CString> {
    keep(|name| is_withheld(name) || name == GUARD_VARIABLE || name == RELEASE_VARIABLE)
}

/// For a hook's guard: less the descriptors that a hook does not get.
pub(super) fn for_hook() -> Vec<CString> {
    let mut variables = for_guard();
    variables.retain(|variable| {
        !OF_THE_SOCKETS
            .iter()
            .any(|name| name_of(variable) == name.as_bytes())
    });
    variables
}

/// The worker's, from the guard's.
#[derive(Debug)]
pub(super) struct WorkerEnvironment {
    pub(super) variables: Vec<CString>,
    /// Variables in which it must find its own process id: `LISTEN_PID` when
    /// descriptors are passed to it, and what the keeper asks for.
    pub(super) own_pids: Vec<String>,
}

impl WorkerEnvironment {
    pub(super) fn new(start: &Start) -> Self {
        let inherited = keep(|name| {
            is_withheld(name)
                || name == GUARD_VARIABLE
                || name == RELEASE_VARIABLE
                || OF_THE_TERM.contains(&name)
        });
        let keeper = nix::unistd::getppid().as_raw();
        Self::from(inherited, start, keeper)
    }

    fn from(mut variables: Vec<CString>, start: &Start, keeper: i32) -> Self {
        let mut own_pids = Vec::new();
        // Sockets that leasewrap was started with. Those of another process,
        // which has left its variables behind, are none (sd_listen_fds(3)).
        let passed = format!("LISTEN_PID={keeper}");
        if variables.iter().any(|v| v.as_bytes() == passed.as_bytes()) {
            // The handle in LISTEN_PIDFDID means leasewrap's process.
            variables.retain(|v| !matches!(name_of(v), b"LISTEN_PID" | b"LISTEN_PIDFDID"));
            own_pids.push("LISTEN_PID".to_owned());
        }
        let added = [
            format!("LEASEWRAP_LEASE={}", start.name),
            format!("LEASEWRAP_SLOT={}", start.slot),
            format!("LEASEWRAP_HOLDER={}", start.holder),
            format!("LEASEWRAP_TOKEN={}", start.token),
            format!("LEASEWRAP_TTL_MS={}", start.ttl.as_millis()),
        ];
        // A lease's name holds no control characters, so no NUL.
        variables.extend(added.into_iter().filter_map(|v| CString::new(v).ok()));
        if let Some(options) = pgoptions(start) {
            let old = variables.iter().position(|v| name_of(v) == b"PGOPTIONS");
            let mut bytes = b"PGOPTIONS=".to_vec();
            if let Some(old) = old.map(|at| variables.remove(at)) {
                // Whoever executes us may leave out the equals sign.
                bytes.extend(old.to_bytes().get(bytes.len()..).unwrap_or_default());
                bytes.push(b' ');
            }
            bytes.extend(options.into_bytes());
            variables.extend(CString::new(bytes));
        }
        for variable in &start.variables {
            variables.retain(|v| name_of(v) != variable.name.as_bytes());
            match &variable.content {
                Content::Text(text) => {
                    // One with a NUL could be handed to nobody.
                    variables.extend(CString::new(format!("{}={text}", variable.name)));
                }
                Content::OwnPid => own_pids.push(variable.name.clone()),
                Content::Absent => {}
            }
        }
        Self {
            variables,
            own_pids,
        }
    }
}

/// What is added to `PGOPTIONS`.
fn pgoptions(start: &Start) -> Option<String> {
    let check = match start.pgoptions {
        PgOptions::Leave => return None,
        PgOptions::Extend => "",
        PgOptions::ExtendAndCheck => " -c client_connection_check_interval=500",
    };
    Some(format!(
        "-c leasewrap.name={} -c leasewrap.slot={} -c leasewrap.token={}{check}",
        escape(start.name.as_str()),
        start.slot,
        start.token,
    ))
}

/// As the server splits them again: a backslash before blanks and backslashes
/// (libpq's `options`).
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if c == '\\' || c.is_ascii_whitespace() {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::lease::ids::{HolderId, LeaseName, Slot, Token};
    use crate::lease::time::BootInstant;
    use crate::wire::{StopTo, Variable};

    fn start(pgoptions: PgOptions) -> Start {
        Start {
            name: LeaseName::new(r"a b\c").unwrap(),
            slot: Slot(2),
            holder: HolderId(Uuid::nil()),
            token: Token(77),
            ttl: Duration::from_secs(3),
            pgoptions,
            deadline: BootInstant::ZERO,
            grace: Duration::ZERO,
            stop_signal: 15,
            stop_to: StopTo::Tree,
            stop_timeout: Duration::ZERO,
            variables: Vec::new(),
        }
    }

    fn worker(given: &[&str], pgoptions: PgOptions) -> Vec<String> {
        let given = given.iter().map(|v| CString::new(*v).unwrap()).collect();
        WorkerEnvironment::from(given, &start(pgoptions), 1)
            .variables
            .iter()
            .map(|v| v.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_worker_learns_of_its_term() {
        assert_eq!(
            worker(&["A=1"], PgOptions::Leave),
            [
                "A=1",
                r"LEASEWRAP_LEASE=a b\c",
                "LEASEWRAP_SLOT=2",
                "LEASEWRAP_HOLDER=00000000-0000-0000-0000-000000000000",
                "LEASEWRAP_TOKEN=77",
                "LEASEWRAP_TTL_MS=3000",
            ]
        );
    }

    #[test]
    fn pgoptions_are_extended_and_escaped() {
        let added = r"-c leasewrap.name=a\ b\\c -c leasewrap.slot=2 -c leasewrap.token=77";
        let last = |given: &[&str], options| worker(given, options).pop().unwrap();
        assert_eq!(last(&[], PgOptions::Extend), format!("PGOPTIONS={added}"));
        assert_eq!(
            last(&["PGOPTIONS=-c x=y"], PgOptions::ExtendAndCheck),
            format!("PGOPTIONS=-c x=y {added} -c client_connection_check_interval=500")
        );
        let malformed = last(&["PGOPTIONS"], PgOptions::Extend);
        assert_eq!(malformed, format!("PGOPTIONS= {added}"));
    }

    #[test]
    fn passed_sockets_are_for_the_worker() {
        let given = ["LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_PIDFDID=2"];
        let given: Vec<_> = given.iter().map(|v| CString::new(*v).unwrap()).collect();
        let environment = WorkerEnvironment::from(given, &start(PgOptions::Leave), 1);
        assert_eq!(environment.own_pids, ["LISTEN_PID"]);
        let names: Vec<_> = environment.variables.iter().map(|v| name_of(v)).collect();
        assert!(names.contains(&b"LISTEN_FDS".as_slice()));
        assert!(!names.contains(&b"LISTEN_PID".as_slice()));
        assert!(!names.contains(&b"LISTEN_PIDFDID".as_slice()));
        // Those of somebody else stay as they are.
        let given: Vec<_> = ["LISTEN_FDS=1", "LISTEN_PID=1"]
            .map(|v| CString::new(v).unwrap())
            .to_vec();
        let environment = WorkerEnvironment::from(given.clone(), &start(PgOptions::Leave), 2);
        assert!(environment.own_pids.is_empty());
        assert_eq!(environment.variables[..2], given);
    }

    #[test]
    fn what_the_keeper_adds_comes_last_and_replaces() {
        let given = ["A=1", "B=2", "NOTIFY_SOCKET=/of/the/manager"];
        let given = given.iter().map(|v| CString::new(*v).unwrap()).collect();
        let mut start = start(PgOptions::Leave);
        start.variables = vec![
            Variable::text("NOTIFY_SOCKET", "/of/leasewrap"),
            Variable::own_pid("WATCHDOG_PID"),
            Variable::absent("A"),
            Variable::absent("LEASEWRAP_TOKEN"),
        ];
        let environment = WorkerEnvironment::from(given, &start, 1);
        let of = |name: &str| {
            let mut all = environment.variables.iter();
            all.find(|v| name_of(v) == name.as_bytes())
                .map(|v| v.to_string_lossy().into_owned())
        };
        assert_eq!(of("NOTIFY_SOCKET").unwrap(), "NOTIFY_SOCKET=/of/leasewrap");
        assert_eq!(environment.own_pids, ["WATCHDOG_PID"]);
        assert_eq!((of("A"), of("LEASEWRAP_TOKEN")), (None, None));
        assert_eq!(of("B").unwrap(), "B=2");
    }

    #[test]
    fn what_configures_leasewrap_stays_with_it() {
        for name in ["LEASEWRAP_DB", "LEASEWRAP_DB_FILE", "NOTIFY_SOCKET"] {
            assert!(is_withheld(name), "{name}");
        }
        for name in ["PGHOST", "LEASEWRAP_LEASE", "LEASEWRAP_OWN", "PATH"] {
            assert!(!is_withheld(name), "{name}");
        }
    }
}
