//! The state directory: where everything lies that outlives the server.

use std::path::{Path, PathBuf};

use stockade_core::path::HostPath;

use super::embedded::absolute_path;
use super::reader::{Lookup, Reader};

/// The variable that names the directory.
pub(crate) const VARIABLE: &str = "STOCKADE_STATE_DIR";
/// Root's.
const ROOTS: &str = "/var/lib/stockade";

/// The directory as said on the command line, by the variable, or as is usual; the error says what to set.
///
/// # Errors
/// When an ordinary user's environment does not say where its home is, or the variable names no absolute path.
pub(crate) fn state_dir(
    argument: Option<PathBuf>,
    variable: Lookup<'_>,
    is_root: bool,
) -> Result<PathBuf, String> {
    let text = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(argument) = argument {
        return Ok(argument);
    }
    if let Some(value) = text(VARIABLE) {
        let path = PathBuf::from(value);
        let error = || format!("{VARIABLE} is {path:?}: must be an absolute path");
        return if path.is_absolute() { Ok(path) } else { Err(error()) };
    }
    if is_root {
        return Ok(PathBuf::from(ROOTS));
    }
    // What is not absolute there counts as unset, says the specification of these variables.
    let absolute = |name: &str| text(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = absolute("XDG_STATE_HOME") {
        return Ok(state.join("stockade"));
    }
    let home = absolute("HOME")
        .ok_or_else(|| format!("HOME is not set: say where to keep state with --state-dir or {VARIABLE}"))?;
    Ok(home.join(".local/state/stockade"))
}

/// The directory, for a server.
pub(super) fn read(reader: &mut Reader<'_>, argument: Option<PathBuf>) -> PathBuf {
    let variable = reader.parse(VARIABLE, absolute_path);
    if argument.is_none() && variable.is_none() && reader.is_set(VARIABLE) {
        // Wrong, and named already.
        return PathBuf::new();
    }
    let said = argument.or(variable);
    let is_root = reader.is_root();
    let found = state_dir(said, reader.lookup(), is_root);
    found.unwrap_or_else(|expected| {
        reader.problem(VARIABLE, "", expected);
        PathBuf::new()
    })
}

/// The base directory of all files when none is configured: below the state directory.
pub(super) fn own_base(reader: &mut Reader<'_>, state_dir: &Path) -> Option<HostPath> {
    if state_dir.as_os_str().is_empty() {
        return None;
    }
    let base = state_dir.join("data");
    let shown = base.display().to_string();
    match base
        .to_str()
        .ok_or("it is not UTF-8".to_owned())
        .and_then(|text| HostPath::new(text).map_err(|error| error.to_string()))
    {
        Ok(base) => Some(base),
        Err(error) => {
            reader.problem(VARIABLE, &shown, format!("cannot hold the data of sandboxes: {error}"));
            None
        }
    }
}
