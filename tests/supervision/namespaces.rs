//! `--pid-namespace`: what a worker sees of it, and what is said where there
//! can be none.

use std::fs;
use std::process::Command;

use crate::support::leasewrap::{Builder, binary, events, holder, lease_name, namespaced};
use crate::support::run::{MARK, run};
use crate::support::server::shared;
use crate::support::user::{by_nobody, is_root};
use crate::support::wait::{SOON, until, until_true};
use crate::support::{proc, sys};

fn leasewrap() -> Builder {
    crate::leasewrap().switch("--pid-namespace")
}

/// All that a worker can see of where it is, its pids and `/proc` left out.
const VIEW: &str = "
    id -u; id -g; id -G; pwd; umask; ulimit -a; nice; tty; echo \"$-\"
    for fd in 0 1 2 7 9; do echo \"$fd $(readlink /proc/$$/fd/$fd | cut -d: -f1)\"; done
    (cd /proc/$$/fd && echo *)
    for of in net ipc uts cgroup time; do readlink /proc/self/ns/$of; done
    grep -E '^(SigIgn|Cap|NoNewPrivs|Seccomp:|Threads|Groups)' /proc/$$/status
    cat /proc/$$/oom_score_adj /proc/$$/cgroup
    cut -d' ' -f3- /proc/self/mountinfo | grep -v ' /proc ' | cut -d' ' -f1-3 | sort
    env | cut -d= -f1 | sort
    stat -c %t:%T:%i /dev/null / .
";

fn view(builder: Builder, descriptors: &[(i32, i32)]) -> String {
    let descriptors = descriptors.to_vec();
    let ended = builder
        .start(move |start| {
            start.descriptors = descriptors;
            start.ignored = vec![libc::SIGHUP];
        })
        .sh(VIEW)
        .run()
        .code(0);
    assert!(ended.out.lines().count() > 40, "{ended:?}");
    ended.out
}

#[test]
fn nobody_in_the_callers_group_is_hung_up() {
    // A group without job control, and somebody in it who is stopped: there
    // the kernel's eye is on whoever ends.
    let script = "
        trap 'echo hung up' HUP
        sleep 1000 & kill -STOP $!
        for start in $(seq 40); do \"$@\" || echo \"start $start: $?\"; done
        kill -KILL $!";
    let started = Command::new("setsid")
        .env(MARK, run().dir())
        .args(["-w", "sh", "-c", script, "sh"])
        .arg(binary())
        .args(["-q", "--pid-namespace", "--name", &lease_name("hang-up")])
        .args(["--db", &shared().url(), "--", "true"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&started.stdout), "");
}

#[test]
fn a_worker_sees_no_other_difference() {
    if !is_root() {
        // Below a user namespace its capabilities, and others' files, differ.
        return;
    }
    use std::os::fd::AsRawFd;
    let one = fs::File::open("/dev/zero").unwrap();
    let descriptors = [(one.as_raw_fd(), 7), (one.as_raw_fd(), 9)];
    let input = || fs::File::open("/dev/full").unwrap();
    let without = view(crate::leasewrap().stdin(input()), &descriptors);
    let with = view(leasewrap().stdin(input()), &descriptors);
    assert_eq!(with, without);
}

#[test]
fn its_pids_are_its_own_and_nobody_elses_are_seen() {
    let script = "echo $$ $PPID $LISTEN_PID $WATCHDOG_PID; \
                  for dir in /proc/[0-9]*; do cat $dir/comm; done | sort | uniq; readlink /proc/self/ns/pid";
    let out = leasewrap()
        .below(&["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"])
        .option("--worker-watchdog", "1m")
        .sh(script)
        .run()
        .code(0)
        .out;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "2 0 2 2");
    let seen = &lines[1..lines.len() - 1];
    assert!(seen.contains(&"lw-init") && seen.contains(&"sh"), "{out}");
    for foreign in ["lw-guard", "leasewrap", "postgres"] {
        assert!(!seen.contains(&foreign), "{out}");
    }
    let ours = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_ne!(lines.last().copied(), ours.to_str());
}

