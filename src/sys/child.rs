//! What a forked child does until it executes another program.
//!
//! Everything is laid out before the fork. Between fork and exec only system
//! calls are made: nothing allocates, nothing locks.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr;

use nix::errno::Errno;

/// A program to be executed, with its arguments and environment.
#[derive(Debug)]
pub(super) struct Image {
    path: CString,
    arguments: Vec<CString>,
    variables: Vec<CString>,
    /// Variables whose value is the process id of whoever executes.
    own_pids: Vec<OwnPid>,
}

/// `NAME=` and room for a number.
#[derive(Debug)]
struct OwnPid {
    text: Vec<u8>,
    name_length: usize,
}

/// The null-terminated arrays that execve wants. They point into the image.
pub(super) struct Prepared<'i> {
    path: &'i CStr,
    arguments: Vec<*const c_char>,
    variables: Vec<*const c_char>,
    /// Where to write one's own process id before executing.
    own_pids: Vec<*mut u8>,
}

impl Image {
    pub(super) fn new(path: CString, arguments: Vec<CString>, variables: Vec<CString>) -> Self {
        Self {
            path,
            arguments,
            variables,
            own_pids: Vec::new(),
        }
    }

    /// Adds a variable that holds the process id of the process that executes.
    pub(super) fn with_own_pid(mut self, name: &str) -> Self {
        let mut text = Vec::from(name);
        text.push(b'=');
        let name_length = text.len();
        // The digits of the largest pid, and the NUL.
        text.resize(name_length + 12, 0);
        self.own_pids.push(OwnPid { text, name_length });
        self
    }

    pub(super) fn prepare(&mut self) -> Prepared<'_> {
        let mut variables = pointers(&self.variables);
        // Before the null.
        let end = self.variables.len();
        let own_pids = self.own_pids.iter_mut().map(|own| {
            let text = own.text.as_mut_ptr();
            variables.insert(end, text.cast_const().cast());
            text.wrapping_add(own.name_length)
        });
        let own_pids = own_pids.collect();
        Prepared {
            path: &self.path,
            arguments: pointers(&self.arguments),
            variables,
            own_pids,
        }
    }

    /// Executes it in this process; returns only when that fails.
    pub(super) fn execute(mut self) -> io::Error {
        io::Error::from_raw_os_error(self.prepare().execute() as i32)
    }
}

impl Prepared<'_> {
    /// Executes it; returns only when that fails. Async-signal-safe.
    pub(super) fn execute(&self) -> Errno {
        for place in &self.own_pids {
            // SAFETY: the image holds twelve bytes of room behind the name;
            // in a forked child they are its own copy.
            unsafe { write_number(*place, std::process::id()) };
        }
        // SAFETY: three null-terminated arrays of C strings that the image,
        // which `self` borrows, keeps alive.
        unsafe {
            libc::execve(
                self.path.as_ptr(),
                self.arguments.as_ptr(),
                self.variables.as_ptr(),
            );
        }
        Errno::last()
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let texts = texts.iter().map(|text| text.as_ptr());
    texts.chain([ptr::null()]).collect()
}

/// Writes `number` and a NUL.
///
/// # Safety
/// `to` has room for eleven bytes.
unsafe fn write_number(to: *mut u8, mut number: u32) {
    let mut digits = [0u8; 10];
    let mut count = 0;
    loop {
        digits[count] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    for (place, digit) in digits[..count].iter().rev().enumerate() {
        // SAFETY: at most ten of them.
        unsafe { to.add(place).write(*digit) };
    }
    // SAFETY: the eleventh at most.
    unsafe { to.add(count).write(0) };
}

/// Ends the child at once: no destructor, no buffer, no handler of the parent
/// runs twice.
pub(super) fn end_child(code: i32) -> ! {
    // SAFETY: always is.
    unsafe { libc::_exit(code) }
}

/// Which of the two a fork has returned in.
pub(super) enum Forked {
    /// The new process, with every signal blocked.
    Child,
    /// The old one.
    Parent {
        /// The new process.
        child: i32,
    },
}

/// Forks with every signal blocked, so that the child starts with none
/// delivered to handlers that are not its own; the parent's mask is put back.
pub(super) fn fork() -> io::Result<Forked> {
    let mask = super::signals::mask();
    super::signals::set_mask(super::signals::SignalSet::ALL);
    // SAFETY: the callers' children only make system calls until they execute
    // or end (see the module), so it does not matter what other threads held.
    let forked = Errno::result(unsafe { libc::fork() });
    if forked == Ok(0) {
        return Ok(Forked::Child);
    }
    super::signals::set_mask(mask);
    Ok(Forked::Parent { child: forked? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut room = [b'x'; 12];
            // SAFETY: there is the room.
            unsafe { write_number(room.as_mut_ptr(), number) };
            let text = CStr::from_bytes_until_nul(&room).unwrap();
            assert_eq!(text.to_str().unwrap(), number.to_string());
        }
    }
}
