//! `break`: closes the token of a holder that does not go by itself.

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::named::{NameArgs, confirm, over, record, until, who};
use super::print;
use crate::lease::ids::{LeaseName, Slot};
use crate::lease::record::Record;
use crate::store::admin::{Admin, Closed};
use crate::telemetry::format::span;

/// Arguments of `leasewrap break`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The fence refuses the holder's token from then on, and the holder kills its
worker at once. It confirms that by releasing the lease; until it has
confirmed, the lease is free only as after a lost host. Exit code: 0 when the
token is closed, 1 when there was nothing to close.

Examples:
  leasewrap break --name mailer
  leasewrap break --name mailer --slot 2 --yes")]
pub struct Break {
    #[command(flatten)]
    name: NameArgs,
    /// Which slot, where several are held
    #[arg(long, value_name = "N")]
    slot: Option<u32>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Break {
    /// Shows, asks, closes, waits.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            slot,
            yes,
        } = self;
        admin.named(name, "break", async |admins: &mut Admins, name: &LeaseName| {
            let target = target(admins, name, slot.map(Slot)).await?;
            let question = format!(
                "{name}, slot {}: {}, for {} now. Close its token? Its worker is killed at once.",
                target.slot,
                who(&target.label, target.token),
                span(target.held_for)
            );
            if !confirm(&question, yes)? {
                return Err(Failed::refused("nothing was done"));
            }
            close(admins, name, &target).await
        })
    }
}

/// The one row that is meant.
async fn target(
    admins: &mut Admins,
    name: &LeaseName,
    slot: Option<Slot>,
) -> Result<Record, Failed> {
    let status = admins.store.status(Some(name), admins.limit).await;
    let status = status.map_err(|unknown| Failed::call("read the lease", &unknown))?;
    let slots = status.value.into_iter().flat_map(|lease| lease.slots);
    let mut taken: Vec<Record> = slots
        .map(|status| status.record)
        .filter(|record| !record.released && slot.is_none_or(|slot| slot == record.slot))
        .collect();
    match (taken.pop(), taken.len()) {
        (Some(only), 0) => Ok(only),
        (Some(_), more) => Err(Failed::usage(format!(
            "break: {} slots of {name} are held; give --slot N",
            more + 1
        ))),
        (None, _) => Err(Failed::refused(format!("{name}: nobody holds it"))),
    }
}

async fn close(admins: &mut Admins, name: &LeaseName, target: &Record) -> Result<u8, Failed> {
    let closed = admins
        .store
        .close_token(name, target.slot, target.token, admins.limit)
        .await;
    let closed = closed.map_err(|unknown| Failed::call("close the token", &unknown))?;
    let holder = who(&target.label, target.token);
    let Closed::Done { ttl } = closed else {
        return Err(Failed::refused(format!(
            "{name}: {holder} does not hold it any more; nothing was done"
        )));
    };
    let confirmed = until(admins, name, ttl, |status| {
        over(record(status, target.slot), target.token).then_some(())
    });
    // The token is closed, so this is a success whatever comes of the waiting.
    let said = match confirmed.await {
        Ok(Some(())) => {
            format!("{name}: {holder} is closed, and has confirmed that its worker is gone\n")
        }
        Ok(None) | Err(_) => format!(
            "{name}: {holder} is closed, but has not confirmed that its worker is gone; \
             a standby takes over once it has watched the lease long enough, as after a lost host\n"
        ),
    };
    Ok(print(said.as_bytes()))
}
