//! The run form: everything between the command line and the keeper's loop,
//! in the order that safety asks for: the command is found before a lease is
//! thought of, and the guard is there before there is any thread.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::admin::Failed;
use super::args::run::RunOptions;
use super::database;
use super::ending::{Record, Teller};
use super::refused::{self, Refused};
use crate::http::board::Board;
use crate::http::listen::Listener;
use crate::http::metered::Metered;
use crate::http::metrics::Metrics;
use crate::http::{self, Site};
use crate::keeper::claim::ClaimFile;
use crate::keeper::watchdog::WatchdogSettings;
use crate::keeper::{self, GuardFrom, Settings};
use crate::lease::keeper::Config;
use crate::lease::keeper::event::Outcome;
use crate::notify::Notifier;
use crate::store::{AnyStore, Store as _, StoreSettings};
use crate::sys::executable::{self, Unusable};
use crate::sys::memfd::{ReleaseFile, Setup};
use crate::sys::notify_socket::NotifySocket;
use crate::sys::{SysError, clock, inherited, process, signals, tree};
use crate::telemetry::{Format, LogOptions, Telemetry};

/// Runs a worker; the result is the exit code.
pub fn run(options: RunOptions) -> u8 {
    match prepare(&options) {
        Ok(prepared) => prepared.run(options),
        Err(refused) => refused.tell(&options),
    }
}

/// A run that may begin.
pub(super) struct Prepared {
    pub(super) setup: Setup,
    pub(super) store: StoreSettings,
    pub(super) started: Started,
    pub(super) listener: Option<Listener>,
    pub(super) notifier: Option<Notifier>,
    pub(super) notify_socket: Option<String>,
}

/// What there is before there is any thread.
pub(super) struct Started {
    pub(super) claims: ClaimFile,
    pub(super) guard: GuardFrom,
    pub(super) watchdog: Option<WatchdogSettings>,
}

fn prepare(options: &RunOptions) -> Result<Prepared, Refused> {
    let setup = setup(&options.command, options.pid_namespace, &options.keep.log)?;
    let store = store(options)?;
    let notifier = notifier()?;
    let notify_socket = notify_socket(options)?;
    let listener = listener(options)?;
    let started = start(options, &setup, &store)?;
    Ok(Prepared {
        setup,
        store,
        started,
        listener,
        notifier,
        notify_socket,
    })
}

/// Who tells the service manager, where there is one, how the keeper stands.
pub(super) fn notifier() -> Result<Option<Notifier>, Failed> {
    let notifier = Notifier::new(|name| std::env::var_os(name), clock::now);
    notifier.map_err(|error| bad_notify_socket(&error))
}

fn bad_notify_socket(error: &impl Display) -> Failed {
    Failed::usage(format!("NOTIFY_SOCKET cannot be used: {error}; unset it"))
}

/// What `--pass-notify` hands on.
fn notify_socket(options: &RunOptions) -> Result<Option<String>, Failed> {
    let given = std::env::var_os("NOTIFY_SOCKET").filter(|_| options.pass_notify);
    let Some(given) = given.filter(|socket| !socket.is_empty()) else {
        return Ok(None);
    };
    let given = given.into_string();
    given
        .map(Some)
        .map_err(|_| bad_notify_socket(&"it is not UTF-8"))
}

/// So long `--no-wait` waits for those who have locked the row: a fenced
/// transaction of the last holder's is shorter.
const NO_WAIT: Duration = Duration::from_millis(500);

/// The database, as a run speaks to it.
pub(super) fn store(options: &RunOptions) -> Result<StoreSettings, Failed> {
    let settings = database::settings(&options.keep.db)?;
    let settings = settings.call_limit(options.keep.timing.call_timeout());
    Ok(match options.wait {
        Some(Duration::ZERO) => settings.lock_limit(NO_WAIT),
        Some(_) | None => settings,
    })
}

/// Where `--listen` says.
pub(super) fn listener(options: &RunOptions) -> Result<Option<Listener>, Failed> {
    let Some(address) = &options.keep.listen else {
        return Ok(None);
    };
    let listener = Listener::bind(address);
    listener
        .map(Some)
        .map_err(|error| Failed::cannot(&format!("listen on {address}: {error}")))
}

/// The command, its first word found as the worker will be executed.
pub(super) fn setup(
    command: &[OsString],
    pid_namespace: bool,
    log: &LogOptions,
) -> Result<Setup, Unusable> {
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let path = executable::find(program, std::env::var_os("PATH").as_deref())?;
    Ok(Setup {
        path: path.into_os_string().as_bytes().to_vec(),
        arguments: command
            .iter()
            .map(|argument| argument.as_bytes().to_vec())
            .collect(),
        pid_namespace,
        json_log: log.format == Format::Json,
    })
}

/// The thread that looks names up stays. Made anew it could fail where the
/// worker has reached a limit of processes by then, and tokio bears that with
/// its last thread alone.
const ALWAYS: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What nothing may begin without.
pub(super) fn settle_in() -> Result<(), SysError> {
    process::has_descriptors()?;
    // Nothing of the tree may be lost when the guard dies.
    process::become_subreaper()?;
    tree::settle_in()?;
    signals::ignore_failed_writes();
    signals::unblock_all();
    Ok(())
}

/// Where a releaser looks, without a claim yet.
pub(super) fn claims(options: &RunOptions, store: &StoreSettings) -> Result<ClaimFile, SysError> {
    ClaimFile::create(
        ReleaseFile::create()?,
        store.clone(),
        options.keep.name.clone(),
        &options.keep.timing,
        options.keep.log.format == Format::Json,
    )
}

