//! What one command leaves for the next: which processes, which addresses.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::components::Component;
use super::layout::{Layout, write_private};
use super::namespace::Holder;
use super::network::Pair;
use super::processes::Identity;

/// The content of `cluster.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Without scheduler, node, proxy and DNS.
    pub control_plane_only: bool,
    /// The process that holds the namespaces.
    pub holder: Holder,
    /// The cable's two ends.
    pub pair: Pair,
    /// Started components. One that was stopped on purpose is not in it.
    pub components: BTreeMap<Component, Identity>,
    /// Whether `up` came to its end once.
    pub complete: bool,
    /// The identity of the network namespace, `net:[NUMBER]`: finds what outlives the holder in it.
    pub network_namespace: PathBuf,
}

impl Record {
    /// The record of a cluster, `None` when there is none.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.record();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        // From another version of this program: nothing in it can be trusted, and the holder is
        // found without it.
        Ok(serde_json::from_str(&text).ok())
    }

    /// Writes it, at once or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        write_private(&layout.record(), format!("{}\n", serde_json::to_string_pretty(self)?))
    }

    /// The process of a component, if it runs.
    #[must_use]
    pub fn running(&self, component: Component) -> Option<&Identity> {
        self.components.get(&component).filter(|identity| identity.is_alive())
    }
}
