//! `serve` and `attach`: the two halves in two containers of a pod.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::keep::KeepArgs;
use super::log::LogArgs;
use super::run::RunOptions;
use super::usage::UsageError;
use super::values;
use crate::exit::{self, ExitCodes};
use crate::telemetry::LogOptions;

/// Where the two meet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Socket")]
struct SocketArgs {
    /// The Unix socket of serve, on a volume that both containers have
    #[arg(
        long,
        value_name = "PATH",
        env = "LEASEWRAP_SOCKET",
        hide_env_values = true
    )]
    socket: Option<PathBuf>,
}

/// `leasewrap serve`, as clap reads it.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
serve holds the lease for the worker of `leasewrap attach`, and tries for it
only while one is attached. It never ends by itself, but when the database
says a final no. After TERM, INT, QUIT or HUP it stops the worker first, and ends
with the worker's own exit code, or with 128+N where none ran.

Examples:
  leasewrap serve --socket /run/leasewrap/s \\
      --db-file /etc/leasewrap.url --name mailer --listen 8080
  leasewrap attach --socket /run/leasewrap/s -- ./mailer --queue out")]
pub struct ServeArgs {
    #[command(flatten)]
    socket: SocketArgs,

    /// Mode of the socket's file [default: whoever may write to the directory]
    ///
    /// Connecting needs the right to write: 0600 is for the same user alone,
    /// 0660 for the file's group too, 0666 for everybody who reaches it.
    /// Without this option the directory decides, since whoever may write
    /// there could put another socket in its place (and with the sticky bit,
    /// nobody but the owner).
    #[arg(
        long,
        value_name = "MODE",
        env = "LEASEWRAP_SOCKET_MODE",
        hide_env_values = true
    )]
    #[arg(value_parser = socket_mode, help_heading = "Socket")]
    socket_mode: Option<u32>,

    #[command(flatten)]
    keep: KeepArgs,
}

/// `leasewrap attach`, as clap reads it.
#[derive(Debug, Clone, Args)]
#[command(override_usage = "leasewrap attach [OPTIONS] --socket <PATH> -- <COMMAND> [ARGS]...")]
#[command(after_long_help = "\
attach needs neither the network nor credentials. It waits for the socket of
serve, and for the lease, as leasewrap stands by; what leasewrap says of
signals, terminals, PID 1 and exit codes holds for it.

Exit codes:
  the worker's own, 128+N where signal N ended it; 2 usage; 120 stepped down;
  121 not acquired within --wait; 122 the lease is lost, or serve is gone while
  the worker ran; 125 leasewrap itself failed, or serve is of another version or
  in another time namespace; 126 the command cannot be executed; 127 it is not
  found

Example:
  leasewrap attach --socket /run/leasewrap/s -- ./mailer --queue out")]
pub struct AttachArgs {
    #[command(flatten)]
    socket: SocketArgs,

    /// How long to stand by [default: for ever]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_WAIT",
        hide_env_values = true
    )]
    #[arg(value_parser = values::duration, conflicts_with = "no_wait", help_heading = "Standing by")]
    wait: Option<Duration>,

    /// Do not stand by: as --wait 0s
    ///
    /// One attempt to reach serve, which has 2s for its own one to take the
    /// lease.
    #[arg(long, help_heading = "Standing by")]
    no_wait: bool,

    /// Exit code when the lease was not acquired (0 to 255)
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_CONFLICT_EXIT_CODE",
        hide_env_values = true
    )]
    #[arg(default_value_t = exit::NOT_ACQUIRED, value_parser = values::any_exit_code, help_heading = "Standing by")]
    conflict_exit_code: u8,

    /// Exit code when the lease was lost (1 to 255)
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_LOST_EXIT_CODE",
        hide_env_values = true
    )]
    #[arg(default_value_t = exit::LOST, value_parser = values::nonzero_exit_code, help_heading = "Worker")]
    lost_exit_code: u8,

    /// Give the worker a PID namespace that ends with attach
    ///
    /// The kernel then ends all that the worker has started even when attach
    /// and its guard are killed at the same instant. Needs root,
    /// CAP_SYS_ADMIN or user namespaces.
    #[arg(long, env = "LEASEWRAP_PID_NAMESPACE", hide_env_values = true)]
    #[arg(help_heading = "Worker")]
    pid_namespace: bool,

    #[command(flatten)]
    log: LogArgs,

    /// The worker and its arguments, after --
    #[arg(last = true, value_name = "COMMAND", help_heading = None)]
    command: Vec<OsString>,
}

/// `serve`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServeOptions {
    /// Where.
    pub socket: PathBuf,
    /// The mode of its file; `None` to have the directory decide.
    pub mode: Option<u32>,
    /// Everything else; it has no command, and nothing that `serve` has no
    /// option for.
    pub run: RunOptions,
}

/// `attach`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachOptions {
    /// Where.
    pub socket: PathBuf,
    /// How long to stand by: `None` for ever, zero not at all.
    pub wait: Option<Duration>,
    /// `--lost-exit-code` (never 0) and `--conflict-exit-code`.
    pub exit_codes: ExitCodes,
    /// The worker lives in a PID namespace of its own.
    pub pid_namespace: bool,
    /// The worker's program and arguments; never empty.
    pub command: Vec<OsString>,
    /// What is logged.
    pub log: LogOptions,
}

impl ServeArgs {
    /// Checks the options together.
    ///
    /// # Errors
    /// [`UsageError`]: no socket, no database, or times that do not fit.
    pub fn check(self) -> Result<ServeOptions, UsageError> {
        let socket = self.socket.check()?;
        Ok(ServeOptions {
            socket,
            mode: self.socket_mode,
            run: RunOptions {
                keep: self.keep.check()?,
                wait: None,
                rejoin: false,
                exit_codes: ExitCodes::default(),
                worker_watchdog: None,
                pass_notify: false,
                pid_namespace: false,
                command: Vec::new(),
            },
        })
    }
}

impl AttachArgs {
    /// Checks the options together.
    ///
    /// # Errors
    /// [`UsageError`]: no socket or no command.
    pub fn check(self) -> Result<AttachOptions, UsageError> {
        let socket = self.socket.check()?;
        if self
            .command
            .first()
            .is_none_or(|program| program.is_empty())
        {
            return Err(UsageError::new(
                "no command to run; give it after --: leasewrap attach --socket PATH -- COMMAND [ARGS]...",
            ));
        }
        Ok(AttachOptions {
            socket,
            wait: if self.no_wait {
                Some(Duration::ZERO)
            } else {
                self.wait
            },
            exit_codes: ExitCodes {
                lost: self.lost_exit_code,
                conflict: self.conflict_exit_code,
            },
            pid_namespace: self.pid_namespace,
            command: self.command,
            log: self.log.check(),
        })
    }
}

impl SocketArgs {
    fn check(self) -> Result<PathBuf, UsageError> {
        self.socket
            .filter(|path| !path.as_os_str().is_empty())
            .ok_or_else(|| {
                UsageError::new(
                    "no socket is named; give --socket PATH, the same to serve and attach, or set LEASEWRAP_SOCKET",
                )
            })
    }
}

/// The mode of a socket that its owner can use.
fn socket_mode(text: &str) -> Result<u32, String> {
    const RIGHT: &str =
        "give it in octal digits, such as 0600, 0660 (the group too) or 0666 (everybody)";
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).map_err(|_| format!("is no mode; {RIGHT}"))?;
    if mode > 0o777 || mode & 0o600 != 0o600 {
        return Err(format!(
            "does not leave it to its owner alone or with others; {RIGHT}"
        ));
    }
    Ok(mode)
}
