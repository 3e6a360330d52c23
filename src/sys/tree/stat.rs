//! `/proc/PID/stat` (`proc_pid_stat(5)`).

use std::fs::File;
use std::io::Read;

/// The fields that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// Name of the executable, at most 15 bytes.
    pub name: String,
    /// `R`, `S`, `D`, `T`, `Z` and others, of the group's leader.
    pub state: u8,
    /// Parent's process id.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Device number of the controlling terminal; 0 without one.
    pub terminal: i32,
    /// Number of threads, an ended leader included.
    pub threads: u32,
    /// When it was started, in clock ticks since the boot: with the pid it
    /// means this process and no other.
    pub started: u64,
}

impl Stat {
    /// Whether all of it has ended: a zombie, and not only its first thread.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Of one process; `None` when it is gone.
pub fn read(pid: i32) -> Option<Stat> {
    let mut buffer = [0; 1024];
    parse(read_into(&format!("/proc/{pid}/stat"), &mut buffer)?)
}

/// Of this process.
pub fn read_self() -> Option<Stat> {
    let mut buffer = [0; 1024];
    parse(read_into("/proc/self/stat", &mut buffer)?)
}

/// Of every process that can be seen.
pub fn all() -> impl Iterator<Item = Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(read)
}

fn read_into<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut file = File::open(path).ok()?;
    // One read: the kernel writes the whole line at once.
    let length = file.read(buffer).ok()?;
    buffer.get(..length)
}

fn parse(line: &[u8]) -> Option<Stat> {
    // The name may hold blanks and parentheses; it ends at the last one.
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let name = line.get(open + 1..close)?;
    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session, terminal) = (number()?, number()?, number()?, number()?);
    Some(Stat {
        pid: std::str::from_utf8(line.get(..open)?)
            .ok()?
            .trim()
            .parse()
            .ok()?,
        name: String::from_utf8_lossy(name).into_owned(),
        state,
        parent,
        group,
        session,
        terminal,
        // Twelve fields lie between: the terminal's process group, flags, four
        // faults, four times, priority, nice.
        threads: fields.nth(12)?.parse().ok()?,
        // After a timer's value that is always 0.
        started: fields.nth(1)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) b (c)) S 1 2 3 34816 42 4194304 1 2 3 4 5 6 7 8 20 0 9 0 100 x";
        let found = parse(line).unwrap();
        assert_eq!(found.name, "a) b (c)");
        assert_eq!((found.pid, found.state, found.parent), (42, b'S', 1));
        assert_eq!((found.group, found.session, found.terminal), (2, 3, 34816));
        assert_eq!(found.threads, 9);
        assert_eq!(parse(b"42 (a"), None);
    }

    #[test]
    fn this_process_is_read() {
        let me = read_self().unwrap();
        assert_eq!(me.pid.cast_unsigned(), std::process::id());
        assert_eq!(Some(me.parent), read(me.pid).map(|found| found.parent));
        assert!(me.threads >= 1);
        assert!(all().any(|found| found.pid == me.pid));
    }
}
