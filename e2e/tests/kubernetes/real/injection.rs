//! The agent in images that do not have it.

use serde_json::{Value, json};
use stockade_api::CreateSandbox;
use stockade_e2e::http::{self, Answer};
use stockade_e2e::wait;
use stockade_e2e::world::{GONE, World, scenario};

use super::{AGENT_IMAGE, DEBIAN_IMAGE, context};

/// Settings that bring the agent into an image.
fn into_image<'a>(image: &'a str, agent: &'a str) -> [(&'a str, &'a str); 3] {
    [("SANDBOX_IMAGE", image), ("SANDBOX_INJECT_AGENT", "true"), ("SANDBOX_AGENT_IMAGE", agent)]
}

/// What a sandbox answers to a POST.
async fn post(url: &str, path: &str, body: Value) -> Answer {
    let request = ::http::Request::post(format!("{url}{path}")).header("content-type", "application/json");
    http::send(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

async fn is_ready(world: &World, id: &str, server: &stockade_e2e::server::Server) {
    wait::until("the sandbox is ready", GONE, async || {
        let found = server.client().get(id).await.unwrap().ok_or("404")?;
        if found.ready { Ok(()) } else { Err(format!("{:?} {:?}", found.reason, found.message)) }
    })
    .await;
    assert!(world.cluster.pod(id).await.is_some());
}

#[test]
fn an_image_without_the_agent_is_a_sandbox() {
    scenario(async |world| {
        let changes = into_image(DEBIAN_IMAGE, AGENT_IMAGE);
        // Its port is the setting's, not the image's.
        let server = world.server_with(&[&changes[..], &[("SANDBOX_CONTAINER_PORT", "9090")]].concat()).await;
        let sandbox = server.client().create(&CreateSandbox::new("injected")).await.unwrap();
        let url = sandbox.sandbox_url.as_ref();
        assert_eq!(context(url).await["home_dir"], "/home/gem");
        is_ready(world, "injected", &server).await;

        let looks = "cat /proc/1/comm; id -un; ls /usr/local/bin; ls -l /opt/stockade | tail -n +2 | cut -c1-10; python3 -c 'print(6*7)'; touch /opt/stockade/x";
        let ran = post(url, "/v1/bash/exec", json!({ "command": looks })).await.json()["data"].clone();
        assert_eq!(ran["stdout"], "stockade-agent\ngem\n-rwxr-xr-x\n42\n", "{ran}");
        assert!(ran["stderr"].as_str().unwrap().contains("Read-only file system"), "{ran}");
        let kept = post(url, "/v1/shell/exec", json!({ "command": "cd /usr; X=1; echo $$ $X" })).await;
        let session = kept.json()["data"]["session_id"].clone();
        let again = post(url, "/v1/shell/exec", json!({ "id": session, "command": "pwd; echo $X" })).await;
        assert_eq!(again.json()["data"]["output"], "/usr\n1\n");
        // A second create is the same sandbox; so it is for a server that brings no agent.
        let other = world.server_with(&[("SANDBOX_IMAGE", DEBIAN_IMAGE)]).await;
        for server in [&server, &other] {
            server.client().create(&CreateSandbox::new("injected")).await.expect("the same sandbox");
        }
    });
}

#[test]
fn an_image_without_a_shell_has_files_and_says_what_it_lacks() {
    scenario(async |world| {
        let image = world.run.image.clone();
        let server = world.server_with(&into_image(&image, AGENT_IMAGE)).await;
        let sandbox = server.client().create(&CreateSandbox::new("bare")).await.unwrap();
        let url = sandbox.sandbox_url.as_ref();
        context(url).await;
        is_ready(world, "bare", &server).await;

        let written = json!({ "file": "/mnt/user-data/a.txt", "content": "needle\n" });
        assert_eq!(post(url, "/v1/file/write", written).await.json()["success"], true);
        let found =
            post(url, "/v1/file/grep", json!({ "path": "/mnt/user-data", "pattern": "needle" })).await;
        assert_eq!(found.json()["data"]["match_count"], 1);
        // Not 5xx for commands: callers would throw the sandbox away and make another like it.
        for (path, body, status, missing) in [
            ("/v1/bash/exec", json!({ "command": "true" }), 400, "bash is not in this image"),
            ("/v1/shell/exec", json!({ "command": "true" }), 400, "bash is not in this image"),
            ("/v1/shell/sessions/create", json!({}), 400, "bash is not in this image"),
            ("/v1/code/execute", json!({ "language": "python", "code": "1" }), 501, "python3 is not"),
        ] {
            let answer = post(url, path, body).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains(missing), "{path}: {message}");
        }
        let deleted = server.client().delete("bare").await.unwrap();
        assert!(deleted.ok);
        world.wait_gone("bare").await;
    });
}

#[test]
fn an_agent_image_that_is_not_there_is_said() {
    scenario(async |world| {
        let server = world.server_with(&into_image(DEBIAN_IMAGE, "stockade.local/no-agent:dev")).await;
        server.client().create(&CreateSandbox::new("lost")).await.unwrap();
        wait::until("the sandbox says what is missing", GONE, async || {
            let found = server.client().get("lost").await.unwrap().ok_or("404")?;
            let (reason, message) = (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
            let is_said = reason.contains("Image") && message.contains("no-agent:dev");
            if is_said { Ok(()) } else { Err(format!("{reason}: {message}")) }
        })
        .await;
    });
}
