//! What a test run is told by its environment.

use std::path::PathBuf;

/// Where everything is. `cargo xtask test` sets all of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// `STOCKADE_BIN`: the server under test.
    pub binary: PathBuf,
    /// `KUBECONFIG`: an administrator's.
    pub kubeconfig: PathBuf,
    /// `STOCKADE_E2E_NODE_HOST`: where NodePorts answer [default: a node's internal address].
    pub node_host: Option<String>,
    /// `STOCKADE_E2E_IMAGE`: the test sandbox, present on every node.
    pub image: String,
    /// `STOCKADE_E2E_HOST_DIR`: a directory that this machine and the node see at the same path
    /// [default: the directory for temporary files].
    pub host_dir: PathBuf,
    /// `STOCKADE_E2E_LOGS`: where servers' logs are kept.
    pub logs: PathBuf,
    /// `STOCKADE_XTASK` and `STOCKADE_E2E_CLUSTER`: what breaks the project's own cluster, and its name.
    pub faults: Option<(PathBuf, String)>,
    /// The suite of the SDK, where the stage provides what it needs.
    pub sdk: Option<SdkSuite>,
}

/// How to run the suite of the SDK.
#[derive(Debug, Clone)]
pub struct SdkSuite {
    /// `STOCKADE_E2E_SDK_PYTHON`: an interpreter with its packages.
    pub python: PathBuf,
    /// `STOCKADE_E2E_SDK_FILTER`: which of its tests [default: all].
    pub filter: Option<String>,
}

impl Run {
    /// Reads the environment.
    ///
    /// # Panics
    /// When something without a default is missing.
    #[must_use]
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let needed = |name: &str| {
            variable(name)
                .unwrap_or_else(|| panic!("{name} is not set; run these tests by `cargo xtask test`"))
        };
        let xtask = variable("STOCKADE_XTASK").map(PathBuf::from);
        Self {
            binary: PathBuf::from(needed("STOCKADE_BIN")),
            kubeconfig: PathBuf::from(needed("KUBECONFIG")),
            node_host: variable("STOCKADE_E2E_NODE_HOST"),
            image: variable("STOCKADE_E2E_IMAGE").unwrap_or_else(|| "stockade.local/testbox:dev".to_owned()),
            host_dir: variable("STOCKADE_E2E_HOST_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
            logs: variable("STOCKADE_E2E_LOGS")
                .map_or_else(|| std::env::temp_dir().join("stockade-e2e"), PathBuf::from),
            sdk: variable("STOCKADE_E2E_SDK_PYTHON").map(|python| SdkSuite {
                python: PathBuf::from(python),
                filter: variable("STOCKADE_E2E_SDK_FILTER"),
            }),
            faults: xtask.zip(variable("STOCKADE_E2E_CLUSTER")),
        }
    }
}
