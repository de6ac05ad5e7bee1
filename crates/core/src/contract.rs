//! The generations of the provisioner contract.

use std::fmt;

/// Which mount contract a sandbox was made under.
///
/// It is 2 exactly when user data lies at `users/{user}/threads/{thread}/user-data`: callers trust the
/// number for the isolation of users from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContractVersion {
    /// User data by thread only (`{threads}/{thread}/user-data`), answers without identity.
    V1,
    /// User data by user and thread, answers with identity, conflicts on a mismatch.
    V2,
}

impl ContractVersion {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The version of a number on the wire.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}
