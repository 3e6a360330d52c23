//! Why there can be no PID namespace, in words that say which setting it is.

use std::fmt;

use nix::errno::Errno;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Any of the processes, or what they need.
    Fork,
    /// The PID namespace itself.
    Pid,
    /// The user namespace in which whoever is not root may have one.
    User,
    /// The map of that one.
    Map,
    /// The mount namespace that the new `/proc` needs.
    Mounts,
    /// The new `/proc`.
    Proc,
}

const STEPS: [Step; 6] = [
    Step::Fork,
    Step::Pid,
    Step::User,
    Step::Map,
    Step::Mounts,
    Step::Proc,
];

/// The kernel's no. Reads after "cannot".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// To what.
    pub step: Step,
    /// Its reason.
    pub errno: Errno,
}

impl Refusal {
    pub(super) fn new(step: Step, errno: Errno) -> Self {
        Self { step, errno }
    }

    /// For a pipe: the step's number, and the errno.
    pub(in crate::sys) fn numbers(self) -> (i32, i32) {
        (self.step as i32, self.errno as i32)
    }

    /// From [`Refusal::numbers`].
    pub(in crate::sys) fn numbered(step: i32, errno: i32) -> Option<Self> {
        let step = STEPS.into_iter().find(|known| *known as i32 == step)?;
        Some(Self::new(step, Errno::from_raw(errno)))
    }

    /// For `map_err`.
    pub(super) fn on(step: Step) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { step, errno }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "give the worker a PID namespace (--pid-namespace): {}",
            self.why()
        )
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for std::io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal)
    }
}

/// The settings that decide, as far as they can be read.
#[derive(Debug, Default)]
struct Surroundings {
    /// Debian's `kernel.unprivileged_userns_clone`.
    unprivileged: Option<u64>,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    restricted: Option<u64>,
    max_user: Option<u64>,
    max_pid: Option<u64>,
    max_mounts: Option<u64>,
    /// A seccomp filter is in force, a container's most likely.
    filtered: bool,
}

impl Surroundings {
    fn look() -> Self {
        let setting = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            text.trim().parse().ok()
        };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filter = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            unprivileged: setting("kernel/unprivileged_userns_clone"),
            restricted: setting("kernel/apparmor_restrict_unprivileged_userns"),
            max_user: setting("user/max_user_namespaces"),
            max_pid: setting("user/max_pid_namespaces"),
            max_mounts: setting("user/max_mnt_namespaces"),
            filtered: filter.is_some_and(|mode| mode.trim() == "2"),
        }
    }
}

const OR_ROOT: &str = "or run leasewrap as root or with CAP_SYS_ADMIN";

impl Refusal {
    /// Which setting it is, and what to do: one line.
    pub fn why(&self) -> String {
        self.explained(&Surroundings::look())
    }

    fn explained(&self, there: &Surroundings) -> String {
        match (self.step, self.errno) {
            (Step::User | Step::Pid | Step::Mounts, Errno::ENOSPC | Errno::EUSERS) => {
                let (name, limit) = match self.step {
                    Step::User => ("user.max_user_namespaces", there.max_user),
                    Step::Pid => ("user.max_pid_namespaces", there.max_pid),
                    _ => ("user.max_mnt_namespaces", there.max_mounts),
                };
                let limit = limit.map_or_else(String::new, |limit| format!(" ({limit} here)"));
                format!("the limit {name}{limit} is reached: raise it, {OR_ROOT}")
            }
            (Step::User, Errno::EINVAL | Errno::ENOSYS) => {
                format!(
                    "this kernel has no user namespaces (CONFIG_USER_NS): {}",
                    &OR_ROOT[3..]
                )
            }
            (Step::Pid, Errno::EINVAL | Errno::ENOSYS) => {
                "this kernel has no PID namespaces (CONFIG_PID_NS)".to_owned()
            }
            (Step::User | Step::Map | Step::Pid | Step::Mounts, Errno::EPERM | Errno::EACCES) => {
                self.forbidden(there)
            }
            (Step::Proc, Errno::EPERM) => format!(
                "parts of /proc are hidden here, as in a container, and the kernel allows no new one \
                 beside it: have it unmasked (--security-opt systempaths=unmasked, procMount: \
                 Unmasked), {OR_ROOT}"
            ),
            (Step::Proc, Errno::EACCES) => {
                "a security module (AppArmor, SELinux) forbids to mount \
                 /proc: change the profile (--security-opt apparmor=unconfined for a container)"
                    .to_owned()
            }
            (Step::Proc, Errno::EINVAL | Errno::ENOENT) => {
                "/proc is not mounted at /proc here".to_owned()
            }
            (Step::Fork, Errno::ECHILD) => {
                "a process in between was killed (the kernel log, if memory ran out)".to_owned()
            }
            (Step::Fork, Errno::ETIMEDOUT) => "the guard does not answer".to_owned(),
            (step, errno) => format!("{}: {errno}", of_step(step)),
        }
    }

    fn forbidden(&self, there: &Surroundings) -> String {
        if there.unprivileged == Some(0) {
            return format!("kernel.unprivileged_userns_clone is 0: set it to 1, {OR_ROOT}");
        }
        if there.restricted.is_some_and(|restricted| restricted != 0) {
            return format!(
                "kernel.apparmor_restrict_unprivileged_userns is 1: set it to 0, give leasewrap an \
                 AppArmor profile that allows userns, {OR_ROOT}"
            );
        }
        if there.filtered {
            return format!(
                "a seccomp filter, a container's most likely, forbids new namespaces: run the \
                 container with one that allows unshare, or with CAP_SYS_ADMIN ({})",
                of_step(self.step)
            );
        }
        format!(
            "{}: not permitted (by a chroot, a security module or missing capabilities); {}",
            of_step(self.step),
            &OR_ROOT[3..]
        )
    }
}

fn of_step(step: Step) -> &'static str {
    match step {
        Step::Fork => "fork",
        Step::Pid => "unshare(CLONE_NEWPID)",
        Step::User => "unshare(CLONE_NEWUSER)",
        Step::Map => "the user namespace's uid_map",
        Step::Mounts => "unshare(CLONE_NEWNS)",
        Step::Proc => "mount of /proc",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_setting() {
        let open = Surroundings::default();
        let off = |change: fn(&mut Surroundings)| {
            let mut there = Surroundings::default();
            change(&mut there);
            there
        };
        for (step, errno, there, word) in [
            (
                Step::User,
                Errno::ENOSPC,
                off(|there| there.max_user = Some(0)),
                "user.max_user_namespaces (0 here)",
            ),
            (
                Step::User,
                Errno::EPERM,
                off(|there| there.unprivileged = Some(0)),
                "kernel.unprivileged_userns_clone is 0",
            ),
            (
                Step::Pid,
                Errno::EPERM,
                off(|there| there.restricted = Some(1)),
                "kernel.apparmor_restrict_unprivileged_userns is 1",
            ),
            (
                Step::User,
                Errno::EPERM,
                off(|there| there.filtered = true),
                "seccomp",
            ),
            (Step::Proc, Errno::EPERM, open, "unmasked"),
        ] {
            let text = Refusal::new(step, errno).explained(&there);
            assert!(text.contains(word), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn every_step_has_its_number() {
        for step in STEPS {
            let refusal = Refusal::new(step, Errno::EPERM);
            let (step, errno) = refusal.numbers();
            assert_eq!(Refusal::numbered(step, errno), Some(refusal));
        }
        assert_eq!(Refusal::numbered(99, 1), None);
    }
}
