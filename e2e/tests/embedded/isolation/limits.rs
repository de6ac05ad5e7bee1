//! Limits that were asked for, measured from inside.

use std::time::Duration;

use serde_json::{Value, json};
use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest};
use stockade_e2e::{http, wait};

use crate::sandbox::Sandbox;
use crate::world::{World, as_each_user, as_root};

fn at_most(quantity: &str) -> QuantityPair {
    QuantityPair { limit: Some(quantity.to_owned()), ..QuantityPair::default() }
}

fn limited(id: &str, resources: ResourceRequest) -> CreateSandbox {
    CreateSandbox { resources: Some(resources), ..CreateSandbox::new(id) }
}

/// Four busy loops for two seconds get the time of half a processor: a little less, because the agent keeps its part.
#[test]
fn processor_time_is_what_was_asked_for() {
    as_root(async |world| {
        let sandbox = world
            .sandbox_of(limited("cpu", ResourceRequest { cpu: at_most("500m"), ..Default::default() }))
            .await;
        let script = "echo $EPOCHREALTIME; for i in 1 2 3 4; do timeout 2 bash -c 'while :; do :; done' & done; wait; \
                      times > ~/times; tail -1 ~/times; echo $EPOCHREALTIME";
        let output = sandbox.sh(script).await;
        let lines: Vec<&str> = output.stdout.lines().collect();
        let [began, times, ended] = lines[..] else { panic!("{output:?}") };
        // The loops end late where the machine is busy.
        let took = ended.parse::<f64>().unwrap() - began.parse::<f64>().unwrap();
        // `times` prints minutes and seconds of user and of system time: 0m0.950s 0m0.010s
        let seconds = |text: &str| {
            let (minutes, seconds) = text.trim_end_matches('s').split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        };
        let used: f64 = times.split_whitespace().filter_map(seconds).sum();
        assert!(used > 0.3 && used < 0.5 * took + 0.3, "{used} s of processor time in {took} s: {output:?}");
    });
}

#[test]
fn memory_is_what_was_asked_for() {
    as_root(async |world| {
        let sandbox = world
            .sandbox_of(limited("memory", ResourceRequest { memory: at_most("256Mi"), ..Default::default() }))
            .await;
        let fits = "python3 -c 'x = bytearray(100 << 20); print(len(x) >> 20)'";
        assert_eq!(sandbox.sh(fits).await.stdout, "100\n");
        let beyond = sandbox.sh("python3 -c 'x = bytearray(400 << 20); print(len(x) >> 20)'").await;
        assert_eq!(beyond.stdout, "", "{beyond:?}");
        assert_eq!(sandbox.sh(fits).await.stdout, "100\n");
    });
}

/// What takes more memory than it may, as a command of bash.
const HOG: &str = "python3 -c 'x = bytearray(400 << 20)'";
const REACHED: &str = "the sandbox's memory limit of 256Mi was reached";

/// The message and the hint of an answer, and all of it for who has to look at it.
async fn said(sandbox: &Sandbox, path: &str, body: Value) -> (String, String, Value) {
    let answer = sandbox.post(path, &body).await.expect("an answer of the agent");
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (text("message"), text("hint"), answer)
}

async fn is_killed(sandbox: &Sandbox, path: &str, body: Value) {
    let (message, hint, answer) = said(sandbox, path, body).await;
    let expect = format!("killed: {REACHED}");
    assert!(message == expect && hint.starts_with(&expect), "{path}: {answer}");
    assert_eq!(answer["data"]["exit_code"], 137, "{path}: {answer}");
}

async fn has_lost_one(sandbox: &Sandbox, path: &str, body: Value) {
    let (_, hint, answer) = said(sandbox, path, body).await;
    assert!(hint.contains("killed") && hint.contains(REACHED), "{path}: {answer}");
}

#[test]
fn commands_that_are_killed_for_memory_say_so() {
    as_root(async |world| {
        let memory = ResourceRequest { memory: at_most("256Mi"), ..Default::default() };
        let sandbox = world.sandbox_of(limited("killed", memory)).await;
        for command in
            [HOG.to_owned(), format!("bash -c \"{HOG}\""), format!("true; {HOG}"), format!("({HOG})")]
        {
            is_killed(&sandbox, "/v1/bash/exec", json!({ "command": command })).await;
            is_killed(&sandbox, "/v1/shell/exec", json!({ "command": command })).await;
        }
        for command in [format!("{HOG} | cat"), format!("{HOG}; true"), format!("{HOG} & wait; echo over")] {
            has_lost_one(&sandbox, "/v1/bash/exec", json!({ "command": command })).await;
            has_lost_one(&sandbox, "/v1/shell/exec", json!({ "command": command })).await;
        }
        // Without waiting, and asked for afterwards.
        sandbox.post("/v1/shell/sessions/create", &json!({ "id": "later" })).await.expect("a session");
        let order = json!({ "id": "later", "command": HOG, "async_mode": true });
        sandbox.post("/v1/shell/exec", &order).await.expect("an answer");
        has_lost_one(&sandbox, "/v1/shell/wait", json!({ "id": "later", "max_wait_seconds": 20 })).await;
        has_lost_one(&sandbox, "/v1/shell/view", json!({ "id": "later" })).await;
        sandbox.post("/v1/bash/sessions/create", &json!({ "session_id": "later" })).await.expect("a session");
        let order = json!({ "session_id": "later", "command": HOG, "async_mode": true });
        sandbox.post("/v1/bash/exec", &order).await.expect("an answer");
        let ask = json!({ "session_id": "later", "wait_for_end": true, "wait_timeout": 20 });
        has_lost_one(&sandbox, "/v1/bash/output", ask).await;
        // What somebody else has killed, or gave up by itself, was not killed for memory.
        for command in ["kill -9 $$", "exit 137", "ulimit -v 200000; python3 -c 'bytearray(400 << 20)'"] {
            let (message, hint, answer) =
                said(&sandbox, "/v1/bash/exec", json!({ "command": command })).await;
            assert!(!message.contains("memory") && !hint.contains("memory"), "{command}: {answer}");
        }
        let stats = http::get(&format!("{}/v1/shell/sessions/stats", sandbox.url)).await.unwrap().json();
        assert!(stats["data"]["killed_for_memory"].as_u64().is_some_and(|count| count >= 10), "{stats}");
        let shown = sandbox
            .sh("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null")
            .await;
        assert_eq!(shown.stdout, "268435456\n", "{shown:?}");
    });
}

