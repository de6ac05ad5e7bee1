//! Whether a server lives, and whether its answers can be relied on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stockade_core::backend::BackendHealth;
use utoipa::ToSchema;

/// The server lives. Says nothing about its backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: String,
}

impl Health {
    /// The only one there is.
    #[must_use]
    pub fn ok() -> Self {
        Self { status: "ok".to_owned() }
    }
}

/// Whether a server's answers can be relied on now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether they can.
    pub ready: bool,
    /// The kind of backend.
    #[schema(example = "kubernetes")]
    pub backend: String,
    /// Each part of the backend by name, with what is wrong with it; null when nothing is.
    pub parts: BTreeMap<String, Option<String>>,
    /// How many sandboxes are known.
    pub sandboxes: usize,
    /// How many seconds old the proof is that what is known is the truth; null before the first.
    pub proven_age_seconds: Option<f64>,
}

impl Readiness {
    /// What a backend says of itself.
    #[must_use]
    pub fn of(backend: &str, health: BackendHealth) -> Self {
        Self {
            ready: health.ready,
            backend: backend.to_owned(),
            parts: health.parts.into_iter().map(|(name, wrong)| (name.to_owned(), wrong)).collect(),
            sandboxes: health.sandboxes,
            proven_age_seconds: health.proven_age.map(|age| age.as_secs_f64()),
        }
    }
}
