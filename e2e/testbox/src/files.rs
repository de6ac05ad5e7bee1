//! Reads and writes files, and says with the errno's name why not.

use std::io::Read;
use std::path::Path;

use axum::Json;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::routes::refuse;

const READ_LIMIT: u64 = 1024 * 1024;
const ENTRY_LIMIT: usize = 1000;

#[derive(Deserialize)]
pub(crate) struct PathQuery {
    path: String,
}

pub(crate) async fn read(Query(PathQuery { path }): Query<PathQuery>) -> Response {
    let answer = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => list(Path::new(&path)),
        Ok(_) => head(Path::new(&path)),
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| refuse_io(&path, &error))
}

pub(crate) async fn write(Query(PathQuery { path }): Query<PathQuery>, body: Bytes) -> Response {
    match std::fs::write(&path, &body) {
        Ok(()) => Json(json!({ "path": path, "bytes": body.len() })).into_response(),
        Err(error) => refuse_io(&path, &error),
    }
}

fn list(path: &Path) -> std::io::Result<Response> {
    let mut entries = Vec::new();
    let mut truncated = false;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entries.len() == ENTRY_LIMIT {
            truncated = true;
            break;
        }
        let metadata = entry.metadata()?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => "directory",
            kind if kind.is_symlink() => "symlink",
            kind if kind.is_file() => "file",
            _ => "other",
        };
        entries.push((entry.file_name().to_string_lossy().into_owned(), kind, metadata.len()));
    }
    entries.sort();
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(name, kind, size)| json!({ "name": name, "kind": kind, "size": size }))
        .collect();
    Ok(Json(json!({ "path": path, "entries": entries, "truncated": truncated })).into_response())
}

fn head(path: &Path) -> std::io::Result<Response> {
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(READ_LIMIT).read_to_end(&mut content)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], content).into_response())
}

/// The errno decides the status: what the sandbox may not do is 403, what does not fit 409.
pub(crate) fn refuse_io(path: &str, error: &std::io::Error) -> Response {
    let (name, status) = match error.raw_os_error() {
        Some(1) => ("EPERM", StatusCode::FORBIDDEN),
        Some(2) => ("ENOENT", StatusCode::NOT_FOUND),
        Some(13) => ("EACCES", StatusCode::FORBIDDEN),
        Some(17) => ("EEXIST", StatusCode::CONFLICT),
        Some(20) => ("ENOTDIR", StatusCode::CONFLICT),
        Some(21) => ("EISDIR", StatusCode::CONFLICT),
        Some(26) => ("ETXTBSY", StatusCode::CONFLICT),
        Some(28) => ("ENOSPC", StatusCode::INTERNAL_SERVER_ERROR),
        Some(30) => ("EROFS", StatusCode::FORBIDDEN),
        Some(40) => ("ELOOP", StatusCode::CONFLICT),
        Some(122) => ("EDQUOT", StatusCode::INTERNAL_SERVER_ERROR),
        _ => ("EIO", StatusCode::INTERNAL_SERVER_ERROR),
    };
    refuse(status, name, &format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_file_system_is_a_403_named_erofs() {
        let answer = refuse_io("/mnt/x", &std::io::Error::from_raw_os_error(30));
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn writing_over_a_directory_is_a_conflict() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap().to_owned();
        let answer = write(Query(PathQuery { path }), Bytes::new()).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
    }
}
