//! `attach`: the guard's half, in the worker's container.

use std::time::Duration;

use super::admin::Failed;
use super::args::sidecar::{AttachArgs, AttachOptions};
use super::refused::{self, Refused};
use super::run;
use crate::exit::{self, ExitCodes};
use crate::keeper::attach::{self, Ended, Settings};
use crate::lease::attach::{End, How};
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::Outcome;
use crate::lease::timing::Rounded;
use crate::sys::executable::Unusable;
use crate::sys::listening;
use crate::sys::{SysError, inherited, namespace, signals};
use crate::telemetry::format::millis;
use crate::telemetry::{LAST, Telemetry};
use crate::wire::{NotStarted, WorkerEnd};

impl AttachArgs {
    /// Runs a worker; the result is the exit code.
    pub fn perform(self) -> u8 {
        let options = match self.check() {
            Ok(options) => options,
            Err(error) => return Failed::from(error).tell(),
        };
        let prepared = prepare(&options);
        let telemetry = match Telemetry::start(&options.log) {
            Ok(telemetry) => telemetry,
            Err(error) => return Failed::cannot(&SysError::on("start the log")(error)).tell(),
        };
        let ended = match prepared {
            Ok(settings) => until_the_end(settings).map_err(Failed::from),
            Err(Refused::Command(unusable)) => Ok(never_began(&unusable)),
            Err(Refused::Failed(failed)) => Err(failed),
        };
        match ended {
            Ok(ended) => {
                let code = code(&ended.end.how, options.exit_codes);
                telemetry.last(code == 0, || log(&ended, code, &options));
                code
            }
            Err(failed) => refused::tell(&failed, None, &telemetry),
        }
    }
}

/// Everything that can fail before a lease is thought of.
fn prepare(options: &AttachOptions) -> Result<Settings, Refused> {
    listening::check(&options.socket)?;
    let setup = run::setup(&options.command, options.pid_namespace, &options.log)?;
    if options.pid_namespace {
        namespace_is_possible().map_err(|why| Failed::cannot(&why))?;
    }
    run::settle_in()?;
    // For the guard: there is one whenever serve is found.
    inherited::get().withhold();
    Ok(Settings {
        socket: options.socket.clone(),
        setup,
        wait: options.wait,
    })
}

/// Tries it, before anybody waits for a lease.
fn namespace_is_possible() -> Result<(), String> {
    let probe = namespace::probe().map_err(|error| error.to_string())?;
    let answer = probe.answer().map_err(|refusal| refusal.to_string());
    answer.map(|_| ())
}

/// As a guard would say it that had been told to start that.
fn never_began(unusable: &Unusable) -> Ended {
    Ended {
        end: End {
            how: How::NotStarted(NotStarted::Exec {
                errno: unusable.errno(),
            }),
            message: None,
            told_by: None,
        },
        name: None,
        waited: Duration::ZERO,
        held: None,
    }
}

fn until_the_end(settings: Settings) -> Result<Ended, SysError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SysError::on("start a runtime"))?;
    let ended = runtime.block_on(attach::run(settings));
    runtime.shutdown_background();
    ended
}

fn code(how: &How, codes: ExitCodes) -> u8 {
    match how {
        How::Worker(end) => codes.of(&Outcome::Worker(*end)),
        How::SteppedDown => exit::STEPPED_DOWN,
        How::Lost => codes.lost,
        How::NotStarted(why) => codes.of(&Outcome::NotStarted(why.clone())),
        How::NotAcquired => codes.conflict,
        How::Signaled(signal) => exit::of_signal(*signal),
        How::Failed(_) => exit::FAILED,
    }
}

/// The last line.
fn log(ended: &Ended, exit_code: u8, options: &AttachOptions) {
    let text = text(ended, options);
    let name = ended.name.as_ref().map(LeaseName::as_str);
    let (waited_ms, held_ms) = (millis(ended.waited), ended.held.map(millis));
    macro_rules! say {
        ($level:expr) => {
            tracing::event!(
                target: LAST,
                $level,
                event = "ended",
                name,
                outcome = kind(&ended.end.how),
                exit_code,
                waited_ms,
                held_ms,
                "{text}"
            )
        };
    }
    let told_by = ended.end.told_by;
    let is_as_told = |end| told_by.is_some_and(|signal| exit::is_as_told(end, signal));
    match &ended.end.how {
        How::Worker(WorkerEnd::Exited(0)) | How::Signaled(_) => say!(tracing::Level::INFO),
        How::Worker(end) if is_as_told(*end) => say!(tracing::Level::INFO),
        How::Worker(_) | How::SteppedDown | How::NotAcquired => say!(tracing::Level::WARN),
        How::Lost | How::NotStarted(_) | How::Failed(_) => say!(tracing::Level::ERROR),
    }
}

/// For machines, as a run names them.
fn kind(how: &How) -> &'static str {
    match how {
        How::Worker(_) => "worker",
        How::SteppedDown => "stepped-down",
        How::Lost => "lost",
        How::NotStarted(_) => "not-started",
        How::NotAcquired => "not-acquired",
        How::Signaled(_) => "signal",
        How::Failed(_) => "failed",
    }
}

fn text(ended: &Ended, options: &AttachOptions) -> String {
    if let Some(message) = &ended.end.message {
        return message.clone();
    }
    let after = ended
        .held
        .map_or_else(String::new, |held| format!(" after {}", Rounded(held)));
    let program = options.command.first().map(|word| word.to_string_lossy());
    let program = program.unwrap_or_default();
    let socket = options.socket.display();
    match &ended.end.how {
        How::Worker(WorkerEnd::Exited(code)) => {
            format!("the worker ended with exit code {code}{after}")
        }
        How::Worker(WorkerEnd::Signaled(signal)) => {
            format!("the worker was ended by {}{after}", signals::name(*signal))
        }
        How::SteppedDown => format!("stepped down{after}"),
        How::Lost => format!(
            "lease lost{after}: serve is gone, or has not extended the deadline in time; the worker was killed; look at the log of serve ({socket})"
        ),
        How::NotStarted(NotStarted::Late) => format!(
            "lease lost before {program} was started: this host was too slow; give serve a longer --ttl"
        ),
        How::NotStarted(NotStarted::Exec { errno }) => format!(
            "cannot execute {program}: {}",
            nix::Error::from_raw(*errno).desc()
        ),
        How::NotStarted(NotStarted::Failed { message }) => {
            format!("cannot start {program}: {message}")
        }
        How::NotAcquired => format!(
            "lease not acquired within {}: look at the log of serve ({socket}), or at leasewrap status",
            Rounded(ended.waited)
        ),
        How::Signaled(signal) => format!(
            "{} came after {} of standing by",
            signals::name(*signal),
            Rounded(ended.waited)
        ),
        How::Failed(why) => why.clone(),
    }
}
