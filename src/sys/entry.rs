//! The C `main`.
//!
//! Rust's own runtime ignores SIGPIPE, installs handlers for SEGV and BUS and
//! opens closed standard descriptors before `fn main` runs; the worker has to
//! get all of these as leasewrap got them. So the program starts here, and
//! records what it was given before anything changes it.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::inherited;
use super::signals::{self, Disposition};

/// Defines the program's C `main`: records what was inherited, and calls
/// `$main(args: Vec<OsString>) -> i32` with the arguments (the first is the
/// program's name).
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// What the C runtime calls.
        ///
        /// # Safety
        /// By the C runtime alone, once.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            argc: ::std::ffi::c_int,
            argv: *mut *mut ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: these are the C runtime's own arguments, once.
            let args = unsafe { $crate::sys::entry::begin(argc, argv) };
            $main(args)
        }
    };
}

/// Where the kernel has put the arguments.
static ARGUMENTS: AtomicPtr<*mut c_char> = AtomicPtr::new(ptr::null_mut());

/// Their lengths at the start.
static LENGTHS: OnceLock<Vec<usize>> = OnceLock::new();

/// Records what was inherited and copies the arguments.
///
/// # Safety
/// `argc` and `argv` are those that `main` was called with, and no thread
/// exists yet.
pub unsafe fn begin(argc: c_int, argv: *mut *mut c_char) -> Vec<OsString> {
    inherited::capture();
    // A caller that ignores it would have the kernel reap our children.
    signals::set_disposition(libc::SIGCHLD, Disposition::Default);
    let count = usize::try_from(argc).unwrap_or(0);
    let mut lengths = Vec::with_capacity(count);
    let mut args = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: argv has argc entries, each a C string that lives as long
        // as the process (execve(2)).
        let text = unsafe { CStr::from_ptr(*argv.add(index)) };
        lengths.push(text.count_bytes());
        args.push(OsString::from_vec(text.to_bytes().to_vec()));
    }
    // Only a second call could fail to set it.
    let _ = LENGTHS.set(lengths);
    ARGUMENTS.store(argv, Ordering::Relaxed);
    args
}

/// Overwrites the passwords of `--db URL` and `--db=URL` where the kernel
/// shows them to everyone (`/proc/PID/cmdline`). What comes after `--` is the
/// worker's, and is left alone. To be called once the arguments were read,
/// before there are threads.
pub fn hide_passwords() {
    let Some(lengths) = LENGTHS.get() else {
        return;
    };
    let argv = ARGUMENTS.load(Ordering::Relaxed);
    let mut next_is_url = false;
    for (index, length) in lengths.iter().enumerate() {
        // SAFETY: the C runtime's argv and its strings live as long as the
        // process; their lengths were taken at the start, and only this
        // function writes to them, never a NUL.
        let text =
            unsafe { std::slice::from_raw_parts_mut((*argv.add(index)).cast::<u8>(), *length) };
        if text == b"--" {
            return;
        }
        let url = if next_is_url {
            next_is_url = false;
            Some(text)
        } else if text == b"--db" {
            next_is_url = true;
            None
        } else {
            text.strip_prefix_mut(b"--db=")
        };
        if let Some(url) = url {
            for span in password_spans(url) {
                url[span].fill(b'*');
            }
        }
    }
}

/// Overwrites the first argument, as the kernel shows it, by a name that is no
/// longer; for a forked process that is somebody else. Async-signal-safe.
pub(super) fn show_as(name: &CStr) {
    let room = LENGTHS.get().and_then(|lengths| lengths.first());
    let name = name.to_bytes();
    let Some(room) = room.filter(|room| **room >= name.len()) else {
        return;
    };
    // SAFETY: as in `hide_passwords`; what is left of the old name becomes
    // NULs, so that it ends where the new one does.
    let text = unsafe {
        let first = *ARGUMENTS.load(Ordering::Relaxed);
        std::slice::from_raw_parts_mut(first.cast::<u8>(), *room)
    };
    for (place, byte) in text
        .iter_mut()
        .zip(name.iter().chain(std::iter::repeat(&0)))
    {
        *place = *byte;
    }
}

trait StripPrefixMut {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]>;
}

impl StripPrefixMut for [u8] {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]> {
        self.starts_with(prefix).then(|| &mut self[prefix.len()..])
    }
}

/// Where the passwords stand in a database URL: between the colon and the at
/// sign of `scheme://user:password@host` (the last one, should a badly quoted
/// password hold another), and after `password=` (`sslpassword=` too).
fn password_spans(url: &[u8]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let find = |range: Range<usize>, byte: u8| {
        let at = url[range.clone()].iter().position(|found| *found == byte);
        at.map(|at| range.start + at)
    };
    if let Some(scheme) = url.windows(3).position(|window| window == b"://") {
        let start = scheme + 3;
        // Before any slash libpq takes a question mark as part of the password.
        let query = find(start..url.len(), b'?').unwrap_or(url.len());
        let slash = find(start..url.len(), b'/').unwrap_or(url.len());
        let last = url[start..query].iter().rposition(|byte| *byte == b'@');
        let at = last.map_or_else(|| find(start..slash, b'@'), |at| Some(start + at));
        if let Some(at) = at
            && let Some(colon) = find(start..at, b':')
        {
            spans.push(colon + 1..at);
        }
    }
    const KEYWORD: &[u8] = b"password";
    let mut from = 0;
    while let Some(at) = url[from..]
        .windows(KEYWORD.len())
        .position(|w| w == KEYWORD)
    {
        from += at + KEYWORD.len();
        let equals = from + blanks(&url[from..]);
        if url.get(equals) == Some(&b'=') {
            let start = equals + 1 + blanks(&url[equals + 1..]);
            from = start + value_length(&url[start..]);
            spans.push(start..from);
        }
    }
    spans
}

fn blanks(text: &[u8]) -> usize {
    let blanks = text.iter().take_while(|byte| byte.is_ascii_whitespace());
    blanks.count()
}

/// How long a value is: to the closing quote of a keyword string, or to its
/// next blank, where a backslash takes the next byte as it is; to the `&` of a
/// URL's query.
fn value_length(text: &[u8]) -> usize {
    let is_quoted = text.first() == Some(&b'\'');
    let mut bytes = text.iter().enumerate().skip(usize::from(is_quoted));
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'\'' if is_quoted => return at + 1,
            b'&' if !is_quoted => return at,
            byte if !is_quoted && byte.is_ascii_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_wherever_they_stand() {
        for (url, hidden) in [
            ("postgres://u:secret@h/db", "postgres://u:******@h/db"),
            ("postgres://u:s@cret@h/db", "postgres://u:******@h/db"),
            ("postgres://u:se?ret@h/db", "postgres://u:******@h/db"),
            ("postgres://u:se/ret@h/db", "postgres://u:******@h/db"),
            ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
            ("postgres://h:5432/db", "postgres://h:5432/db"),
            (
                "postgres:///db?user=u&password=secret&sslmode=require",
                "postgres:///db?user=u&password=******&sslmode=require",
            ),
            (
                "host=h password=secret dbname=d",
                "host=h password=****** dbname=d",
            ),
            (r"password = 'a \' b' host=h", "password = ******** host=h"),
            (r"password=a\ b host=h", "password=**** host=h"),
            ("password", "password"),
            ("sqlite:/tmp/x", "sqlite:/tmp/x"),
            ("", ""),
        ] {
            let mut bytes = url.as_bytes().to_vec();
            for span in password_spans(url.as_bytes()) {
                bytes[span].fill(b'*');
            }
            assert_eq!(String::from_utf8_lossy(&bytes), hidden);
        }
    }
}
