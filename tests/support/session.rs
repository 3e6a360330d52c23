//! A session of psql that stays open, to hold locks and transactions.

use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::run::number;
use super::wait::{SOON, until};

/// A psql that stays open.
pub struct Session {
    psql: Child,
    input: ChildStdin,
    seen: Arc<Mutex<String>>,
}

impl Session {
    /// Starts psql.
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut psql = command.spawn().expect("start psql");
        let input = psql.stdin.take().expect("psql's stdin");
        let seen = Arc::new(Mutex::new(String::new()));
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(psql.stdout.take().expect("psql's stdout")),
            Box::new(psql.stderr.take().expect("psql's stderr")),
        ];
        for mut output in outputs {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    seen.lock().expect("no test panics inside").push_str(&text);
                }
            });
        }
        Self { psql, input, seen }
    }

    /// Runs SQL and waits until it is done; what psql printed, errors included.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> String {
        let done = format!("done{}", number());
        self.send(&format!("{sql};\n\\echo {done}"));
        until(&format!("psql is done with {sql}"), SOON, || {
            let seen = self.seen.lock().expect("no test panics inside");
            seen.contains(&done)
                .then(|| seen.replace(&done, "").trim().to_owned())
        })
    }

    /// Sends text without waiting for anything.
    pub fn send(&mut self, text: &str) {
        use std::io::Write;
        self.seen.lock().expect("no test panics inside").clear();
        writeln!(self.input, "{text}").expect("write to psql");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _result = self.psql.kill();
        let _status = self.psql.wait();
    }
}
