//! The suite of the public SDK against sandboxes in Pods.

use std::path::Path;
use std::time::Duration;

use stockade_api::CreateSandbox;
use stockade_e2e::world::scenario_within;
use tokio::process::Command;

use super::{SANDBOX_IMAGE, context};

/// Pods, and as many workers.
const AT_ONCE: usize = 4;
/// Four times of what it takes on two cores.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// What pytest ends with when no test was chosen.
const NOTHING_CHOSEN: i32 = 5;

#[test]
fn the_suite_of_the_sdk_passes_in_pods() {
    scenario_within(LIMIT, async |world| {
        let suite = world.run.sdk.clone().expect("STOCKADE_E2E_SDK_PYTHON is set");
        let server = world.server_with(&[("SANDBOX_IMAGE", SANDBOX_IMAGE)]).await;
        let client = server.client();
        let mut urls = Vec::new();
        for number in 0..AT_ONCE {
            let sandbox = client.create(&CreateSandbox::new(format!("sdk-{number}"))).await.unwrap();
            urls.push(sandbox.sandbox_url.into_owned());
        }
        for url in &urls {
            let said = context(url).await;
            assert_eq!(said["home_dir"], "/home/gem");
            assert_eq!(said["detail"]["system"]["user"], "gem");
        }

        let workers = AT_ONCE.to_string();
        let mut pytest = Command::new(&suite.python);
        pytest
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk"))
            .args(["-m", "pytest", "-p", "no:cacheprovider", "--color", "no", "--dist", "worksteal"])
            .args(["--numprocesses", &workers])
            .env("STOCKADE_SANDBOX_URL", urls.join(" "))
            .env("STOCKADE_SANDBOX_PORT", "8080")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .kill_on_drop(true);
        // The image has no ipykernel; those tests run where the agent is a plain process.
        let chosen = suite.filter.as_ref();
        let chosen =
            chosen.map_or("not ipykernel".to_owned(), |filter| format!("({filter}) and not ipykernel"));
        pytest.args(["-k", &chosen]);
        let code = pytest.status().await.expect("pytest runs").code();
        let nothing_to_do = suite.filter.is_some() && code == Some(NOTHING_CHOSEN);
        assert!(code == Some(0) || nothing_to_do, "the suite ended with {code:?}; what failed is above");
    });
}
