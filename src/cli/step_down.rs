//! `step-down`: asks the holder for an orderly stop, and says who holds the
//! lease then.

use std::time::Duration;

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::args::values;
use super::named::{NameArgs, over, record, until, who};
use super::print;
use crate::lease::ids::{Label, LeaseName};
use crate::store::admin::{Admin, Requested};
use crate::telemetry::format::span;

/// How long the next holder may take to show up before "nobody" is said.
const NEXT: Duration = Duration::from_secs(3);

/// Arguments of `leasewrap step-down`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The holder exits as after TERM. Exit code: 0 when it has stepped down (or
nobody held the lease), 1 when it has not within --wait.

Examples:
  leasewrap step-down --name mailer
  leasewrap step-down --name mailer --to host7/4711")]
pub struct StepDown {
    #[command(flatten)]
    name: NameArgs,
    /// Leave the lease to the standby with this label, for one ttl at most
    #[arg(long, value_name = "LABEL", value_parser = values::label)]
    to: Option<Label>,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = values::duration)]
    wait: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

impl StepDown {
    /// Asks and waits.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            to,
            wait,
        } = self;
        admin.named(
            name,
            "step-down",
            async |admins: &mut Admins, name: &LeaseName| {
                let said = step_down(admins, name, to.as_ref(), wait).await?;
                Ok(print(said.as_bytes()))
            },
        )
    }
}

/// Asks every holder and waits; what is to be said about each.
pub async fn step_down(
    admins: &mut Admins,
    name: &LeaseName,
    to: Option<&Label>,
    wait: Duration,
) -> Result<String, Failed> {
    let requested = admins.store.request_step_down(name, to, admins.limit).await;
    let requested = requested.map_err(|unknown| Failed::call("ask for a step-down", &unknown))?;
    if requested.is_empty() {
        return Ok(format!("{name}: nobody holds it\n"));
    }
    let gone = until(admins, name, wait, |status| {
        let left = requested
            .iter()
            .any(|asked| !over(record(status, asked.slot), asked.token));
        (!left).then_some(())
    });
    if gone.await?.is_none() {
        return Err(Failed::refused(format!(
            "{name}: no step-down of {} within {}; leasewrap break --name {name} closes its token",
            requested
                .iter()
                .map(|asked| who(&asked.label, asked.token))
                .collect::<Vec<_>>()
                .join(", "),
            span(wait)
        )));
    }
    let ttl = requested
        .iter()
        .map(|asked| asked.ttl)
        .max()
        .unwrap_or_default();
    let patience = if to.is_some() { ttl.max(NEXT) } else { NEXT };
    let mut said = String::new();
    for asked in &requested {
        said += &next_holder(admins, name, asked, patience).await?;
    }
    Ok(said)
}

async fn next_holder(
    admins: &mut Admins,
    name: &LeaseName,
    asked: &Requested,
    patience: Duration,
) -> Result<String, Failed> {
    let next = until(admins, name, patience, |status| {
        let record = record(status, asked.slot)?;
        (!record.released && record.token != asked.token).then(|| who(&record.label, record.token))
    });
    let next = match next.await? {
        Some(next) => format!("{next} holds it now"),
        None => "nobody has taken it yet".to_owned(),
    };
    Ok(format!(
        "{name}: {} stepped down; {next}\n",
        who(&asked.label, asked.token)
    ))
}
