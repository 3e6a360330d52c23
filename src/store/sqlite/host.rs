//! Which host, boot and file this is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{self, FsType};

use crate::lease::record::{Fault, Unknown};

/// How many machines a file knows at most: a container may have another id at
/// each start.
const MACHINES: usize = 16;

/// This host and boot, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// `machine-id(5)`; empty where there is none, in a container for example.
    pub machine: String,
    /// Of the running kernel: the same in all its containers.
    pub boot: String,
    /// Inode of the time namespace (`time_namespaces(7)`).
    pub time_namespace: u64,
}

impl Host {
    /// Reads it.
    pub(super) fn read() -> Result<Self, Unknown> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| {
            wrong(format!(
                "/proc/sys/kernel/random/boot_id cannot be read: {error}; mount /proc"
            ))
        })?;
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let time_namespace = fs::metadata("/proc/self/ns/time").map_or(0, |time| time.ino());
        Ok(Self {
            machine: machine.split_whitespace().collect(),
            boot: boot.trim().to_owned(),
            time_namespace,
        })
    }

    /// Which machines a file is to know from now on that knows these of `boot`;
    /// nothing where it may be another host's. Containers of one host need not
    /// agree on the machine, but they share the boot: whoever was seen in it
    /// may move on to the next one. Who has no machine's id says nothing.
    pub(super) fn known_to(&self, machines: &str, boot: &str) -> Option<String> {
        let mut known: Vec<&str> = machines.split_whitespace().collect();
        let own = self.machine.as_str();
        let is_known = known.contains(&own);
        if boot != self.boot {
            if !is_known && !known.is_empty() && !own.is_empty() {
                return None;
            }
            // Those that a host has at every boot stay before those that were
            // there once.
            known.retain(|machine| *machine != own);
            known.insert(0, own);
            known.retain(|machine| !machine.is_empty());
        } else if !is_known && !own.is_empty() {
            known.truncate(MACHINES - 1);
            known.push(own);
        }
        known.truncate(MACHINES);
        Some(known.join(" "))
    }
}

/// What a file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    /// Kept over reboots, where the device need not be.
    pub inode: u64,
}

/// Whether there is a file at `path`, and which. It is never opened for that:
/// closing it would drop SQLite's locks on it (`fcntl_locking(2)`).
pub(super) fn file(path: &Path) -> Result<Option<FileId>, Unknown> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        })),
        Ok(_) => Err(wrong(format!("{} is no file; name a file", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            directory(path)?;
            Ok(None)
        }
        Err(error) => Err(wrong(format!(
            "{} cannot be looked at: {error}",
            path.display()
        ))),
    }
}

/// The directory must be there, and of this host: locks do not hold, and
/// boot clocks are not the same, over a network.
pub(super) fn directory(path: &Path) -> Result<(), Unknown> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let found = statfs::statfs(directory).map_err(|error| {
        let shown = directory.display();
        wrong(format!(
            "the directory {shown} cannot be used: {error}; create it first"
        ))
    })?;
    let Some(kind) = network(found.filesystem_type()) else {
        return Ok(());
    };
    Err(wrong(format!(
        "{} is on {kind}, where SQLite's locks are not reliable and other hosts may be at work; \
         name a file on a local disk, or use PostgreSQL",
        path.display()
    )))
}

/// What kind of network file system it is (`statfs(2)`), or may be: what FUSE
/// keeps where cannot be told.
fn network(kind: FsType) -> Option<&'static str> {
    // The type's width differs between C libraries.
    Some(match kind.0 as u64 & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

/// Something that does not become right by waiting.
pub(super) fn wrong(message: String) -> Unknown {
    Unknown {
        fault: Fault::Final,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(machine: &str, boot: &str) -> Host {
        Host {
            machine: machine.to_owned(),
            boot: boot.to_owned(),
            time_namespace: 0,
        }
    }

    #[test]
    fn containers_of_one_host_are_one_host() {
        let here = host("a", "1");
        let known = |machines, boot| here.known_to(machines, boot);
        assert_eq!(known("a", "1").as_deref(), Some("a"));
        assert_eq!(known("b", "1").as_deref(), Some("b a"), "another container");
        assert_eq!(known("a", "2").as_deref(), Some("a"), "rebooted");
        assert_eq!(known("", "2").as_deref(), Some("a"), "it did not say");
        assert_eq!(known("b", "2"), None);
        assert_eq!(known("b a c", "2").as_deref(), Some("a b c"));
        let nobody = host("", "1");
        assert_eq!(nobody.known_to("b", "1").as_deref(), Some("b"));
        assert_eq!(nobody.known_to("b", "2").as_deref(), Some("b"));
    }

    #[test]
    fn containers_of_a_day_push_no_host_out() {
        let mut known = host("a", "1").known_to("", "0").expect("it is new");
        for day in 0..100 {
            let guest = host(&format!("g{day}"), "1");
            known = guest.known_to(&known, "1").expect("the same boot");
        }
        assert_eq!(known.split(' ').count(), MACHINES);
        assert!(known.starts_with("a g0 ") && known.ends_with(" g99"));
        assert!(host("a", "2").known_to(&known, "1").is_some());
    }

    #[test]
    fn network_file_systems_are_known() {
        assert_eq!(network(FsType(0x6969)), Some("NFS"));
        // ext4, overlayfs, tmpfs, btrfs.
        for local in [0xef53, 0x794c_7630, 0x0102_1994, 0x9123_683e] {
            assert_eq!(network(FsType(local)), None);
        }
    }

    #[test]
    fn a_missing_directory_is_told() {
        let error = file(Path::new("/nowhere/at/all.db")).expect_err("it is not there");
        assert!(error.message.contains("/nowhere/at") && error.fault == Fault::Final);
        assert!(file(Path::new("/")).is_err());
        assert_eq!(file(Path::new("/proc-of-none.db")), Ok(None));
    }
}