fn start(options: &RunOptions, setup: &Setup, store: &StoreSettings) -> Result<Started, SysError> {
    settle_in()?;
    let mut claims = claims(options, store)?;
    let watchdog = watchdog(options)?;
    if let Some(watchdog) = &watchdog {
        claims.leaves(watchdog.socket.path().map(Path::to_owned))?;
    }
    let guard = keeper::start_guard(setup, &claims)?;
    if options.rejoin {
        // For the next worker, and for no hook.
        inherited::get().withhold();
    } else {
        inherited::get().let_go(&[]);
    }
    Ok(Started {
        claims,
        guard: GuardFrom::Child(guard),
        watchdog,
    })
}

fn watchdog(options: &RunOptions) -> Result<Option<WatchdogSettings>, SysError> {
    let Some(interval) = options.worker_watchdog else {
        return Ok(None);
    };
    let socket = NotifySocket::bind()?;
    Ok(Some(WatchdogSettings { interval, socket }))
}

impl Prepared {
    pub(super) fn run(mut self, options: RunOptions) -> u8 {
        let telemetry = match Telemetry::start(&options.keep.log) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                self.started.guard.dismiss();
                return Failed::cannot(&SysError::on("start the log")(error)).tell();
            }
        };
        // As late as it may be, before anything is taken: the guard tries
        // while all of the above is done.
        if let GuardFrom::Child(guard) = &mut self.started.guard
            && let Some(probe) = guard.take_probe()
            && let Err(refusal) = probe.answer()
        {
            return self.give_up(&Failed::cannot(&refusal), &options, &telemetry);
        }
        let edges = match self.edges(&options, &telemetry) {
            Ok(edges) => edges,
            Err(error) => return self.give_up(&error.into(), &options, &telemetry),
        };
        let mut record = Record::new(&options);
        let teller = Teller::new(
            &mut record,
            edges.board,
            telemetry.live(options.keep.name.clone()),
        );
        match self.until_the_end(&options, edges.runtime, edges.metrics, teller) {
            Ok(outcome) => record.end(&telemetry, &options, &outcome),
            Err(error) => refused::tell(&error.into(), Some(&options.keep.name), &telemetry),
        }
    }

    /// Before anything is taken. The guard is told that this is no crash.
    fn give_up(self, why: &Failed, options: &RunOptions, telemetry: &Telemetry) -> u8 {
        self.started.guard.dismiss();
        refused::tell(why, Some(&options.keep.name), telemetry)
    }

    fn edges(&mut self, options: &RunOptions, telemetry: &Telemetry) -> Result<Edges, SysError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_keep_alive(ALWAYS)
            .build()
            .map_err(SysError::on("start a runtime"))?;
        let metrics = Metrics::new();
        let board = Board::new(
            options.keep.name.clone(),
            &config(options, &self.started.guard),
            metrics.clone(),
            clock::now(),
        );
        if let Some(listener) = self.listener.take() {
            serve(listener, &board, metrics.clone(), telemetry)?;
        }
        if let Some(notifier) = self.notifier.take() {
            drop(runtime.spawn(notifier.follow(board.subscribe())));
        }
        Ok(Edges {
            runtime,
            board,
            metrics,
        })
    }

    fn until_the_end(
        self,
        options: &RunOptions,
        runtime: Runtime,
        metrics: Metrics,
        teller: Teller<'_>,
    ) -> Result<Outcome, SysError> {
        let settings = Settings {
            config: Arc::new(config(options, &self.started.guard)),
            name: options.keep.name.clone(),
            setup: self.setup,
            stop_signal: options.keep.stop_signal,
            stop_to: options.keep.stop_to,
            hooks: options.keep.hooks.clone(),
            watchdog: self.started.watchdog,
            notify_socket: self.notify_socket,
            pgoptions: options.keep.pgoptions,
        };
        let name = options.keep.name.clone();
        let store_settings = self.store.clone();
        let watch = move || AnyStore::new(store_settings.clone(), name.clone(), clock::now).watch();
        let store = AnyStore::new(self.store, options.keep.name.clone(), clock::now);
        let (name, single) = (options.keep.name.as_str(), options.keep.slots == 1);
        let store = Metered::new(store, metrics, name, single, clock::now);
        let outcome = runtime.block_on(keeper::run(
            settings,
            store,
            watch,
            self.started.guard,
            self.started.claims,
            teller,
        ));
        // What is still under way (a call, a watch) is of no use to anybody.
        runtime.shutdown_background();
        outcome
    }
}

/// What runs beside the keeper's loop, and on what.
struct Edges {
    runtime: Runtime,
    board: Board,
    metrics: Metrics,
}

/// Serves the pages of `--listen`.
fn serve(
    listener: Listener,
    board: &Board,
    metrics: Metrics,
    telemetry: &Telemetry,
) -> Result<(), SysError> {
    let telemetry = telemetry.clone();
    let site = Site {
        snapshot: board.subscribe(),
        metrics,
        dropped_lines: Box::new(move || telemetry.dropped()),
        clock: clock::now,
    };
    http::start(listener, site).map_err(SysError::on("serve the pages of --listen"))
}

fn config(options: &RunOptions, guard: &GuardFrom) -> Config {
    Config {
        timing: options.keep.timing.clone(),
        slots: options.keep.slots,
        terms: options.keep.terms.clone(),
        takeover: options.keep.takeover,
        wait: options.wait,
        rejoin: options.rejoin,
        precheck: options.keep.hooks.precheck.is_some(),
        attached: match guard {
            GuardFrom::Child(_) => false,
            GuardFrom::Socket(..) => true,
        },
    }
}
