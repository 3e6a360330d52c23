//! Which host and boot this is.

use std::fs;
use std::os::unix::fs::MetadataExt;

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
}
