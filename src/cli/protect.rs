//! `protect`: fences tables, so that the database refuses writes of whoever
//! does not hold the lease.

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::named::NameArgs;
use super::print;
use crate::lease::ids::LeaseName;
use crate::store::admin::{Admin, ProtectError, Protection};

/// Arguments of `leasewrap protect`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Only sessions that carry the lease's current token may write to the tables: a
worker under --pgoptions, or one that sets leasewrap.name and leasewrap.token in
its transaction. All of the tables are fenced, or none; partitions that exist
are included.

Examples:
  leasewrap protect orders shop.invoices --name mailer --allow-role admin
  leasewrap protect orders --remove")]
pub struct Protect {
    #[command(flatten)]
    name: NameArgs,
    /// Tables, as SQL writes them: orders, shop.orders, "Odd Name"
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// A role that may write without a token; may be repeated
    #[arg(long, value_name = "ROLE")]
    allow_role: Vec<String>,
    /// Take the fence away
    #[arg(long, conflicts_with = "allow_role")]
    remove: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Protect {
    /// Fences, or takes the fence away.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            tables,
            allow_role,
            remove,
        } = self;
        if remove {
            return admin.perform(None, async |admins: &mut Admins| {
                let removed = admins.store.unprotect(&tables, admins.limit).await;
                let removed = removed.map_err(|error| failed(&error))?;
                Ok(print(listed("no longer fenced", &removed).as_bytes()))
            });
        }
        admin.named(
            name,
            "protect",
            async |admins: &mut Admins, name: &LeaseName| {
                let protection = Protection {
                    tables,
                    name: name.clone(),
                    allow_roles: allow_role,
                };
                let fenced = admins.store.protect(&protection, admins.limit).await;
                let fenced = fenced.map_err(|error| failed(&error))?;
                Ok(print(listed("fenced", &fenced).as_bytes()))
            },
        )
    }
}

fn listed(what: &str, tables: &[String]) -> String {
    if tables.is_empty() {
        return "there was nothing to do\n".to_owned();
    }
    tables
        .iter()
        .map(|table| format!("{table}: {what}\n"))
        .collect()
}

fn failed(error: &ProtectError) -> Failed {
    match error {
        ProtectError::NoSuchTable(table) => Failed::refused(format!(
            "protect: there is no table {table}; nothing was done"
        )),
        ProtectError::NotProtectable(table) => Failed::refused(format!(
            "protect: {table} is no table that can have a trigger; nothing was done"
        )),
        ProtectError::Own(table) => Failed::refused(format!(
            "protect: {table} is leasewrap's own, and nobody could take a lease any more; nothing was done"
        )),
        ProtectError::NoSuchRole(role) => Failed::refused(format!(
            "protect: there is no role {role}; nothing was done"
        )),
        ProtectError::Unsupported => {
            Failed::refused("protect: this store has no tables but its own")
        }
        ProtectError::Failed(unknown) => Failed::call("change the fences", unknown),
    }
}
