//! leasewrap: run a command on at most one machine at a time.
//!
//! The folders are floors; a file imports only from lower floors or its own
//! folder (`tests/house.rs` keeps it so):
//!
//! | floor | folders | what lives there |
//! |---|---|---|
//! | 0, pure | [`lease`], [`wire`], [`exit`] | the rules: no clock, no I/O, no randomness, no async |
//! | 1, adapters | [`sys`], [`store`] | the kernel (all `unsafe`, fork and exec) and the databases |
//! | 2, loops | [`guard`], [`keeper`] | the synchronous guard, the tokio keeper |
//! | 3, edges | [`cli`], [`telemetry`], [`http`], [`notify`] | command line, log, pages: what people see |

pub mod cli;
pub mod exit;
pub mod guard;
pub mod http;
pub mod keeper;
pub mod lease;
pub mod notify;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod wire;

use std::ffi::OsString;

use sys::role::{self, Role};

/// The program, after what was inherited has been recorded; `args` begin with
/// its name. The result is the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    let code = match role::of_this_process(&args) {
        Role::Leasewrap => cli::main(&args),
        Role::Guard(start) => end(guard::run(start)),
        Role::Releaser(task) => end(keeper::releaser::run(&task)),
        Role::Probe(task) => {
            task.run(&[]);
            0
        }
        Role::Broken => exit::FAILED,
    };
    code.into()
}

fn end(end: exit::End) -> u8 {
    if let Some(last) = &end.last {
        telemetry::say_without_a_log(last);
    }
    end.code
}
