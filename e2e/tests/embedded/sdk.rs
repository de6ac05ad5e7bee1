//! The suite of the public SDK in sandboxes of this machine.

use std::path::Path;

use tokio::process::Command;

use crate::world::as_each_user;

/// Sandboxes, and as many workers.
const AT_ONCE: usize = 4;

#[test]
fn the_suite_of_the_sdk_passes() {
    let python = std::env::var_os("STOCKADE_E2E_SDK_PYTHON").expect("STOCKADE_E2E_SDK_PYTHON is set");
    as_each_user(async |world| {
        let mut urls = Vec::new();
        for number in 0..AT_ONCE {
            urls.push(world.sandbox(&format!("sdk-{number}")).await.url);
        }
        let workers = AT_ONCE.to_string();
        let output = Command::new(&python)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk"))
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--color", "no", "--dist", "worksteal"])
            // The machine's Python need not have ipykernel; those tests run where the agent is a plain process.
            .args(["--numprocesses", &workers, "-k", "not ipykernel"])
            .env("STOCKADE_SANDBOX_URL", urls.join(" "))
            .env("STOCKADE_SANDBOX_PORT", "8080")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .kill_on_drop(true)
            .output()
            .await
            .expect("pytest runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "the suite ended with {}:\n{said}", output.status);
    });
}
