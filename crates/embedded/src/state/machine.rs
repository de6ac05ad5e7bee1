//! Who we are: an id that stays, whatever is restarted.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StateError, file};

/// The identity of one state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    version: u64,
    id: String,
}

/// The format of the file.
const VERSION: u64 = 1;

impl Machine {
    /// Reads it, or makes it.
    pub(super) fn load(root: &Path) -> Result<Self, StateError> {
        let path = root.join("machine.json");
        let Some(bytes) = file::read(&path)? else {
            let machine = Self { version: VERSION, id: Uuid::new_v4().to_string() };
            let failed = |source| StateError::Record { path: path.clone(), source };
            file::replace(&path, &serde_json::to_vec(&machine).map_err(failed)?)?;
            return Ok(machine);
        };
        super::record::check_version(&path, &bytes, VERSION)?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::Record { path, source })
    }

    /// A stable id of this place: another one means another world.
    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The beginning of it, short enough for the names of kernel objects (15 bytes for an interface).
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.id.get(..8).unwrap_or(&self.id)
    }
}
