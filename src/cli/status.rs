//! `status`: who holds what, since when and until when.

pub mod view;

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::output::{Output, Paint, json};
use super::print;
use crate::lease::ids::LeaseName;
use crate::store::admin::Admin;
use view::View;

/// Arguments of `leasewrap status`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit code: 0 when a lease that is shown is held, else 1; 123 when the database
cannot be used.

Examples:
  leasewrap status --db postgres://app@db/app
  leasewrap status --name mailer --output json")]
pub struct Status {
    /// This lease alone
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_NAME",
        hide_env_values = true
    )]
    #[arg(value_parser = super::args::values::lease_name)]
    name: Option<LeaseName>,
    /// For people or for machines
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Status {
    /// Reads and shows.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            output,
        } = self;
        admin.perform(name.as_ref(), async |admins: &mut Admins| {
            admins.store.only_reads();
            let seen = admins.store.status(name.as_ref(), admins.limit).await;
            let seen = seen.map_err(|unknown| Failed::call("read the leases", &unknown))?;
            let view = View::of(&seen, name.as_ref());
            let text = match output {
                Output::Json => json(&view),
                Output::Text => view.text(Paint::stdout()),
            };
            Ok(match print(text.as_bytes()) {
                0 => view.exit_code(),
                code => code,
            })
        })
    }
}

#[cfg(test)]
pub mod tests;