#[test]
fn code_that_is_killed_for_memory_says_so() {
    as_root(async |world| {
        let memory = ResourceRequest { memory: at_most("256Mi"), ..Default::default() };
        let sandbox = world.sandbox_of(limited("killed-code", memory)).await;
        let python = "print('before'); x = bytearray(400 << 20)";
        let node = "console.log('before'); const kept = []; for (;;) kept.push(Buffer.alloc(10 << 20, 1));";
        for (path, body) in [
            ("/v1/code/execute", json!({ "language": "python", "code": python })),
            ("/v1/code/execute", json!({ "language": "python", "code": python, "session_id": "py" })),
            ("/v1/code/execute", json!({ "language": "javascript", "code": node })),
            ("/v1/jupyter/execute", json!({ "code": python })),
            ("/v1/nodejs/execute", json!({ "code": node })),
            ("/v1/nodejs/execute", json!({ "code": node, "session_id": "node" })),
        ] {
            let (_, hint, answer) = said(&sandbox, path, body).await;
            assert_eq!(hint, format!("killed: {REACHED}"), "{path}: {answer}");
            assert!(answer.to_string().contains("before"), "what it printed is kept: {answer}");
        }
        let below = format!("import subprocess; print(subprocess.run({HOG:?}, shell=True).returncode)");
        has_lost_one(&sandbox, "/v1/code/execute", json!({ "language": "python", "code": below })).await;
        // The session begins anew, and is not told of what was before.
        let body = json!({ "language": "python", "code": "1", "session_id": "py" });
        let (_, hint, answer) = said(&sandbox, "/v1/code/execute", body).await;
        assert!(hint.is_empty() && answer["data"]["status"] == "ok", "{answer}");
    });
}

/// Waits until a sandbox is stopped for what its files take.
async fn is_evicted(world: &World, id: &str) {
    wait::until("the limit of files is enforced", Duration::from_secs(60), async || {
        let sandbox = world.get(id).await;
        match sandbox.reason.as_deref() {
            Some("Evicted") => Ok(()),
            _ => Err(format!("{sandbox:?}")),
        }
    })
    .await;
}

fn with_storage(id: &str) -> CreateSandbox {
    limited(id, ResourceRequest { ephemeral_storage: at_most("32Mi"), ..Default::default() })
}

/// 100 MiB, of which nothing has a name.
const UNNAMED: &str = "import os, time
file = os.open('/tmp/x', os.O_RDWR | os.O_CREAT); os.unlink('/tmp/x')
for _ in range(100): os.write(file, b'x' * (1 << 20))
";

#[test]
fn files_without_a_name_count() {
    as_each_user(async |world| {
        let sandbox = world.sandbox_of(with_storage("unnamed")).await;
        sandbox.start(&format!("exec python3 -c \"{UNNAMED}time.sleep(1000)\"")).await;
        is_evicted(world, &sandbox.id).await;
    });
}

#[test]
fn files_that_are_only_mapped_count() {
    as_root(async |world| {
        let sandbox = world.sandbox_of(with_storage("mapped")).await;
        let script = format!(
            "{UNNAMED}import mmap
map = mmap.mmap(file, 100 << 20); held = os.dup(file)
os.close(file); os.close(held)
time.sleep(1000)"
        );
        sandbox.start(&format!("exec python3 -c \"{script}\"")).await;
        is_evicted(world, &sandbox.id).await;
    });
}

#[test]
fn files_at_any_depth_count() {
    as_root(async |world| {
        let sandbox = world.sandbox_of(with_storage("deep")).await;
        let script = "import os
os.chdir('/tmp')
for _ in range(200): os.mkdir('d'); os.chdir('d')
open('x', 'wb').write(b'x' * (100 << 20))";
        sandbox.start(&format!("python3 -c \"{script}\"")).await;
        is_evicted(world, &sandbox.id).await;
    });
}

#[test]
fn empty_files_count() {
    as_root(async |world| {
        let sandbox = world.sandbox_of(with_storage("many")).await;
        let script = "for d in range(20):
    os.mkdir('/tmp/%d' % d)
    for n in range(1000): os.close(os.open('/tmp/%d/%d' % (d, n), os.O_CREAT | os.O_WRONLY))";
        sandbox.start(&format!("python3 -c \"import os\n{script}\"")).await;
        is_evicted(world, &sandbox.id).await;
    });
}
