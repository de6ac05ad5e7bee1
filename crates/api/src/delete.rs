//! The answer to a delete.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::echo;

/// The sandbox is gone, or was never there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Always true.
    pub ok: bool,
    /// The id as it was asked for, cut where it is longer than any id can be.
    #[schema(example = "1a2b3c4d")]
    pub sandbox_id: String,
}

impl Deleted {
    /// The answer for an id, which need not be a good one.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { ok: true, sandbox_id: echo::bounded_text(id) }
    }
}
