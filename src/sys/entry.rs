//! The C `main`.
//!
//! Rust's own runtime ignores SIGPIPE, installs handlers for SEGV and BUS and
//! opens closed standard descriptors before `fn main` runs; the worker has to
//! get all of these as leasewrap got them. So the program starts here, and
//! records what it was given before anything changes it.

use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::child::Image;
use super::guard_process::THIS_PROGRAM;
use super::signals::{self, Disposition};
use super::{SysError, environment, inherited};

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

/// Executes this program anew in this process, with these arguments, this
/// environment, and what the caller gave: so a leasewrap that stands by again
/// (`--rejoin`) can start its next guard before any thread exists. The
/// caller's descriptors must not have been let go. Returns only when it fails.
pub fn execute_anew(arguments: &[OsString]) -> SysError {
    const WHAT: &str = "execute leasewrap anew";
    let texts = arguments.iter().map(|text| CString::new(text.as_bytes()));
    let Ok(texts) = texts.collect::<Result<Vec<_>, _>>() else {
        return SysError::on(WHAT)(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    };
    let image = Image::new(THIS_PROGRAM.to_owned(), texts, environment::without(&[]));
    let given = inherited::get();
    given.hand_down();
    given.restore_signals();
    SysError::on(WHAT)(image.execute())
}

trait StripPrefixMut {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]>;
}

impl StripPrefixMut for [u8] {
    fn strip_prefix_mut(&mut self, prefix: &[u8]) -> Option<&mut [u8]> {
        self.starts_with(prefix).then(|| &mut self[prefix.len()..])
    }
}

/// Where the passwords of a database URL stand, whatever is wrong with it:
/// rather too much is hidden than too little. That is between the colon and
/// the last at sign of `scheme://user:password@host`, and the value of each
/// parameter whose name ends with `password`, or cannot be read at a glance;
/// in a string of keywords it is all that follows the first of these. Where
/// the equals sign is missing it is all that follows the name.
pub fn password_spans(url: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    if let Some(at) = url.iter().rposition(|byte| *byte == b'@') {
        let scheme = url[..at].windows(3).position(|window| window == b"://");
        let start = scheme.map_or(0, |scheme| scheme + 3);
        let colon = url[start..at].iter().position(|byte| *byte == b':');
        spans.extend(colon.map(|colon| start + colon + 1..at));
    }
    // Only in a URL does an ampersand end a value.
    let scheme = url.windows(3).position(|window| window == b"://");
    let is_url = scheme.is_some_and(|end| url[..end].iter().all(u8::is_ascii_alphanumeric));
    let mut from = 0;
    for parameter in url.split(|byte| is_url && *byte == b'&') {
        let end = from + parameter.len();
        spans.extend(secret_of(parameter).map(|value| from + value..end));
        from = end + 1;
    }
    spans
}

/// Where the value of a `…password=value`, a `…password value` or a
/// `na%6De=value` begins.
fn secret_of(parameter: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"password";
    let named = (0..parameter.len()).find_map(|at| {
        let end = at + NAME.len();
        let name = parameter.get(at..end)?;
        let next = *parameter.get(end)?;
        if !name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut after = (end..).zip(&parameter[end..]);
        match after.find(|(_, byte)| !blank(**byte)) {
            Some((equals, b'=')) => Some(equals + 1),
            // Not where a path or another name goes on.
            _ => (blank(next) || b"'\":%".contains(&next)).then_some(end),
        }
    });
    named.or_else(|| {
        let name = parameter.iter().rposition(|byte| *byte == b'?');
        let name = name.map_or(0, |before| before + 1);
        let length = parameter[name..].iter().position(|byte| *byte == b'=')?;
        parameter[name..name + length]
            .contains(&b'%')
            .then_some(name + length + 1)
    })
}

/// What may stand around a keyword's equals sign: Unicode's blanks too, of
/// which the bytes are not ASCII's.
fn blank(byte: u8) -> bool {
    byte <= b' ' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_wherever_they_stand() {
        for (url, hidden) in [
            ("postgres://u:secret@h/db", "postgres://u:******@h/db"),
            ("postgres://u:s@cret@h/db", "postgres://u:******@h/db"),
            ("postgres://u@h:5432/db", "postgres://u@h:5432/db"),
            ("postgres://h:5432/db", "postgres://h:5432/db"),
            (
                "postgres:///db?user=u&password=secret&sslmode=require",
                "postgres:///db?user=u&password=******&sslmode=require",
            ),
            (
                "host=h password = 'my secret' dbname=d",
                "host=h password =*********************",
            ),
            ("password=a&b://c", "password=*******"),
            (
                "host=h dbname=x password 'secret'",
                "host=h dbname=x password*********",
            ),
            (
                "host=h SslPassword'a' user=u",
                "host=h SslPassword**********",
            ),
            ("host=h password:secret", "host=h password*******"),
            ("password\u{a0}secret", "password********"),
            (
                "host=h password\t='a&b c' user=u",
                "host=h password\t=**************",
            ),
            ("postgres://u:s?c/r#t@h/db", "postgres://u:*******@h/db"),
            (
                "postgres:///db?SslPassword=a b?c",
                "postgres:///db?SslPassword=*****",
            ),
            ("postgres:///db?pass%77ord=a", "postgres:///db?pass%77ord=*"),
            ("postgres://%2Frun/db?user=u", "postgres://%2Frun/db?user=u"),
            ("/run/password", "/run/password"),
            ("/run/password.d/x y", "/run/password.d/x y"),
            (
                "postgres://h/password?user=u",
                "postgres://h/password?user=u",
            ),
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
