//! The sandbox id in a path, good or not.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use stockade_api::echo;
use stockade_core::SandboxId;

/// The sandbox id in a path. One that cannot be any sandbox's never reaches a backend; what is answered
/// instead depends on the route.
#[derive(Debug, Clone)]
pub(crate) struct PathId {
    /// What was asked for, cut where it is long. Never logged.
    pub(crate) asked: String,
    /// The same as an id, if it is one.
    pub(crate) id: Option<SandboxId>,
}

impl PathId {
    /// The id in a path of a route that has one: the part after `sandboxes`.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let part = path.split('/').skip_while(|part| *part != "sandboxes").nth(1)?;
        // Bytes that are no text are shown as U+FFFD, which no id has.
        let asked = percent_decode_str(part).decode_utf8_lossy();
        Some(Self { id: SandboxId::new(&asked).ok(), asked: echo::bounded_text(&asked) })
    }
}

impl<S: Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts.uri.path()).unwrap_or(Self { asked: String::new(), id: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, asked: &str, is_id: bool) {
        let found = PathId::of(path).unwrap();
        assert_eq!((found.asked.as_str(), found.id.is_some()), (asked, is_id), "{path}");
    }

    #[test]
    fn the_part_after_sandboxes_is_the_id() {
        check("/api/sandboxes/s1", "s1", true);
        check("/api/sandboxes/s1/events", "s1", true);
        check("/api/reconciliation/sandboxes/s%31", "s1", true);
        check("/api/sandboxes/a%2Fb", "a/b", false);
        check("/api/sandboxes/a%0Ab", "a\nb", false);
        check("/api/sandboxes/%ff", "\u{fffd}", false);
        assert!(PathId::of("/health").is_none());
    }
}
