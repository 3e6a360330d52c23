//! Which of the four this process is. Guard and releaser are the same binary
//! executed anew, named `lw-guard` and nothing else; what they need comes
//! over inherited descriptors that one variable names.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::unistd::getppid;

use super::memfd::{ReleaseFile, SetupFile};
use super::namespace::{PROBE_NAME, PROBE_VARIABLE, ProbeTask};
use super::process;
use super::release::ReleaseTask;
use super::socket::Channel;

/// The name, and the whole command line, of guard and releaser.
pub const GUARD_NAME: &CStr = c"lw-guard";

/// Names the guard's descriptors.
pub(super) const GUARD_VARIABLE: &str = "LW_GUARD";

/// Names the releaser's descriptors.
pub(super) const RELEASE_VARIABLE: &str = "LW_RELEASE";

/// What this process is to be.
#[derive(Debug)]
pub enum Role {
    /// leasewrap itself: the keeper, or any other command.
    Leasewrap,
    /// The guard.
    Guard(GuardStart),
    /// What a guard turns into when the keeper does not release.
    Releaser(ReleaseTask),
    /// Tries whether `--pid-namespace` is possible here.
    Probe(ProbeTask),
    /// Named like a guard, without what a guard needs: nobody's business.
    Broken,
}

/// What a guard is given.
#[derive(Debug)]
pub struct GuardStart {
    /// To the keeper.
    pub channel: Channel,
    /// The worker's command.
    pub setup: SetupFile,
    /// For the releaser; the guard itself never reads it. `None`: there is
    /// nothing to release (a hook's guard).
    pub release: Option<ReleaseFile>,
    /// The connection of `attach` to `serve`, which is told the end of the
    /// tree when the process that should do so does not.
    pub serve: Option<Channel>,
    /// The keeper's process; `None` when it has ended already (its end of the
    /// channel is closed then), is not on this host, or is to be left alone.
    pub keeper: Option<OwnedFd>,
    /// To be made first: whether the worker can have a PID namespace.
    pub probe: Option<ProbeTask>,
    /// The numbers of the descriptors that are open as long as the guard is.
    pub kept: Vec<RawFd>,
    /// The numbers of all descriptors above, to tell the caller's from ours.
    pub ours: Vec<RawFd>,
}

/// Finds out, and takes over the inherited descriptors (so: once). Guard and
/// releaser have their name, and cannot be looked into, from here on.
pub fn of_this_process(args: &[OsString]) -> Role {
    let is_named =
        |name: &CStr| matches!(args, [only] if only.as_encoded_bytes() == name.to_bytes());
    if is_named(PROBE_NAME) {
        process::set_name(PROBE_NAME);
        // It has nothing to hide, and must be open to be looked into.
        let named = std::env::var_os(PROBE_VARIABLE);
        let task = named.and_then(|named| ProbeTask::inherited(&named));
        return task.map_or(Role::Broken, Role::Probe);
    }
    if !is_named(GUARD_NAME) {
        return Role::Leasewrap;
    }
    process::set_name(GUARD_NAME);
    // Before anything of it can be of interest. An exec has reset it.
    if process::become_undumpable().is_err() {
        return Role::Broken;
    }
    let role = match (
        std::env::var_os(RELEASE_VARIABLE),
        std::env::var_os(GUARD_VARIABLE),
    ) {
        (Some(named), _) => ReleaseTask::inherited(&named).map(Role::Releaser),
        (None, Some(named)) => GuardStart::inherited(&named).map(Role::Guard),
        (None, None) => None,
    };
    role.unwrap_or(Role::Broken)
}

impl GuardStart {
    fn inherited(named: &OsStr) -> Option<Self> {
        let fields = Fields::of(named)?;
        let (socket, setup) = (fields.number("socket")?, fields.number("setup")?);
        let (release, serve) = (fields.number("release"), fields.number("serve"));
        let kept: Vec<_> = [socket, setup]
            .into_iter()
            .chain(release)
            .chain(serve)
            .collect();
        Some(Self {
            channel: Channel::from_socket(take(socket)?),
            setup: SetupFile::inherited(take(setup)?),
            release: match release {
                Some(release) => Some(ReleaseFile::inherited(take(release)?)),
                None => None,
            },
            serve: match serve {
                Some(serve) => Some(Channel::from_socket(take(serve)?)),
                None => None,
            },
            keeper: fields.number("keeper").and_then(keeper),
            probe: ProbeTask::of(&fields),
            ours: kept
                .iter()
                .copied()
                .chain(fields.number("report"))
                .collect(),
            kept,
        })
    }
}

/// The keeper's handle. Our parent can only be the keeper or, after its end,
/// a subreaper: that it is still the keeper *after* the handle was made shows
/// that the handle means it.
fn keeper(pid: i32) -> Option<OwnedFd> {
    let handle = process::pidfd_open(pid).ok()?;
    (getppid().as_raw() == pid).then_some(handle)
}

/// `name=number,name=number…`
pub(super) struct Fields<'a>(Vec<(&'a str, i32)>);

impl<'a> Fields<'a> {
    pub(super) fn of(text: &'a OsStr) -> Option<Self> {
        let pairs = text.to_str()?.split(',').map(|pair| {
            let (name, number) = pair.split_once('=')?;
            Some((name, number.parse().ok()?))
        });
        pairs.collect::<Option<_>>().map(Self)
    }

    pub(super) fn number(&self, name: &str) -> Option<i32> {
        let found = self.0.iter().find(|(known, _)| *known == name)?;
        Some(found.1)
    }
}

/// Takes over an inherited descriptor: from now on close-on-exec.
pub(super) fn take(fd: RawFd) -> Option<OwnedFd> {
    if fd <= 2 {
        return None;
    }
    // SAFETY: two numbers; fails when it is not open.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: open, inherited for this purpose, and nothing else in this
    // process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_is_a_guard() {
        let args = |names: &[&str]| names.iter().map(OsString::from).collect::<Vec<_>>();
        for names in [&["leasewrap"][..], &["lw-guard", "x"], &[]] {
            assert!(matches!(of_this_process(&args(names)), Role::Leasewrap));
        }
        assert!(matches!(
            of_this_process(&args(&["lw-guard"])),
            Role::Broken
        ));
    }

    #[test]
    fn fields_are_read_or_refused() {
        let fields = Fields::of(OsStr::new("socket=5,keeper=-1")).unwrap();
        assert_eq!(fields.number("socket"), Some(5));
        assert_eq!(fields.number("keeper"), Some(-1));
        assert_eq!(fields.number("setup"), None);
        for bad in ["", "socket", "socket=x", "socket=1,"] {
            assert!(Fields::of(OsStr::new(bad)).is_none(), "{bad}");
        }
    }
}
