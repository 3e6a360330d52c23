//! `serve`: the keeper alone; its guard comes from another container.

use super::admin::Failed;
use super::args::sidecar::{ServeArgs, ServeOptions};
use super::refused::Refused;
use super::run::{self, Prepared, Started};
use crate::keeper::GuardFrom;
use crate::sys::inherited;
use crate::sys::listening::Listening;
use crate::sys::memfd::Setup;

impl ServeArgs {
    /// Keeps the lease for whoever attaches; the result is the exit code.
    pub fn perform(self) -> u8 {
        let options = match self.check() {
            Ok(options) => options,
            Err(error) => return Failed::from(error).tell(),
        };
        match prepare(&options) {
            Ok(prepared) => prepared.run(options.run),
            Err(refused) => refused.tell(&options.run),
        }
    }
}

fn prepare(options: &ServeOptions) -> Result<Prepared, Refused> {
    let store = run::store(&options.run)?;
    let notifier = run::notifier()?;
    let listener = run::listener(&options.run)?;
    run::settle_in()?;
    // Nobody but this process itself can make use of them: when it is gone,
    // the guard kills the tree, and the lease runs out.
    let claims = run::claims(&options.run, &store)?;
    let listening = Listening::bind(&options.socket, options.mode)?;
    inherited::get().let_go(&[]);
    Ok(Prepared {
        setup: Setup {
            path: Vec::new(),
            arguments: Vec::new(),
            pid_namespace: false,
            json_log: false,
        },
        store,
        started: Started {
            claims,
            guard: GuardFrom::Socket(listening, options.mode),
            watchdog: None,
        },
        listener,
        notifier,
        notify_socket: None,
    })
}
