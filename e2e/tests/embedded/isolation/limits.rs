//! Limits that were asked for, measured from inside.

use stockade_api::{CreateSandbox, QuantityPair, ResourceRequest};

use crate::world::as_root;

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
        let script = "for i in 1 2 3 4; do timeout 2 bash -c 'while :; do :; done' & done; wait; times > ~/times; tail -1 ~/times";
        let output = sandbox.sh(script).await;
        // `times` prints minutes and seconds of user and of system time: 0m0.950s 0m0.010s
        let seconds = |text: &str| {
            let (minutes, seconds) = text.trim_end_matches('s').split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        };
        let used: f64 = output.stdout.split_whitespace().filter_map(seconds).sum();
        assert!(used > 0.3 && used < 1.3, "{used} s of processor time in 2 s: {output:?}");
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
