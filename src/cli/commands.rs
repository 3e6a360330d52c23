//! The subcommands: adding one is its file and a line here.

use clap::Subcommand;

use super::{completions, man};

macro_rules! commands {
    ($($(#[$attribute:meta])* $name:ident($arguments:ty)),+ $(,)?) => {
        /// Everything but running a worker.
        #[derive(Debug, Subcommand)]
        pub enum Commands {
            $($(#[$attribute])* $name($arguments),)+
        }

        impl Commands {
            /// Does it; the result is the exit code.
            pub fn perform(self) -> u8 {
                match self {
                    $(Self::$name(arguments) => arguments.perform(),)+
                }
            }
        }
    };
}

commands! {
    /// Print shell completions
    Completions(completions::Completions),
    /// Print or write man pages
    Man(man::Man),
}
