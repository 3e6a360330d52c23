//! One contender of a lease: its processes, started again when they have
//! ended (as a service manager does), and its line to the database.

use std::fs;
use std::path::PathBuf;

use crate::hosts::Host;
use crate::plan::{Shape, Spec};
use crate::support::leasewrap::{Builder, Leasewrap, events, guard_of, holder, leasewrap};
use crate::support::proc;
use crate::support::proxy::Proxy;
use crate::support::run::run;

/// What a worker runs: the lines of its terms, and the witness on the log of
/// its slot.
const WORKER: &str = r#"witness=$1 terms=$2; shift 2
echo "$LEASEWRAP_TOKEN $LEASEWRAP_SLOT $LEASEWRAP_HOLDER" >>"$terms"
slot=$LEASEWRAP_SLOT; while [ "$1" != -- ]; do
  [ "$slot" = 0 ] && log=$1; slot=$((slot - 1)); shift
done; shift
exec "$witness" "$log" every=4 "$@""#;

/// How a contender is started.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What it is.
    pub shape: Shape,
    /// The lease.
    pub name: String,
    /// Each slot's log.
    pub logs: Vec<PathBuf>,
    /// The file of the terms.
    pub terms: PathBuf,
    ttl: String,
    slots: String,
    url: String,
    socket: PathBuf,
}

/// A contender.
pub struct Contender {
    recipe: Recipe,
    /// Its processes: a leasewrap, or `serve` and `attach`.
    running: Vec<Leasewrap>,
    /// Its line; none where the database is a file.
    pub line: Option<Proxy>,
    /// Its host, where that is one of its own.
    pub host: Option<Host>,
}

/// A lease's place for its workers' signs of life.
pub struct Place {
    /// The lease.
    pub name: String,
    /// Each slot's log.
    pub logs: Vec<PathBuf>,
    /// The file of the terms.
    pub terms: PathBuf,
}

impl Contender {
    /// Starts it; `url` is that of a file, `port` that of a server.
    pub fn start(spec: &Spec, shape: &Shape, place: &Place, url: &str, port: Option<u16>) -> Self {
        let host = shape
            .own_network
            .then(|| Host::new().expect("a network namespace"));
        let line = port.map(|port| match &host {
            Some(host) => Proxy::on(host.ours(), port),
            None => Proxy::to(port),
        });
        let recipe = Recipe {
            shape: shape.clone(),
            name: place.name.clone(),
            logs: place.logs.clone(),
            terms: place.terms.clone(),
            ttl: format!("{}ms", spec.ttl_ms),
            slots: spec.slots.to_string(),
            url: line
                .as_ref()
                .map_or_else(|| url.to_owned(), |line| line.url("postgres")),
            socket: run().directory("pod").join("s"),
        };
        let mut contender = Self {
            recipe,
            running: Vec::new(),
            line,
            host,
        };
        contender.running = (0..contender.processes())
            .map(|n| contender.builder(n).spawn())
            .collect();
        contender
    }

    fn processes(&self) -> usize {
        if self.recipe.shape.pod { 2 } else { 1 }
    }

    /// Its `n`-th process.
    fn builder(&self, n: usize) -> Builder {
        let recipe = &self.recipe;
        let socket = recipe.socket.display().to_string();
        let mut builder = match (recipe.shape.pod, n) {
            (false, _) => holder(&recipe.url, &recipe.name),
            (true, 0) => subcommand("serve", &socket)
                .option("--db", &recipe.url)
                .option("--name", &recipe.name),
            (true, _) => subcommand("attach", &socket),
        };
        let (keeps, guards) = (n == 0, !recipe.shape.pod || n == 1);
        if keeps {
            builder = builder.ttl(&recipe.ttl).option("--slots", &recipe.slots);
            builder = builder.option("--stop-timeout", "500ms");
            if let Some(host) = &self.host {
                builder = builder.below(&host.words());
            }
        }
        if keeps && recipe.shape.rejoin {
            builder = builder.switch("--rejoin");
        }
        if guards && recipe.shape.contained {
            builder = builder.switch("--pid-namespace");
        }
        if guards {
            builder = builder.worker(&self.worker());
        }
        builder
    }

