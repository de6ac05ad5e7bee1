//! Who may call.

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::Code;
use crate::state::ServerState;

const API_KEY: &str = "x-api-key";

/// Who may call `/api`.
#[derive(Clone)]
pub enum Access {
    /// Whoever sends the key. Only its hash is kept, so that keys of every length take equally long to
    /// compare and no memory dump holds it.
    Key(KeyHash),
    /// Everyone: the explicit opt-out.
    Open,
    /// Nobody: no key is configured.
    Nobody,
}

/// The SHA-256 of a key.
#[derive(Clone)]
pub struct KeyHash([u8; 32]);

impl Access {
    /// Whoever sends this key.
    #[must_use]
    pub fn key(key: &SecretString) -> Self {
        Self::Key(KeyHash(hash(key.expose_secret().as_bytes())))
    }

    /// Whether a request with these headers may call.
    fn allows(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Key(KeyHash(expected)) => {
                headers.get(API_KEY).is_some_and(|given| bool::from(hash(given.as_bytes()).ct_eq(expected)))
            }
            Self::Open => true,
            Self::Nobody => false,
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(..)",
            Self::Open => "Open",
            Self::Nobody => "Nobody",
        })
    }
}

/// Lets only those through who may call. It looks at the path and not at the route: an unknown path
/// below `/api` says nothing either.
pub(crate) async fn check(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let settings = state.settings();
    let is_protected =
        path == "/api" || path.starts_with("/api/") || (path == "/metrics" && settings.metrics_need_key);
    if is_protected && !settings.access.allows(request.headers()) {
        return unauthorized();
    }
    next.run(request).await
}

/// The contract's answer: plain text.
fn unauthorized() -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let mut response = (StatusCode::UNAUTHORIZED, plain, "Unauthorized").into_response();
    response.extensions_mut().insert(Code("unauthorized"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(access: &Access, key: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert(API_KEY, key.parse().unwrap());
        }
        access.allows(&headers)
    }

    #[test]
    fn only_the_very_key_is_let_in() {
        let access = Access::key(&SecretString::from("k3y"));
        assert!(allows(&access, Some("k3y")));
        for wrong in [None, Some(""), Some("k3"), Some("k3yy"), Some("K3Y")] {
            assert!(!allows(&access, wrong), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_key_nobody_is_let_in() {
        assert!(!allows(&Access::Nobody, Some("")));
        assert!(!allows(&Access::Nobody, None));
        assert!(allows(&Access::Open, None));
    }

    #[test]
    fn debug_shows_neither_key_nor_hash() {
        assert_eq!(format!("{:?}", Access::key(&SecretString::from("k3y"))), "Key(..)");
    }
}
