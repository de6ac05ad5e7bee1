//! Programs that want everything: the agent answers on, and neighbours do not notice.

use std::time::{Duration, Instant};

use serde_json::json;
use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest};
use stockade_e2e::{http, wait};

use crate::sandbox::Sandbox;
use crate::world::{RunBy, World, as_each_user, as_root};

/// A health check is answered within this, whatever commands do.
const HEALTHY: Duration = Duration::from_secs(1);
/// How long each bomb goes on.
const WHILE: Duration = Duration::from_secs(4);

/// Looks at health and at a neighbour while a bomb goes off. One late answer among many may be this machine's doing,
/// which runs the tests beside; the ninth of ten may not.
async fn nobody_notices(bombed: &Sandbox, neighbour: &Sandbox) {
    let (mut healths, mut neighbours) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < WHILE {
        healths.push(bombed.health().await);
        let one = Instant::now();
        assert_eq!(neighbour.sh("echo $((40 + 2))").await.stdout, "42\n");
        neighbours.push(one.elapsed());
    }
    for (what, mut times) in [("health", healths), ("a neighbour's command", neighbours)] {
        times.sort_unstable();
        let ninth = times[times.len() * 9 / 10];
        assert!(ninth < HEALTHY, "{what} took {ninth:?} (the ninth of ten; all: {times:?})");
    }
}

async fn pair(world: &World) -> (Sandbox, Sandbox) {
    (world.sandbox("bombed").await, world.sandbox("neighbour").await)
}

/// Whether the limits of control groups apply.
fn is_limited(world: &World) -> bool {
    world.run_by == RunBy::Root
}

#[test]
fn a_fork_bomb_stays_in_its_sandbox() {
    as_root(async |world| {
        let (bombed, neighbour) = pair(world).await;
        bombed.start("b() { b | b & }; while :; do b; done").await;
        nobody_notices(&bombed, &neighbour).await;
    });
}

#[test]
fn a_memory_bomb_ends_and_the_sandbox_does_not() {
    as_root(async |world| {
        let (bombed, neighbour) = pair(world).await;
        let kept = bombed.sh("echo kept > ~/kept; echo $$").await;
        assert_eq!(kept.code, Some(0));
        let output =
            bombed.sh("python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 24))'; echo $?").await;
        assert_eq!(output.stdout, "137\n", "{output:?}");
        bombed.start("while :; do python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 24))'; done").await;
        nobody_notices(&bombed, &neighbour).await;
        assert_eq!(bombed.sh("cat ~/kept").await.stdout, "kept\n", "the sandbox was not started again");
    });
}

#[test]
fn files_in_memory_count_as_memory() {
    as_root(async |world| {
        let (bombed, neighbour) = pair(world).await;
        let output = bombed.sh("head -c 20G /dev/zero > /dev/shm/x; echo $?; rm -f /dev/shm/x").await;
        assert_ne!(output.stdout, "0\n", "20 GiB fit into memory");
        nobody_notices(&bombed, &neighbour).await;
    });
}

#[test]
fn open_files_run_out_inside_only() {
    as_each_user(async |world| {
        let (bombed, neighbour) = pair(world).await;
        let script = "python3 -c 'import os, resource, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
files = []
try:
    while True: files.append(os.open(\"/dev/null\", 0))
except OSError as error: print(error.errno, flush=True)
time.sleep(30)'";
        bombed.start(&format!("for i in 1 2; do {script} & done; wait")).await;
        nobody_notices(&bombed, &neighbour).await;
    });
}

#[test]
fn endless_output_and_busy_loops_leave_the_agent_alone() {
    as_each_user(async |world| {
        let (bombed, neighbour) = pair(world).await;
        bombed.start("for i in 1 2 3 4; do (while :; do :; done) & done; yes | cat").await;
        if is_limited(world) {
            nobody_notices(&bombed, &neighbour).await;
        } else {
            // Nothing but niceness keeps an ordinary user's sandboxes apart.
            assert!(bombed.health().await < HEALTHY);
        }
    });
}

/// Measured, so that it can overshoot; and then it is over, with a reason, for whoever asks.
#[test]
fn a_disk_bomb_ends_the_sandbox_that_threw_it() {
    as_each_user(async |world| {
        let neighbour = world.sandbox("neighbour").await;
        let mut request = CreateSandbox::new("bombed");
        let ephemeral_storage = QuantityPair { limit: Some("64Mi".to_owned()), ..QuantityPair::default() };
        request.resources = Some(ResourceRequest { ephemeral_storage, ..ResourceRequest::default() });
        let bombed = world.sandbox_of(request).await;
        bombed.start("for i in $(seq 21); do head -c 16M /dev/zero > ~/f$i; done; sleep 60").await;
        let ended = wait::until("the limit is enforced", Duration::from_secs(60), async || {
            let sandbox = world.get("bombed").await;
            if sandbox.status == "Failed" { Ok(sandbox) } else { Err(format!("{sandbox:?}")) }
        })
        .await;
        assert_eq!(ended.reason.as_deref(), Some("Evicted"), "{ended:?}");
        assert!(ended.disk_used_bytes.is_some_and(|bytes| bytes > 64 << 20), "{ended:?}");
        let told = bombed.post("/v1/bash/exec", &json!({ "command": "true" })).await.unwrap();
        assert!(told["message"].as_str().unwrap().contains("its limit of 64Mi"), "{told}");
        // What it wrote beyond its limit can be read, and does not grow.
        assert_eq!(http::get(&format!("{}/v1/sandbox", bombed.url)).await.unwrap().status, 200);
        assert_eq!(neighbour.sh("echo fine").await.stdout, "fine\n");
    });
}
