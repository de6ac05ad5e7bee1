//! Limits that were asked for, measured from inside.

use std::time::Duration;

use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest};
use stockade_e2e::wait;

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
