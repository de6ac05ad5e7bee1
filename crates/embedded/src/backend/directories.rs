//! The operator's directories: they have to be there for anything below them to be found without following links.

use std::path::PathBuf;

use stockade_core::layout::UserData;
use stockade_core::path::HostPath;

use super::error::StartError;
use crate::settings::{EmbeddedSettings, MissingViews};

/// Makes those that are not there. One that the operator named may be a mistake, so that is said.
pub(super) fn make(settings: &EmbeddedSettings) -> Result<(), StartError> {
    if let UserData::Threads(threads) = &settings.storage.user_data {
        // Without THREADS_HOST_PATH it lies in the base.
        make_one(settings, "THREADS_HOST_PATH or DEER_FLOW_HOST_BASE_DIR", threads)?;
    }
    make_one(settings, "DEER_FLOW_HOST_BASE_DIR", &settings.storage.base)
}

fn make_one(settings: &EmbeddedSettings, variable: &'static str, path: &HostPath) -> Result<(), StartError> {
    let path = PathBuf::from(path.as_str());
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        return Err(StartError::NotDirectory { path, variable });
    }
    if settings.missing_views == MissingViews::Empty {
        tracing::warn!(path = %path.display(), "{variable} is not there; making it, empty");
    }
    std::fs::create_dir_all(&path).map_err(|source| StartError::Directory { path, variable, source })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::settings::tests::mk_settings;

    fn mk_path(path: &Path) -> HostPath {
        HostPath::new(path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn the_directory_of_threads_is_made_as_the_base_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = mk_settings(&directory.path().join("state"));
        let threads = directory.path().join("elsewhere/threads");
        settings.storage.user_data = UserData::Threads(mk_path(&threads));
        make(&settings).unwrap();
        assert!(threads.is_dir() && Path::new(settings.storage.base.as_str()).is_dir());
        make(&settings).unwrap();
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_named_with_its_variable() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut settings = mk_settings(directory.path());
        settings.storage.base = mk_path(&file);
        let error = make(&settings).unwrap_err().to_string();
        assert!(error.contains("is no directory (DEER_FLOW_HOST_BASE_DIR)"), "{error}");
        settings.storage.base = mk_path(&file.join("below"));
        let error = make(&settings).unwrap_err().to_string();
        assert!(error.contains("cannot be made (DEER_FLOW_HOST_BASE_DIR)"), "{error}");
    }
}