/// Where `/proc` is mounted, as `pid` sees it.
fn procs(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| *point == "/proc")
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_mount_leaks_out_and_others_are_shared_as_before() {
    if !is_root() {
        return;
    }
    let (inside, outside) = (run().directory("inside"), run().directory("outside"));
    let script = format!(
        "mount -t tmpfs worker {0} && echo mounted && until mountpoint -q {1}; do sleep 0.02; done; \
         echo seen; exec sleep 1000",
        inside.display(),
        outside.display()
    );
    // A mount namespace of the test's own, in which everything is shared, as
    // systemd makes it.
    let leasewrap = leasewrap()
        .below(&["unshare", "--mount", "--propagation", "shared"])
        .sh(&script)
        .spawn();
    leasewrap.wait_out("mounted");
    let keeper = leasewrap.pid().to_string();
    assert_eq!(procs(&keeper), procs("self"), "one more /proc out there");
    let text = fs::read_to_string(format!("/proc/{keeper}/mountinfo")).unwrap();
    let mounted = |dir: &std::path::Path| {
        let dir = dir.display().to_string();
        text.lines()
            .any(|line| line.split(' ').nth(4) == Some(&dir))
    };
    assert!(mounted(&inside), "the worker's mount is seen out there");
    let done = Command::new("nsenter")
        .args([
            "--mount", "--target", &keeper, "mount", "-t", "tmpfs", "test",
        ])
        .arg(&outside)
        .status()
        .unwrap();
    assert!(done.success());
    leasewrap.wait_out("seen");
}

#[test]
fn somebody_who_is_not_root_has_it_in_a_user_namespace() {
    let script = "id -u; grep '^CapEff' /proc/self/status; setsid sleep 1000 & echo $$; kill -9 1; kill -9 $$";
    let ended = by_nobody(leasewrap()).sh(script).run().code(137);
    let lines: Vec<&str> = ended.out.lines().collect();
    let user = if is_root() {
        "65534".to_owned()
    } else {
        nix::unistd::geteuid().to_string()
    };
    assert_eq!(lines[0], user);
    assert_eq!(lines[1].split_whitespace().last(), Some("0000000000000000"));
    assert_eq!(lines[2], "2");
    assert!(ended.says(&["left-behind"]));
    assert!(ended.says(&["released"]));
}

#[test]
fn its_init_cannot_be_looked_into() {
    let leasewrap = by_nobody(leasewrap()).sh("exec sleep 1000").spawn();
    // The guard's attempt at the beginning has an init too.
    let (worker, init) = (leasewrap.worker(), leasewrap.init());
    let uid = |pid: i32| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(format!("/proc/{pid}/environ"))
            .map(|file| file.uid())
            .ok()
    };
    until_true("the worker is as it would be", SOON, || {
        uid(worker) != Some(0)
    });
    assert_eq!(uid(init), Some(0), "undumpable: its files are root's");
    assert_eq!(proc::children(init), Vec::<i32>::new());
    // It closes them beside the worker's start, not before.
    until_true("it has nothing of the caller's", SOON, || {
        let open = fs::read_dir(format!("/proc/{init}/fd"));
        open.map_or(true, |open| open.count() == 1)
    });
}

#[test]
fn it_works_within_itself_and_below_pid_1() {
    let name = lease_name("nested");
    let nested = format!(
        "exec {} -q --db '{}' --name {name} --pid-namespace -- sh -c 'echo in $$; exit 6'",
        binary().display(),
        shared().url()
    );
    let ended = leasewrap().sh(&nested).run().code(6);
    assert_eq!(ended.out, "in 2\n");
    let mut below = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !is_root() {
        below.extend(["--user", "--map-root-user"]);
    }
    let ended = leasewrap()
        .below(&below)
        .sh("echo in $$; exit 6")
        .run()
        .code(6);
    assert_eq!(ended.out, "in 2\n");
}

#[test]
fn every_worker_of_a_rejoining_leasewrap_has_its_own() {
    let name = lease_name("rejoin");
    let leasewrap = holder(&shared().url(), &name)
        .switch("--pid-namespace")
        .switch("--rejoin")
        .sh("echo begun $$; setsid sleep 1000 & sleep 1000")
        .spawn();
    leasewrap.wait_out("begun 2\n");
    let first = leasewrap.init();
    let stepped = Command::new(binary())
        .args(["step-down", "--name", &name, "--db", &shared().url()])
        .output()
        .unwrap();
    assert!(stepped.status.success(), "{stepped:?}");
    leasewrap.wait_out("begun 2\nbegun 2\n");
    assert!(!proc::alive(first));
    until("another init", SOON, || {
        (leasewrap.init() != first).then_some(())
    });
}

