//! `leasewrap install DIR`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::leasewrap::{Builder, binary, leasewrap};
use crate::support::run::run;
use crate::support::user::{by_nobody, is_root};

fn install(dir: &Path) -> Builder {
    leasewrap()
        .text()
        .switch("install")
        .switch(&dir.display().to_string())
}

fn directory() -> PathBuf {
    let dir = run().file("install");
    fs::create_dir(&dir).unwrap();
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[track_caller]
fn is_this_program(path: &Path) {
    assert!(fs::read(path).unwrap() == fs::read(binary()).unwrap());
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    let version = |program: &Path| {
        let builder = leasewrap().text().program(program).switch("--version");
        builder.run().code(0).out
    };
    assert_eq!(version(path), version(&binary()));
}

#[test]
fn it_copies_itself_and_replaces_an_older_one() {
    let dir = directory();
    let there = dir.join("leasewrap");
    // Whatever the umask says.
    let ended = install(&dir)
        .below(&["sh", "-c", "umask 077; exec \"$@\"", "sh"])
        .run()
        .code(0);
    assert!(ended.out.is_empty() && ended.log.is_empty(), "{ended:?}");
    is_this_program(&there);
    fs::write(&there, "an older one").unwrap();
    let before = fs::metadata(&there).unwrap().ino();
    install(&dir).run().code(0);
    is_this_program(&there);
    assert_ne!(fs::metadata(&there).unwrap().ino(), before, "in one step");
    assert_eq!(names(&dir), ["leasewrap"]);
}

#[test]
fn it_copies_what_runs_and_replaces_a_program_that_runs() {
    let (from, to) = (directory(), directory());
    let program = from.join("leasewrap");
    install(&from).run().code(0);
    // It installs over itself while it runs.
    install(&from).program(&program).run().code(0);
    is_this_program(&program);
    // The file that it was started from is gone.
    let held = fs::File::open(&program).unwrap();
    fs::remove_file(&program).unwrap();
    let path = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&held)
    );
    install(&to).program(Path::new(&path)).run().code(0);
    is_this_program(&to.join("leasewrap"));
}

#[test]
fn what_cannot_be_is_one_clear_line() {
    let dir = directory();
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let missing = dir.join("missing");
    for (target, words) in [
        (&missing, "no such directory"),
        (&file, "no directory"),
        (&PathBuf::from("/proc/self/fd/none"), "no such directory"),
    ] {
        let ended = install(target).run().code(125);
        let line = ended.last_line();
        assert!(line.contains(words), "{line}");
        assert!(line.contains(&target.display().to_string()), "{line}");
        assert_eq!((ended.log.len(), ended.out.as_str()), (1, ""));
    }
    let ended = leasewrap().text().switch("install").run().code(2);
    assert!(ended.last_line().contains("<DIR>"), "{ended:?}");
    // A directory has the name.
    fs::create_dir(dir.join("leasewrap")).unwrap();
    let ended = install(&dir).run().code(125);
    assert!(ended.last_line().contains("is a directory"), "{ended:?}");
    assert_eq!(names(&dir).len(), 2, "nothing else is left there");
}

#[test]
fn without_the_right_to_write() {
    let dir = directory();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    let ended = by_nobody(install(&dir)).run().code(125);
    assert!(
        ended.last_line().contains("may not write there"),
        "{ended:?}"
    );
}

#[test]
fn a_full_disk() {
    if !is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let dir = directory();
    let script =
        "mount -t tmpfs -o size=64k tmpfs \"$0\" || exit 77; \"$@\" || r=$?; ls -A \"$0\"; exit $r";
    let words = [
        "unshare",
        "-m",
        "sh",
        "-c",
        script,
        &dir.display().to_string(),
    ];
    let ended = install(&dir).below(&words).run();
    if ended.code == 77 || ended.says(&["unshare failed"]) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let ended = ended.code(125);
    assert!(ended.says(&["no space is left there"]), "{ended:?}");
    assert_eq!(ended.out, "", "nothing is left there");
}

#[test]
fn in_a_root_file_system_that_holds_nothing_else() {
    if !is_root() {
        eprintln!("skipped: only root can change the root directory");
        return;
    }
    // What the dynamic loader needs is a part of the program here.
    let root = directory();
    fs::create_dir(root.join("out")).unwrap();
    install(&root).run().code(0);
    let script = "set -e
        cd \"$0\"
        for lib in $(ldd leasewrap | grep -o '/[^ ]*'); do mkdir -p .$(dirname $lib); cp $lib .$lib; done
        mkdir proc; mount -t proc proc proc
        exec chroot . /leasewrap install /out";
    let builder = leasewrap()
        .text()
        .below(&["unshare", "-m", "sh", "-c", script]);
    let ended = builder.program(&root).run();
    if ended.says(&["mount"]) || ended.says(&["unshare failed"]) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    ended.code(0);
    assert!(root.join("out/leasewrap").exists());
}
