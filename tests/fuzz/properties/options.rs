//! The command line and the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

use leasewrap::cli::args::{Parsed, Refused, parse};

use super::{SECRET, one_clear_line};

/// Options, help, or one line that says what is wrong.
pub fn read_or_refused(words: &[OsString], variables: &BTreeMap<String, OsString>) {
    let mut arguments = vec![OsString::from("leasewrap")];
    arguments.extend_from_slice(words);
    match parse(&arguments, &|name| variables.get(name).cloned()) {
        Ok(Parsed::Run(run)) => {
            let shown = format!("{:?}", run.keep.db.source);
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(!run.command.is_empty());
        }
        Ok(Parsed::Command(_)) | Err(Refused::Told(_)) => {}
        Err(Refused::Usage(error)) => one_clear_line(&error.to_string(), 60),
    }
}
