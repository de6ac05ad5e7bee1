//! Where things lie: the repository, the clusters' states, the cache of built programs.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// The root of the repository that this xtask was built from.
#[must_use]
pub fn repository() -> PathBuf {
    // Set by `cargo run`; a binary that was copied elsewhere falls back to where it was compiled.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let from_manifest = manifest.parent().map(std::path::Path::to_path_buf).unwrap_or(manifest);
    if from_manifest.join("e2e/cluster/go.mod").is_file() {
        return from_manifest;
    }
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The directory that holds one directory for each cluster: `$STOCKADE_CLUSTER_DIR`, else
/// `.stockade/cluster` in the repository.
///
/// # Errors
/// When a relative `$STOCKADE_CLUSTER_DIR` cannot be made absolute.
pub fn clusters() -> Result<PathBuf> {
    let directory = match non_empty("STOCKADE_CLUSTER_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => repository().join(".stockade/cluster"),
    };
    std::path::absolute(&directory)
        .with_context(|| format!("cannot make {} an absolute path", directory.display()))
}

/// The cache of built programs: `$STOCKADE_KUBERNETES_CACHE`, else `stockade/kubernetes` under
/// `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// When none of the variables nor `$HOME` is set.
pub fn kubernetes_cache() -> Result<PathBuf> {
    if let Some(directory) = non_empty("STOCKADE_KUBERNETES_CACHE") {
        return Ok(PathBuf::from(directory));
    }
    Ok(cache("STOCKADE_KUBERNETES_CACHE")?.join("kubernetes"))
}

/// The cache of tools that are built from source: `stockade/tools` under `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// When neither `$XDG_CACHE_HOME` nor `$HOME` is set.
pub fn tools_cache() -> Result<PathBuf> {
    Ok(cache("XDG_CACHE_HOME")?.join("tools"))
}

/// The cache of what images are made from: `stockade/images` under `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// As [`tools_cache`].
pub fn images_cache() -> Result<PathBuf> {
    Ok(cache("XDG_CACHE_HOME")?.join("images"))
}

/// The cache of virtual machines: `stockade/machines` under `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// As [`tools_cache`].
pub fn machines_cache() -> Result<PathBuf> {
    Ok(cache("XDG_CACHE_HOME")?.join("machines"))
}

fn cache(remedy: &str) -> Result<PathBuf> {
    let base = match non_empty("XDG_CACHE_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let home = non_empty("HOME").with_context(|| {
                format!("neither HOME nor XDG_CACHE_HOME is set; set {remedy} to a directory")
            })?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(base.join("stockade"))
}

fn non_empty(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}
