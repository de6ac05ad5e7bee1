//! Identifiers as types that cannot hold a bad one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Why a text is not an identifier. The text itself is not repeated: it may hold control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// Nothing, or more than the limit.
    #[error("must have 1 to {max} characters, has {actual}")]
    Length {
        /// The limit in bytes.
        max: usize,
        /// The length of what was given, in bytes.
        actual: usize,
    },
    /// A character outside the set, or one that may not stand at an end.
    #[error("must match {pattern}")]
    Pattern {
        /// The pattern, as a regular expression.
        pattern: &'static str,
    },
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, max = $max:expr, pattern = $pattern:literal, valid = $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest identifier of this kind, in bytes.
            pub const MAX_LEN: usize = $max;
            /// What an identifier of this kind looks like, as a regular expression.
            pub const PATTERN: &'static str = $pattern;

            /// Checks the text against [`Self::PATTERN`].
            ///
            /// # Errors
            /// Says whether length or pattern is wrong; never repeats the text.
            pub fn new(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > Self::MAX_LEN {
                    return Err(IdError::Length { max: Self::MAX_LEN, actual: text.len() });
                }
                let valid: fn(&[u8]) -> bool = $valid;
                if !valid(text.as_bytes()) {
                    return Err(IdError::Pattern { pattern: Self::PATTERN });
                }
                Ok(Self(text.into()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

identifier!(
    /// Names one sandbox. It serves in the object names `sandbox-{id}` and `sandbox-{id}-svc` and as
    /// a label value, hence the limit: 63 bytes of a DNS label less 12 for `sandbox-` and `-svc`.
    SandboxId,
    max = 51,
    pattern = "^[a-z0-9]([a-z0-9-]{0,49}[a-z0-9])?$",
    valid = |b| {
        let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
        b.iter().all(inner) && b.first() != Some(&b'-') && b.last() != Some(&b'-')
    }
);

identifier!(
    /// Names the conversation a sandbox belongs to. It becomes a directory name.
    ThreadId,
    max = 64,
    pattern = "^[A-Za-z0-9_-]{1,64}$",
    valid = word_or_dash
);

identifier!(
    /// Names the person a sandbox belongs to. It becomes a directory name, hence the limit of a file
    /// name; it is kept in annotations, never in labels (whose limit is 63 bytes).
    UserId,
    max = 255,
    pattern = "^[A-Za-z0-9_\\-]+$",
    valid = word_or_dash
);

fn word_or_dash(bytes: &[u8]) -> bool {
    bytes.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'))
}

impl From<&SandboxId> for ThreadId {
    /// A sandbox without a thread of its own is its own thread.
    fn from(id: &SandboxId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

impl Default for UserId {
    /// The user of requests that name none.
    fn default() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_id_is_a_dns_label_of_at_most_51_bytes() {
        for good in ["a", "0", "abc-123", "a--b", &"x".repeat(51)] {
            assert!(SandboxId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a\n", "é", &"x".repeat(52)] {
            assert!(SandboxId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_thread_id_may_have_capitals_and_underscores() {
        assert!(ThreadId::new("T_1-x").is_ok());
        assert!(ThreadId::new(&"x".repeat(65)).is_err());
        assert!(ThreadId::new("../x").is_err());
    }

    #[test]
    fn a_user_id_ends_at_255_bytes() {
        assert!(UserId::new(&"u".repeat(255)).is_ok());
        assert_eq!(UserId::new(&"u".repeat(256)), Err(IdError::Length { max: 255, actual: 256 }));
    }

    #[test]
    fn every_sandbox_id_is_a_thread_id() {
        let id = SandboxId::new(&"x".repeat(SandboxId::MAX_LEN)).unwrap();
        assert!(ThreadId::new(ThreadId::from(&id).as_str()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn an_error_never_repeats_the_text(text in "\\PC*[\\x00-\\x1f]\\PC*") {
            let error = SandboxId::new(&text).unwrap_err().to_string();
            assert!(!error.chars().any(char::is_control));
        }
    }
}
