//! Who is whose child.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::stat;

/// The list of this process's own children (of its main thread, which gets
/// all orphans), held open: so it can be read also when the worker has taken
/// /proc away, or when there is no descriptor left.
static OWN: OnceLock<File> = OnceLock::new();

/// Holds the list of this process's own children open from now on. To be
/// called by its main thread.
pub fn hold_own() {
    // Not every kernel has these files.
    let path = c"/proc/thread-self/children";
    if let Ok(list) = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        let _already = OWN.set(File::from(list));
    }
}

/// Lists children by `/proc/PID/task/TID/children` (`CONFIG_PROC_CHILDREN`,
/// as nearly every distribution has it), or by a scan of all of /proc.
///
/// A list is exact only while the parent and its children stand still: who
/// ends meanwhile may hide a sibling. So readers repeat until nothing new
/// appears, and only `wait` says that nothing is left.
#[derive(Debug)]
pub enum Lister {
    /// By the `children` files.
    Files,
    /// By one scan: pairs of parent and child, sorted.
    Scan(Vec<(i32, i32)>),
}

impl Lister {
    /// The best that this kernel has.
    pub fn new() -> Self {
        let me = std::process::id();
        let path = format!("/proc/self/task/{me}/children");
        if OWN.get().is_some() || File::open(path).is_ok() {
            Self::Files
        } else {
            Self::Scan(Vec::new())
        }
    }

    /// To be called at the beginning of every walk.
    pub fn refresh(&mut self) {
        if let Self::Scan(pairs) = self {
            pairs.clear();
            pairs.extend(stat::all().map(|found| (found.parent, found.pid)));
            pairs.sort_unstable();
        }
    }

    /// Appends the children of `pid`, which has that many threads.
    pub fn children(&self, pid: i32, threads: u32, found: &mut Vec<i32>) {
        match self {
            // Its only thread, then: the leader, be it running or ended.
            Self::Files if threads == 1 => read_list(pid, pid, found),
            Self::Files => {
                for thread in threads_of(pid) {
                    read_list(pid, thread, found);
                }
            }
            Self::Scan(pairs) => {
                let first = pairs.partition_point(|(parent, _)| *parent < pid);
                let own = pairs[first..]
                    .iter()
                    .take_while(|(parent, _)| *parent == pid);
                found.extend(own.map(|(_, child)| *child));
            }
        }
    }

    /// Appends this process's own children, of all its threads.
    pub fn children_of_self(&self, found: &mut Vec<i32>) {
        let me = std::process::id().cast_signed();
        let (Self::Files, Some(held)) = (self, OWN.get()) else {
            self.children(me, u32::MAX, found);
            return;
        };
        let mut at = 0;
        read_numbers(found, |buffer| {
            let length = held.read_at(buffer, at)?;
            at += length as u64;
            Ok(length)
        });
        for thread in threads_of(me).filter(|thread| *thread != me) {
            read_list(me, thread, found);
        }
    }
}

impl Default for Lister {
    fn default() -> Self {
        Self::new()
    }
}

/// This process's own children.
pub fn children_of_self(found: &mut Vec<i32>) {
    let mut lister = Lister::new();
    lister.refresh();
    lister.children_of_self(found);
}

fn threads_of(pid: i32) -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn read_list(pid: i32, thread: i32, found: &mut Vec<i32>) {
    let Ok(mut file) = File::open(format!("/proc/{pid}/task/{thread}/children")) else {
        return;
    };
    read_numbers(found, |buffer| file.read(buffer));
}

fn read_numbers(found: &mut Vec<i32>, mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) {
    let mut buffer = [0; 4096];
    // A number may be cut in two by the buffer's end.
    let mut number: Option<i32> = None;
    while let Ok(length @ 1..) = read(&mut buffer) {
        for byte in &buffer[..length] {
            if byte.is_ascii_digit() {
                let digit = i32::from(byte - b'0');
                number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            } else {
                found.extend(number.take());
            }
        }
    }
    found.extend(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same_children() {
        let mut children: Vec<_> = (0..3)
            .map(|_| {
                std::process::Command::new("sleep")
                    .arg("60")
                    .spawn()
                    .unwrap()
            })
            .collect();
        let me = std::process::id().cast_signed();
        let mut scan = Lister::Scan(Vec::new());
        scan.refresh();
        for lister in [Lister::new(), scan] {
            let mut found = Vec::new();
            lister.children(me, u32::MAX, &mut found);
            for child in &children {
                assert!(found.contains(&child.id().cast_signed()), "{lister:?}");
            }
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
