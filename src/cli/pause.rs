//! `pause`: nobody may take the lease.

use std::time::Duration;

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::args::values;
use super::named::NameArgs;
use super::print;
use super::step_down::step_down;
use crate::lease::ids::LeaseName;
use crate::store::admin::Admin;

/// Arguments of `leasewrap pause`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The present holder keeps the lease, unless --step-down asks it to go.

Examples:
  leasewrap pause --name mailer --reason 'migration 42' --step-down")]
pub struct Pause {
    #[command(flatten)]
    name: NameArgs,
    /// Why; shown by status and in the log of every standby
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(value_parser = reason)]
    reason: String,
    /// Ask the present holder to go as well, and wait for it
    #[arg(long)]
    step_down: bool,
    /// How long to wait for that
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = values::duration)]
    wait: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// As a label: one line for people.
fn reason(text: &str) -> Result<String, String> {
    values::label(text).map(|reason| reason.as_str().to_owned())
}

impl Pause {
    /// Pauses.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            reason,
            step_down: go,
            wait,
        } = self;
        admin.named(
            name,
            "pause",
            async |admins: &mut Admins, name: &LeaseName| {
                let paused = admins.store.pause(name, &reason, admins.limit).await;
                let new = paused.map_err(|unknown| Failed::call("pause the lease", &unknown))?;
                let said = if new {
                    format!(
                        "{name}: paused; nobody can take it until leasewrap resume --name {name}\n"
                    )
                } else {
                    format!("{name}: was paused already; the reason is changed\n")
                };
                // It is so, whatever comes of the rest.
                let code = print(said.as_bytes());
                if !go || code != 0 {
                    return Ok(code);
                }
                let said = step_down(admins, name, None, wait).await?;
                Ok(print(said.as_bytes()))
            },
        )
    }
}