    fn worker(&self) -> Vec<String> {
        let recipe = &self.recipe;
        let witness = run().program("witness").display().to_string();
        let mut words: Vec<String> = ["sh", "-c", WORKER, "worker"].map(str::to_owned).to_vec();
        words.extend([witness, recipe.terms.display().to_string()]);
        words.extend(recipe.logs.iter().map(|log| log.display().to_string()));
        words.push("--".to_owned());
        words.extend(recipe.shape.worker.iter().map(|word| (*word).to_owned()));
        words
    }

    /// What it is.
    pub fn shape(&self) -> &Shape {
        &self.recipe.shape
    }

    /// The pid of what talks to the database.
    pub fn keeper(&self) -> i32 {
        self.running[0].pid()
    }

    /// The pid of the guard's parent: `attach`, or the keeper itself.
    pub fn guards_parent(&self) -> i32 {
        self.running[self.running.len() - 1].pid()
    }

    /// The pid of the guard.
    pub fn guard(&self) -> Option<i32> {
        guard_of(self.guards_parent())
    }

    /// The pid of the worker.
    pub fn worker_pid(&self) -> Option<i32> {
        let of_guard = proc::children(self.guard()?);
        // Before its exec the worker still bears the guard's name.
        let named = |pid: &i32| proc::comm(*pid).is_some_and(|comm| !comm.starts_with("lw-"));
        of_guard.into_iter().find(named)
    }

    /// The slot whose worker it runs.
    pub fn slot(&self) -> Option<usize> {
        let environ = fs::read(format!("/proc/{}/environ", self.worker_pid()?)).ok()?;
        let mut variables = environ.split(|byte| *byte == 0);
        let slot = variables.find_map(|variable| variable.strip_prefix(b"LEASEWRAP_SLOT="))?;
        std::str::from_utf8(slot).ok()?.parse().ok()
    }

    /// Starts what has ended again, once nothing that belonged to it lives:
    /// a tree that is left is the judge's, and not to be swept away.
    pub fn start_what_has_ended(&mut self) {
        for n in 0..self.running.len() {
            if self.running[n].ended().is_some() && self.running[n].alive().is_empty() {
                self.running[n] = self.builder(n).spawn();
            }
        }
    }

    /// Whether each process is there and runs: nothing is being finished.
    pub fn is_whole(&mut self) -> bool {
        let runs = |pid| proc::state(pid).is_some_and(|state| !"TtZX".contains(state));
        self.running
            .iter_mut()
            .all(|process| process.ended().is_none() && runs(process.pid()))
            && self.guard().is_some_and(runs)
    }

    /// Which of its processes are left, and what they said last.
    pub fn why_not_whole(&mut self) -> String {
        if self.is_whole() {
            return String::new();
        }
        let mut said = String::new();
        for process in &mut self.running {
            let ended = process.ended();
            let alive = process.alive().into_iter();
            let alive: Vec<String> = alive
                .map(|pid| {
                    let (name, state) = (proc::comm(pid), proc::state(pid));
                    format!("{pid} {name:?} {state:?} child of {:?}", proc::parent(pid))
                })
                .collect();
            said += &format!(
                "  ended: {ended:?}, guard: {:?}, alive: {alive:?}\n",
                guard_of(process.pid())
            );
        }
        said + &self.tail()
    }

    /// Whether it has seen the lease's row: it waits, or has it.
    pub fn has_seen_the_row(&self) -> bool {
        let log = self.running[0].log();
        ["waiting", "acquired"]
            .iter()
            .any(|event| !events(&log, event).is_empty())
    }

    /// Asks all of it to end.
    pub fn stop(&self) {
        self.running
            .iter()
            .for_each(|process| process.signal(libc::SIGTERM));
    }

    /// Whether all of it has ended, and left nothing.
    pub fn has_stopped(&mut self) -> bool {
        let gone =
            |process: &mut Leasewrap| process.ended().is_some() && process.alive().is_empty();
        self.running.iter_mut().all(gone)
    }

    /// The ends of its logs, for a failure.
    pub fn tail(&self) -> String {
        let tail = |process: &Leasewrap| {
            let log = process.log();
            let from = log.len().saturating_sub(12);
            format!(
                "  pid {}:\n    {}\n",
                process.pid(),
                log[from..].join("\n    ")
            )
        };
        self.running.iter().map(tail).collect()
    }
}

/// A subcommand with this socket, and a log for machines.
fn subcommand(name: &str, socket: &str) -> Builder {
    leasewrap()
        .text()
        .switch(name)
        .option("--log-format", "json")
        .option("--socket", socket)
}
