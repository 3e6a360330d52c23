//! `completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::args;

/// Arguments of `leasewrap completions`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  leasewrap completions bash > /etc/bash_completion.d/leasewrap"
)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn perform(self) -> u8 {
        let mut script = Vec::new();
        clap_complete::generate(
            self.shell,
            &mut args::definition(),
            "leasewrap",
            &mut script,
        );
        super::print(&script)
    }
}
