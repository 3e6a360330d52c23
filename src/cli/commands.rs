//! The subcommands: adding one is its file and a line here.

use clap::Subcommand;

use super::{
    args, break_, completions, doctor, history, init, install, man, pause, protect, resume,
    selftest, status, step_down,
};

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
    /// Show who holds what, and until when
    Status(status::Status),
    /// Show who held what, and why each term ended
    History(history::History),
    /// Ask a holder to stop its worker and give the lease back
    StepDown(step_down::StepDown),
    /// Close a holder's token: it is fenced off, and kills its worker
    Break(break_::Break),
    /// Let nobody take a lease
    Pause(pause::Pause),
    /// End a pause
    Resume(resume::Resume),
    /// Create or upgrade the schema
    Init(init::Init),
    /// Fence tables against writers that do not hold the lease
    Protect(protect::Protect),
    /// Look at the database, and say what holds and what does not
    Doctor(doctor::Doctor),
    /// Hold the lease for a worker in another container
    Serve(Box<args::sidecar::ServeArgs>),
    /// Run a worker while serve, in another container, holds the lease
    Attach(args::sidecar::AttachArgs),
    /// Cause faults against this database, and measure: never two workers
    #[command(name = "selftest")]
    SelfTest(selftest::SelfTest),
    /// Copy this program to a directory
    Install(install::Install),
    /// Print shell completions
    Completions(completions::Completions),
    /// Print or write man pages
    Man(man::Man),
}
