//! `resume`: ends a pause.

use clap::Args;

use super::admin::{AdminArgs, Admins, Failed};
use super::named::NameArgs;
use super::print;
use crate::lease::ids::LeaseName;
use crate::store::admin::Admin;

/// Arguments of `leasewrap resume`.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    name: NameArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Resume {
    /// Resumes.
    pub fn perform(self) -> u8 {
        let Self { admin, name } = self;
        admin.named(
            name,
            "resume",
            async |admins: &mut Admins, name: &LeaseName| {
                let resumed = admins.store.resume(name, admins.limit).await;
                let was_paused =
                    resumed.map_err(|unknown| Failed::call("resume the lease", &unknown))?;
                let said = if was_paused {
                    "resumed; it can be taken"
                } else {
                    "was not paused"
                };
                Ok(print(format!("{name}: {said}\n").as_bytes()))
            },
        )
    }
}