#[test]
fn the_log_says_which_containment_is_in_force() {
    for (builder, containment) in [
        (leasewrap(), "pid-namespace"),
        (
            crate::leasewrap(),
            if namespaced() {
                "pid-namespace"
            } else {
                "tree"
            },
        ),
    ] {
        let ended = builder.worker(&["true"]).run().code(0);
        for event in ["acquired", "ended"] {
            assert_eq!(events(&ended.log, event)[0]["containment"], containment);
        }
    }
}

/// Runs it as what a user namespace makes root of, `first` done before.
fn refused(first: &str, word: &str) {
    let name = lease_name("refused");
    let never = run().file("never");
    let script = format!("{first} && exec \"$@\"");
    let mut below = vec!["unshare", "--user", "--map-root-user", "--mount"];
    below.extend(["sh", "-c", &script, "sh"]);
    // Without CAP_SYS_ADMIN, so that it needs one more user namespace.
    below.extend([
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ]);
    let ended = holder(&shared().url(), &name)
        .switch("--pid-namespace")
        .below(&below)
        .worker(&["touch", &never.display().to_string()])
        .run()
        .code(125);
    assert_eq!(ended.log.len(), 1, "one clear line: {:?}", ended.log);
    assert!(
        ended.says(&["cannot give the worker a PID namespace", word]),
        "{:?}",
        ended.log
    );
    assert!(!never.exists(), "nothing runs");
    let rows = shared().psql(&format!(
        "select count(*) from leasewrap.lease where name = '{name}'"
    ));
    assert_eq!(rows, "0", "nothing was taken");
}

#[test]
fn where_the_kernel_refuses_one_line_says_which_setting_does() {
    // The schema is there.
    crate::leasewrap().worker(&["true"]).run().code(0);
    refused(
        "echo 0 >/proc/sys/user/max_user_namespaces",
        "user.max_user_namespaces (0 here)",
    );
    refused(
        "echo 0 >/proc/sys/user/max_pid_namespaces",
        "user.max_pid_namespaces (0 here)",
    );
    refused(
        "echo 0 >/proc/sys/user/max_mnt_namespaces",
        "user.max_mnt_namespaces (0 here)",
    );
    // As in a container that hides parts of it.
    refused(
        "mount --bind /dev/null /proc/cmdline",
        "parts of /proc are hidden here",
    );
}

#[test]
fn doctor_says_whether_it_is_possible() {
    let (program, url) = (binary().display().to_string(), shared().url());
    let doctor = |below: &[&str], options: &[&str]| {
        let words = [below, &[&program, "doctor", "--db", &url], options].concat();
        let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        let line = out.lines().find(|line| line.contains("containment"));
        (
            line.unwrap_or_else(|| panic!("{done:?}")).to_owned(),
            out.clone(),
        )
    };
    let (line, _) = doctor(&[], &[]);
    assert!(line.contains("--pid-namespace is possible"), "{line}");
    let (line, _) = doctor(&[], &["--pid-namespace"]);
    assert!(
        line.starts_with("ok") && line.contains("PID namespace"),
        "{line}"
    );
    let script = "echo 0 >/proc/sys/user/max_pid_namespaces && exec \"$@\"";
    let below = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        script,
        "sh",
    ];
    let (line, out) = doctor(&below, &["--pid-namespace"]);
    assert!(line.starts_with("FAILS"), "{line}");
    assert!(out.contains("user.max_pid_namespaces"), "{out}");
}

#[test]
fn a_worker_that_is_killed_by_the_hosts_admin_is_reported() {
    let leasewrap = leasewrap().worker(&["sleep", "1000"]).spawn();
    sys::kill(leasewrap.worker(), libc::SIGKILL);
    let ended = leasewrap.end().code(137);
    assert!(ended.says(&["released"]));
}
