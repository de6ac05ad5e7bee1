//! `GET /v1/file/download`: a file of any size as a stream, in constant memory.

use std::fs::File;
use std::io::Read;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::ToSchema;

use super::paths::Target;
use crate::app::App;
use crate::http::{ApiError, QueryOf};

/// Bytes read at once. Two of them exist for one download.
const CHUNK: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ChangePolicy {
    #[default]
    Ignore,
    Abort,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct DownloadQuery {
    /// The file's path.
    path: String,
    /// What a change of the file while it is sent is: nothing, or the end of the connection.
    #[serde(default)]
    #[schema(default = "ignore")]
    change_policy: ChangePolicy,
}

/// A file being sent.
struct Sending {
    file: File,
    left: u64,
    before: Option<Version>,
}

/// What changes when a file is written.
#[derive(PartialEq, Eq)]
struct Version {
    size: u64,
    modified: Option<std::time::SystemTime>,
}

fn version(file: &File) -> std::io::Result<Version> {
    let metadata = file.metadata()?;
    Ok(Version { size: metadata.len(), modified: metadata.modified().ok() })
}

pub(crate) async fn download(
    State(app): State<App>,
    QueryOf(query): QueryOf<DownloadQuery>,
) -> Result<Response, ApiError> {
    let DownloadQuery { path, change_policy } = query;
    let home = app.home();
    let opened = app.pool().run(move || {
        let target = Target::parse("download", &path, &home)?;
        let file = target.open()?;
        let version = version(&file).map_err(|error| target.failed(&error))?;
        Ok((target, file, version))
    });
    let (target, file, version) = opened.await?.map_err(|failure: super::Failure| {
        // The bytes of a 200 would be taken for the file.
        ApiError::new(failure.http_status(), failure.message())
    })?;
    let size = version.size;
    let before = (change_policy == ChangePolicy::Abort).then_some(version);
    let pool = app.pool().clone();
    let first = Some(Sending { file, left: size, before });
    let chunks = stream::try_unfold(first, move |sending| {
        let pool = pool.clone();
        async move {
            let Some(sending) = sending.filter(|sending| sending.left > 0) else { return Ok(None) };
            let read = pool.run(move || next_chunk(sending)).await;
            let (chunk, rest) = read.map_err(|error| std::io::Error::other(error.message().to_owned()))??;
            Ok::<_, std::io::Error>(Some((chunk, Some(rest))))
        }
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    // Sniffing could turn a downloaded file into a page of this origin.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(disposition) = HeaderValue::from_str(&disposition(&target)) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// The next bytes. A file that became shorter, or changed although it must not, ends the connection:
/// the length announced cannot be taken back.
fn next_chunk(mut sending: Sending) -> std::io::Result<(Bytes, Sending)> {
    let wanted = usize::try_from(sending.left).unwrap_or(CHUNK).min(CHUNK);
    let mut chunk = Vec::with_capacity(wanted);
    let read = Read::by_ref(&mut sending.file).take(wanted as u64).read_to_end(&mut chunk)?;
    if read == 0 {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file became shorter"));
    }
    sending.left -= read as u64;
    if let Some(before) = &sending.before
        && *before != version(&sending.file)?
    {
        return Err(std::io::Error::other("the file changed while it was sent"));
    }
    Ok((Bytes::from(chunk), sending))
}

/// The file's name, in the form for any characters (RFC 6266).
fn disposition(target: &Target) -> String {
    let name = target.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let encoded: Vec<String> = name
        .bytes()
        .map(|byte| {
            let plain = byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
            if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        })
        .collect();
    format!("attachment; filename*=UTF-8''{}", encoded.concat())
}
