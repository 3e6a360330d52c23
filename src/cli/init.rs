//! `init`: creates, upgrades, prints or removes the schema.

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::named::confirm;
use super::print;
use crate::store::Store;
use crate::store::admin::Admin;

/// Arguments of `leasewrap init`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A run creates the schema too, when it is missing and it may.

Examples:
  leasewrap init --db postgres://dba@db/app
  leasewrap init --db postgres://app@db/app --print > leasewrap.sql")]
pub struct Init {
    /// Print the SQL instead, for a DBA to look at and run
    #[arg(long, conflicts_with = "drop")]
    print: bool,
    /// Remove everything that init made, the fences of tables included
    #[arg(long)]
    drop: bool,
    /// With --drop: do not ask
    #[arg(long, short, requires = "drop")]
    yes: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Init {
    /// Does it.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            print: show,
            drop,
            yes,
        } = self;
        admin.perform(None, async |admins: &mut Admins| {
            if show {
                return match admins.store.schema_sql() {
                    Some(sql) => Ok(print(sql.as_bytes())),
                    None => Err(Failed::refused(
                        "this store needs no DBA: it makes its tables itself",
                    )),
                };
            }
            if drop {
                return remove(admins, yes).await;
            }
            let made = admins.store.init(admins.limit).await;
            made.map_err(|unknown| Failed::call("create the schema", &unknown))?;
            Ok(print(b"the schema is there and up to date\n"))
        })
    }
}

async fn remove(admins: &mut Admins, yes: bool) -> Result<u8, Failed> {
    const QUESTION: &str = "Remove the schema with every lease, its history and all fences? \
         Leasewraps that run kill their workers.";
    if !confirm(QUESTION, yes)? {
        return Err(Failed::refused("nothing was done"));
    }
    let removed = admins.store.drop_schema(admins.limit).await;
    let there = removed.map_err(|unknown| Failed::call("remove the schema", &unknown))?;
    Ok(print(if there {
        b"removed\n" as &[u8]
    } else {
        b"there was nothing to remove\n"
    }))
}
