//! Tests with the sandbox agent in Pods, from the images of `cargo xtask image`.

mod injection;
mod sdk;
mod user_data;

use std::time::Duration;

use stockade_e2e::{http, wait};

/// Debian with the agent.
const SANDBOX_IMAGE: &str = "stockade.local/sandbox:dev";
/// The same Debian without it.
const DEBIAN_IMAGE: &str = "stockade.local/debian:dev";
/// The agent alone.
const AGENT_IMAGE: &str = "stockade.local/agent:dev";
/// Unpacking an image of 300 MB comes on top of what another Pod takes.
const ANSWERS: Duration = Duration::from_secs(120);

/// What a sandbox says of itself, once it answers at its URL.
async fn context(url: &str) -> serde_json::Value {
    wait::until(&format!("a sandbox answers at {url}"), ANSWERS, async || {
        let answer = http::get(&format!("{url}/v1/sandbox")).await?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("HTTP {}", answer.status)) }
    })
    .await
}
