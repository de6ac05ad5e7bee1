//! Copying the agent out of its own image: into the directory from which another image runs it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name it gets there.
const NAME: &str = "stockade-agent";
/// Its name until it is whole.
const PARTIAL: &str = ".stockade-agent.partial";

/// Why the agent is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The program itself cannot be read.
    #[error("cannot read /proc/self/exe, the program that runs; is /proc mounted?")]
    Program(#[source] io::Error),
    /// The directory or the copy cannot be made.
    #[error("cannot write {}; the directory has to be writable for the user of this image", path.display())]
    Write {
        /// Which of them.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Puts this program into `directory`, which is made where it is missing, executable for everybody. There
/// is a whole copy or none, and an older one is replaced.
///
/// # Errors
/// When the program cannot be read or the copy cannot be written.
pub fn install(directory: &Path) -> Result<(), InstallError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        |source| InstallError::Write { path, source }
    };
    let mut program = File::open("/proc/self/exe").map_err(InstallError::Program)?;
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let (partial, whole) = (directory.join(PARTIAL), directory.join(NAME));
    // What a killed run has left may be somebody else's.
    let _ = fs::remove_file(&partial);
    let copy = File::options().write(true).create_new(true).mode(0o755).open(&partial);
    let mut copy = copy.map_err(failed(&partial))?;
    io::copy(&mut program, &mut copy).map_err(failed(&partial))?;
    // Whatever the umask was: who runs it is another image's user.
    copy.set_permissions(fs::Permissions::from_mode(0o755)).map_err(failed(&partial))?;
    drop(copy);
    fs::rename(&partial, &whole).map_err(failed(&whole))
}
