//! Names and numbers that identify a lease, a slot, a holder and a term.
//! Each is validated where it is made and trusted afterwards.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text cannot be a lease's name, a label or a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A lease's name must not be empty.
    #[error("is empty; give 1 to {max} bytes")]
    Empty {
        /// Largest length allowed, in bytes.
        max: usize,
    },
    /// Longer than allowed.
    #[error("has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// Length seen, in bytes.
        len: usize,
        /// Largest length allowed, in bytes.
        max: usize,
    },
    /// Holds a control character.
    #[error("holds the control character {0:?}; only printable UTF-8 is allowed")]
    Control(char),
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, empty $empty:literal, max $max:literal, control $control:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Largest length, in bytes of UTF-8.
            pub const MAX_BYTES: usize = $max;

            /// Checks `text`.
            ///
            /// # Errors
            /// [`TextError`] says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                if text.is_empty() && !$empty {
                    return Err(TextError::Empty { max: $max });
                }
                if text.len() > $max {
                    return Err(TextError::TooLong { len: text.len(), max: $max });
                }
                // NUL can be in no Postgres text, so it is refused everywhere.
                match text.chars().find(|c| c.is_control() && (!$control || *c == '\0')) {
                    Some(c) => Err(TextError::Control(c)),
                    None => Ok(Self(text)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;
            fn try_from(text: String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }
    };
}

text! {
    /// A lease's name: 1 to 200 bytes of UTF-8 without control characters.
    LeaseName, empty false, max 200, control false
}
text! {
    /// A holder's label, for people: at most 200 bytes without control characters.
    Label, empty true, max 200, control false
}
text! {
    /// What a holder publishes with the lease: at most 4 KiB; line breaks allowed.
    Value, empty true, max 4096, control true
}

/// One of the N places of a lease, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// The identity of one term of one leasewrap: a fresh UUID for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HolderId(pub Uuid);

/// The fencing token: larger at every change of holder, never reused, the
/// same for no two slots of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token(pub i64);

/// Plus one at every acquisition, renewal and release, and at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision(pub i64);

/// Which database this is, as far as lost commits go: system identifier and
/// timeline, or the postmaster's start time where those cannot be read.
/// Two equal incarnations mean: no commit was lost in between.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub String);

macro_rules! shown_as_inner {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown_as_inner!(Slot, HolderId, Token, Revision, Incarnation);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_checked_too() {
        let read = |text: &str| {
            let bytes = postcard::to_stdvec(text).expect("plain data");
            postcard::from_bytes::<LeaseName>(&bytes).ok()
        };
        assert_eq!(read("job"), LeaseName::new("job").ok());
        for wrong in ["", "a\0b", "a\nb", &"x".repeat(201)] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
