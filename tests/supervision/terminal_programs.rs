//! Programs that people run on a terminal: a pager, psql, a shell in a shell.

use crate::leasewrap;
use crate::support::installation::tool;
use crate::support::pty::Terminal;
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::terminal::{line, wait_foreground};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

#[test]
fn a_pager_behind_a_pipe() {
    let terminal = Terminal::bash();
    let command = line(&leasewrap().switch("-q").worker(&["seq", "100000"]));
    terminal.line(&format!(
        "{command} | TERM=xterm less; echo codes ${{PIPESTATUS[@]}}"
    ));
    terminal.wait("\n20\r");
    terminal.type_text("G");
    terminal.wait("100000");
    terminal.type_text("q");
    terminal.wait("codes 0 0");
}

#[test]
fn a_pager_that_is_left_early() {
    let terminal = Terminal::bash();
    let command = line(&leasewrap().switch("-q").worker(&["seq", "100000000"]));
    terminal.line(&format!(
        "{command} | TERM=xterm less; echo codes ${{PIPESTATUS[@]}}"
    ));
    terminal.wait("\n20\r");
    terminal.type_text("q");
    // seq ends by SIGPIPE, as it does without leasewrap.
    terminal.wait("codes 141 0");
}

#[test]
fn psql_cancels_its_statement_and_goes_on() {
    let terminal = Terminal::bash();
    let psql = tool("psql").display().to_string();
    let command =
        line(&leasewrap().worker(&[psql.as_str(), "-X", "-P", "pager=off", &shared().url()]));
    terminal.line(&format!("{command}; echo code $?"));
    terminal.wait("postgres=# ");
    terminal.line("select pg_sleep(1000);");
    until_true("the statement runs", SOON, || {
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(1000);' and state = 'active'";
        shared().psql(running) == "1"
    });
    terminal.type_text(CTRL_C);
    terminal.wait("canceling statement due to user request");
    terminal.line("select 'still ' || 'here';");
    terminal.wait("still here");
    terminal.line("\\q");
    terminal.wait("code 0");
}

#[test]
fn a_shell_within_a_shell() {
    let terminal = Terminal::bash();
    let bash = [
        "env",
        "PS1=inner$ ",
        "bash",
        "--norc",
        "--noprofile",
        "--noediting",
        "-i",
    ];
    terminal.line(&format!(
        "{}; echo code $?",
        line(&leasewrap().worker(&bash))
    ));
    terminal.wait_count("inner$ ", 2);
    terminal.line("sleep 1000");
    until_true("sleep runs", SOON, || !terminal.named("sleep").is_empty());
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    terminal.line("fg");
    terminal.wait_count("sleep 1000", 3);
    wait_foreground(&terminal, "sleep");
    terminal.type_text(CTRL_C);
    terminal.line("exit 17");
    terminal.wait("code 17");
    assert!(
        terminal
            .run("echo the terminal is ours again")
            .contains("ours again")
    );
}

#[test]
fn a_pipeline_is_interrupted_as_a_whole() {
    let terminal = Terminal::bash();
    let command = line(&leasewrap().worker(&["sh", "-c", "echo started; exec sleep 1000"]));
    terminal.line(&format!("{command} | cat"));
    terminal.wait("\nstarted");
    terminal.type_text(CTRL_C);
    terminal.wait_count("lw$ ", 2);
    terminal.line("echo codes ${PIPESTATUS[@]}");
    terminal.wait("codes 130 130");
}

#[test]
fn a_pipeline_stops_and_continues_as_a_whole() {
    let terminal = Terminal::bash();
    let command = line(&leasewrap().worker(&["sh", "-c", "echo started; exec sleep 1000"]));
    terminal.line(&format!("{command} | cat"));
    terminal.wait("\nstarted");
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    terminal.line("kill %1; fg");
    until_true("nothing of it is left", SOON, || {
        ["sleep", "cat", "lw-guard", "leasewrap"]
            .iter()
            .all(|name| terminal.named(name).is_empty())
    });
}

#[test]
fn kill_9_of_the_job_leaves_nothing() {
    let terminal = Terminal::bash();
    let command = line(&leasewrap().worker(&["sh", "-c", "echo started; exec sleep 1000"]));
    terminal.line(&format!("{command} &"));
    terminal.wait("\nstarted");
    terminal.line("kill -9 %1");
    until_true("nothing of it is left", SOON, || {
        ["sleep", "lw-guard", "leasewrap"]
            .iter()
            .all(|name| terminal.named(name).is_empty())
    });
}
