//! What the process it runs in is: its variables, its user, its files.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;

use crate::settings::Surroundings;

/// The most bytes of a file that a setting names.
const MAX_FILE: u64 = 1024 * 1024;

/// What settings are read from, outside of tests.
pub(crate) fn surroundings() -> Surroundings<'static> {
    Surroundings { variable: &variable, read_file: &read_file, is_root: is_root() }
}

/// One variable of this process.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How this program was called, to be repeated in advice.
pub(crate) fn own_name() -> String {
    let called = std::env::args().next().unwrap_or_default();
    // Found by name: the name does again.
    if called.contains('/') { called } else { "stockade".to_owned() }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(text)
}
