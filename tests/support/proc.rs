//! Reading /proc: who is whose child, who belongs to a test.

use std::fs;

use super::sys;

/// The children of a process, in all its threads.
pub fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// All descendants of a process, nearest first.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() {
        let more = children(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// The name of a process (`comm`), while it exists.
pub fn comm(pid: i32) -> Option<String> {
    Some(
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()?
            .trim_end()
            .to_owned(),
    )
}

/// The state letter of a process, while it exists.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A field of `/proc/PID/status`.
pub fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The pid of its parent.
pub fn parent(pid: i32) -> Option<i32> {
    status(pid, "PPid")?.parse().ok()
}

/// Whether it lives: a zombie does not.
pub fn alive(pid: i32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The processes whose environment has this `NAME=value`.
pub fn marked(entry: &str) -> Vec<i32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.flatten()
        .filter_map(|dir| dir.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|var| var == entry.as_bytes())
            })
        })
        .collect()
}

/// Kills everything that `find` finds, with all descendants, until nothing is found.
pub fn kill_all(find: impl Fn() -> Vec<i32>) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for turn in 0..500 {
        let mut found = find();
        let below: Vec<i32> = found.iter().flat_map(|pid| descendants(*pid)).collect();
        found.extend(below);
        found.retain(|pid| *pid != own && alive(*pid));
        if found.is_empty() {
            return;
        }
        for pid in found {
            // A postmaster gives its shared memory back at an immediate stop.
            let postmaster = turn < 200 && comm(pid).as_deref() == Some("postgres");
            sys::kill(
                pid,
                if postmaster {
                    libc::SIGQUIT
                } else {
                    libc::SIGKILL
                },
            );
            sys::kill(pid, libc::SIGCONT);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
