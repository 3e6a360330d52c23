//! The live line of a standby on a terminal.

use crate::support::leasewrap::{Builder, Leasewrap, holder, lease_name};
use crate::support::pty::Terminal;
use crate::support::server::shared;
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::Log;
use crate::terminal::line;

const CTRL_S: &str = "\x13";
const CTRL_Q: &str = "\x11";
const CTRL_Z: &str = "\x1a";

/// What is in the live line and in no line of the log.
const LIVE: &str = "standing by for ";

/// A holder elsewhere, and a standby of the same lease that is not started yet.
fn scene(log: &Log) -> (Leasewrap, Builder) {
    let name = lease_name("live");
    let start = || holder(&shared().url(), &name).ttl("20s");
    let elsewhere = start()
        .option("--label", "else/where")
        .worker(&log.worker(&[]));
    let elsewhere = elsewhere.spawn();
    log.wait_newer(0, SOON);
    (elsewhere, start().text())
}

fn give_back(holder: Leasewrap) {
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

/// What is to be seen in the end of all that was written: lines, as a
/// terminal of unlimited width shows them.
fn lines(written: &str) -> Vec<String> {
    let mut lines = vec![Vec::new()];
    let mut column = 0;
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        let line: &mut Vec<char> = lines.last_mut().unwrap();
        match c {
            '\r' => column = 0,
            '\n' => {
                lines.push(Vec::new());
                column = 0;
            }
            '\x1b' => {
                let mut sequence = String::new();
                for c in chars.by_ref() {
                    sequence.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                if sequence == "[K" {
                    line.truncate(column);
                }
            }
            c => {
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    lines
        .into_iter()
        .map(|line| line.into_iter().collect())
        .collect()
}

/// Starts the standby in a shell, on a terminal that can be drawn on; back
/// when the line is there.
fn standing_by(terminal: &Terminal, columns: u16, standby: &Builder) {
    terminal.resize(24, columns);
    terminal.line(&format!("TERM=xterm {}", line(standby)));
    terminal.wait(LIVE);
}

#[test]
fn it_says_who_has_it_and_is_gone_when_the_worker_starts() {
    let log = Log::new();
    let (elsewhere, standby) = scene(&log);
    let terminal = Terminal::bash();
    let mut words = log.worker(&["exit-after=300"]);
    words.splice(
        0..0,
        ["sh", "-c", "echo worked; exec \"$@\"", "sh"].map(str::to_owned),
    );
    standing_by(&terminal, 250, &standby.worker(&words));
    terminal.wait("\"else/where\" has it (token ");
    // It goes on by itself; a busy host may skip a second.
    until_true("it counts the seconds", SOON, || {
        let screen = terminal.screen();
        let mut counts = screen.split(LIVE).skip(1).filter_map(|text| {
            let (seconds, _) = text.split_once('s')?;
            seconds.parse::<u32>().ok()
        });
        counts.any(|seconds| seconds >= 2)
    });
    let token = log.spans()[0].0;
    assert!(terminal.screen().contains(&format!("(token {token}) for ")));
    assert!(
        terminal.screen().contains("over in "),
        "{}",
        terminal.screen()
    );
    give_back(elsewhere);
    terminal.wait("exit code 0");
    terminal.line("exit");
    let screen = terminal.screen();
    let seen = lines(&screen);
    assert!(seen.iter().any(|line| line == "worked"), "{seen:#?}");
    for line in &seen {
        assert!(!line.contains(LIVE), "a trace is left: {seen:#?}");
        let of_the_log = line.contains("leasewrap: ");
        assert!(
            !of_the_log || line.starts_with("20"),
            "{line:?} in {seen:#?}"
        );
    }
    terminal.end();
}

#[test]
fn it_is_gone_when_the_standing_by_ends() {
    let log = Log::new();
    let (elsewhere, standby) = scene(&log);
    for (stop, code) in [("\x03", "130"), ("", "121")] {
        let terminal = Terminal::bash();
        let name = elsewhere.wait_event("acquired")["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut again = holder(&shared().url(), &name).text().sh("true");
        if stop.is_empty() {
            again = again.option("--wait", "8s");
        }
        standing_by(&terminal, 250, &again);
        terminal.type_text(stop);
        let ended = if stop.is_empty() {
            "not acquired within"
        } else {
            "SIGINT came"
        };
        terminal.wait(ended);
        assert!(
            terminal
                .run("echo code=$?")
                .contains(&format!("code={code}"))
        );
        assert!(
            lines(&terminal.screen())
                .iter()
                .all(|line| !line.contains(LIVE))
        );
    }
    drop(standby);
}

#[test]
fn it_fits_into_a_narrow_terminal() {
    let log = Log::new();
    let (elsewhere, standby) = scene(&log);
    let terminal = Terminal::bash();
    standing_by(&terminal, 40, &standby.sh("true"));
    let drawn = |screen: &str| -> Vec<String> {
        let pieces = screen
            .split('\r')
            .filter_map(|piece| piece.split_once("\x1b[K"));
        let all = pieces.map(|(text, _)| text.to_owned());
        all.filter(|text| !text.is_empty()).collect()
    };
    let all = until("some lines are drawn", SOON, || {
        let all = drawn(&terminal.screen());
        (all.len() >= 3).then_some(all)
    });
    assert!(all.iter().all(|text| text.chars().count() <= 39), "{all:?}");
    assert!(all.iter().any(|text| text.ends_with('…')), "{all:?}");
    give_back(elsewhere);
    terminal.wait("exit code 0");
}

#[test]
fn it_is_only_where_somebody_looks() {
    let log = Log::new();
    let (elsewhere, _) = scene(&log);
    let name = elsewhere.wait_event("acquired")["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let standby = || {
        holder(&shared().url(), &name)
            .option("--wait", "6s")
            .sh("true")
    };
    let text = line(&standby().text());
    let json = line(&standby());
    let terminal = Terminal::bash();
    terminal.resize(24, 250);
    for command in [
        format!("TERM=dumb {text}"),
        format!("TERM= {text}"),
        format!("TERM=xterm NOTIFY_SOCKET=/x {text}"),
        format!("TERM=xterm JOURNAL_STREAM=8:1 {text}"),
        format!("TERM=xterm LEASEWRAP_LOG=info {json}"),
        format!("TERM=xterm {text} 2>&1 | cat"),
        format!("TERM=xterm {}", line(&standby().text().switch("-q"))),
    ] {
        let seen = terminal.run(&command);
        assert!(seen.contains("not acquired within"), "{command}: {seen}");
        assert!(
            !seen.contains(LIVE) && !seen.contains("\x1b[K"),
            "{command}: {seen}"
        );
    }
}

#[test]
fn job_control_goes_on_below_it_and_the_background_draws_nothing() {
    let log = Log::new();
    let (elsewhere, standby) = scene(&log);
    let terminal = Terminal::bash();
    standing_by(&terminal, 250, &standby.sh("echo worked"));
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    terminal.run("bg");
    let before = terminal.screen().matches(LIVE).count();
    // Two seconds are two drawings, were there any.
    terminal.run("sleep 2.2");
    assert_eq!(terminal.screen().matches(LIVE).count(), before);
    terminal.line("fg");
    terminal.wait_count(LIVE, before + 1);
    give_back(elsewhere);
    terminal.wait("worked");
    terminal.wait("exit code 0");
    assert!(terminal.run("echo code=$?").contains("code=0"));
}

#[test]
fn a_terminal_that_stands_still_delays_nothing() {
    let log = Log::new();
    let (elsewhere, standby) = scene(&log);
    let terminal = Terminal::bash();
    standing_by(
        &terminal,
        250,
        &standby.worker(&log.worker(&["exit-after=100"])),
    );
    let before = log.wait_newer(0, SOON);
    terminal.type_text(CTRL_S);
    let keeper = until("the keeper", SOON, || {
        terminal.named("leasewrap").first().copied()
    });
    give_back(elsewhere);
    log.wait_newer(before, SOON);
    until_true("it has ended", SOON, || {
        !crate::support::proc::alive(keeper)
    });
    terminal.type_text(CTRL_Q);
    assert!(terminal.run("echo code=$?").contains("code=0"));
}
