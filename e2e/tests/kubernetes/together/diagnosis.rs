//! Why a sandbox does not work, in its answers. Each fault is a real one.

use std::time::Duration;

use stockade_api::{CreateSandbox, Sandbox};
use stockade_e2e::server::Server;
use stockade_e2e::wait;
use stockade_e2e::world::scenario;

/// The kubelet looks every second, and backs off in tens of seconds.
const SAID: Duration = Duration::from_secs(60);

/// Waits until the sandbox is not ready for one of these reasons.
async fn reason(server: &Server, id: &str, reasons: &[&str]) -> Sandbox<'static> {
    wait::until(&format!("sandbox {id} says {reasons:?}"), SAID, async || {
        let sandbox = server.client().get(id).await.unwrap().ok_or("404")?;
        match sandbox.reason.as_deref() {
            Some(reason) if reasons.contains(&reason) => Ok(sandbox),
            _ => Err(format!("{sandbox:?}")),
        }
    })
    .await
}

fn message<'a>(sandbox: &'a Sandbox<'_>) -> &'a str {
    sandbox.message.as_deref().unwrap_or_default()
}

#[test]
fn an_image_that_cannot_be_pulled_is_named() {
    scenario(async |world| {
        let server = world.server_with(&[("SANDBOX_IMAGE", "stockade.local/absent:dev")]).await;
        server.client().create(&CreateSandbox::new("pull")).await.unwrap();
        let sandbox = reason(&server, "pull", &["ErrImagePull", "ImagePullBackOff"]).await;
        assert_eq!((sandbox.status.as_ref(), sandbox.ready), ("Pending", false));
        assert!(message(&sandbox).contains("SANDBOX_IMAGE"), "{}", message(&sandbox));
        let events = server.client().events("pull").await.unwrap().events;
        assert!(events.iter().any(|event| event.message.contains("absent:dev")), "{events:?}");
    });
}

#[test]
fn a_skills_directory_that_is_missing_on_the_node_is_named() {
    scenario(async |world| {
        let server = world.server().await;
        // Nobody made the skill views of this user.
        let request = crate::support::mk_request("mount", "stranger", "t1");
        server.client().create(&request).await.unwrap();
        let sandbox = reason(&server, "mount", &["FailedMount"]).await;
        assert!(message(&sandbox).contains("hostPath"), "{}", message(&sandbox));
        assert!(message(&sandbox).contains("DEER_FLOW_HOST_BASE_DIR"), "{}", message(&sandbox));
        // The remedy works without another create.
        world.dirs.make_user("stranger");
        world.enter(&sandbox).await;
    });
}

#[test]
fn a_sandbox_that_keeps_crashing_says_with_which_code() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&CreateSandbox::new("crash")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        testbox.crash(7).await;
        // The first restart is at once; only a second crash makes the kubelet wait.
        wait::until("it was started again", SAID, async || testbox.host_name().await).await;
        testbox.crash(7).await;
        let sandbox = reason(&server, "crash", &["CrashLoopBackOff"]).await;
        assert!(message(&sandbox).contains("exit code 7"), "{}", message(&sandbox));
        assert!(message(&sandbox).contains("logs?previous=true"), "{}", message(&sandbox));
    });
}

#[test]
fn a_sandbox_that_takes_too_much_memory_says_so() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&CreateSandbox::new("oom")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        // The limit is 1 GiB. Twice, so that the kubelet waits and the reason stays.
        testbox.allocate(1200).await;
        let again = wait::until("it runs again and says why", SAID, async || {
            let sandbox = server.client().get("oom").await.unwrap().ok_or("404")?;
            if sandbox.ready && sandbox.reason.is_some() { Ok(sandbox) } else { Err(format!("{sandbox:?}")) }
        })
        .await;
        let limit = "killed: the sandbox's memory limit of 1Gi was reached";
        assert_eq!((again.reason.as_deref(), again.status.as_ref()), (Some("OOMKilled"), "Running"));
        assert!(message(&again).starts_with(limit), "{}", message(&again));
        let made = server.client().create(&CreateSandbox::new("oom")).await.unwrap();
        assert_eq!(made.reason.as_deref(), Some("OOMKilled"), "the next create says it too");
        let events = server.client().events("oom").await.unwrap().events;
        let told = events.iter().find(|event| event.reason == "OOMKilled");
        assert!(
            told.is_some_and(|event| event.message.starts_with(limit) && event.kind == "Warning"),
            "{events:?}"
        );
        let metrics = server.get("/metrics").await.text();
        assert!(metrics.contains("stockade_kubernetes_memory_kills_total 1\n"), "{metrics}");

        // What is sent to an address that is not back yet reaches nobody.
        wait::until("it answers again", SAID, async || testbox.host_name().await).await;
        testbox.allocate(1200).await;
        let sandbox = wait::until("the kubelet waits", SAID, async || {
            let sandbox = server.client().get("oom").await.unwrap().ok_or("404")?;
            if sandbox.ready { Err(format!("{sandbox:?}")) } else { Ok(sandbox) }
        })
        .await;
        assert_eq!(sandbox.reason.as_deref(), Some("OOMKilled"), "{sandbox:?}");
        assert!(message(&sandbox).starts_with(limit), "{}", message(&sandbox));
    });
}

#[test]
fn an_end_with_137_that_was_not_for_memory_is_not_said_to_be() {
    scenario(async |world| {
        let server = world.server().await;
        let sandbox = server.client().create(&CreateSandbox::new("kill")).await.unwrap();
        let testbox = world.enter(&sandbox).await;
        testbox.crash(137).await;
        wait::until("it was started again", SAID, async || testbox.host_name().await).await;
        testbox.crash(137).await;
        let sandbox = reason(&server, "kill", &["CrashLoopBackOff"]).await;
        assert!(message(&sandbox).contains("exit code 137: signal 9"), "{}", message(&sandbox));
    });
}

#[test]
fn a_wait_that_is_in_vain_answers_with_the_reason() {
    scenario(async |world| {
        let server = world.server_with(&[("SANDBOX_IMAGE", "stockade.local/absent:dev")]).await;
        let sandbox =
            server.client().create_ready(&CreateSandbox::new("vain"), Duration::from_secs(6)).await.unwrap();
        assert!(!sandbox.ready && sandbox.reason.is_some(), "{sandbox:?}");
    });
}
