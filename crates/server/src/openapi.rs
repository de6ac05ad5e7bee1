//! The description of the API that programs read.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::routes;

/// The whole description. It is the same for every server, whatever its settings.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::documented().into_openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stockade",
        description = "Sandboxes for AI agents. A drop-in replacement of DeerFlow's provisioner."
    ),
    modifiers(&Key),
    tags(
        (name = "sandboxes", description = "Making, finding and ending sandboxes"),
        (name = "server", description = "The server itself"),
    )
)]
pub(crate) struct Description;

struct Key;

impl Modify for Key {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        openapi.components.get_or_insert_with(Default::default).add_security_scheme("key", scheme);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_git_is_the_one_that_is_served() {
        let served = openapi().to_pretty_json().unwrap() + "\n";
        let in_git = include_str!("../openapi.json");
        assert!(
            served == in_git,
            "the API has changed: look at the difference and run `cargo xtask openapi`"
        );
    }
}
