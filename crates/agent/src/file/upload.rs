//! `POST /v1/file/upload`: a multipart form with the path before the file, written as it arrives.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use multer::{Field, Multipart, SizeLimit};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::content::open_for_writing;
use super::paths::Target;
use crate::app::App;
use crate::http::{ApiError, form, ok};
use crate::pool::Running;

/// Bytes gathered before they are written.
const CHUNK: usize = 256 * 1024;
const PATH_BYTES: u64 = 16 * 1024;
/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the rest of an upload that failed is read.
const REFUSED: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
pub(crate) struct UploadResult {
    file_path: String,
    file_size: u64,
    success: bool,
}

/// The form, as the description of the API has it.
pub(crate) fn form_schema() -> Value {
    json!({
        "type": "object", "required": ["file"],
        "properties": {
            "path": {
                "type": "string",
                "description": "Where it goes, sent before the file: a path, or a directory. The home directory unless given.",
            },
            "file": { "type": "string", "contentMediaType": "application/octet-stream", "description": "The file." },
        },
    })
}

pub(crate) async fn upload(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let limits = SizeLimit::new().for_field("path", PATH_BYTES);
    let mut form = form(request, limits)?;
    let stored = store(&app, &mut form).await;
    if stored.is_err() {
        // A client that is still sending when the connection closes may lose the answer.
        let rest = async { while let Ok(Some(_)) = form.next_field().await {} };
        let _ = tokio::time::timeout(REFUSED, rest).await;
    }
    stored
}

async fn store(app: &App, form: &mut Multipart<'static>) -> Result<Response, ApiError> {
    let mut asked = None;
    while let Some(field) = within(form.next_field()).await? {
        match field.name() {
            Some("path") => asked = Some(within(field.text()).await?),
            Some("file") => {
                let home = app.home();
                let path = destination(asked.as_deref(), field.file_name(), &home);
                let target = Target::parse("write", &path, &home)?;
                let size = receive(app, field, &target).await?;
                let result = UploadResult { file_path: target.text, file_size: size, success: true };
                return Ok(ok("File uploaded", result));
            }
            _ => {}
        }
    }
    Err(ApiError::unprocessable("file", "the form has no part named file", "missing"))
}

/// Waits for the client, but not for one that has gone silent.
async fn within<T>(next: impl Future<Output = multer::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(SILENCE, next).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the upload cannot be read: {error}"))),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the upload sent nothing for {} s", SILENCE.as_secs()),
        )),
    }
}

/// Where the file goes: the path asked for; below it when that is a directory; else the home directory.
pub(crate) fn destination(asked: Option<&str>, file_name: Option<&str>, home: &Path) -> String {
    let name = file_name.and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    let name = if name.is_empty() { "upload".into() } else { name.to_string_lossy() };
    match asked.filter(|asked| !asked.is_empty()) {
        None => home.join(name.as_ref()).to_string_lossy().into_owned(),
        Some(asked) if asked.ends_with('/') || (!asked.contains('\0') && home.join(asked).is_dir()) => {
            PathBuf::from(asked).join(name.as_ref()).to_string_lossy().into_owned()
        }
        Some(asked) => asked.to_owned(),
    }
}

async fn receive(app: &App, mut field: Field<'_>, target: &Target) -> Result<u64, ApiError> {
    let opening = target.clone();
    let (file, existed) = app
        .pool()
        .run(move || {
            let existed = opening.path.exists();
            open_for_writing(&opening, false).map(|file| (file, existed))
        })
        .await??;
    let received = write_all(app, &mut field, file, target).await;
    if received.is_err() {
        discard(app, target, existed).await;
    }
    received
}

/// Writes what arrives. While one chunk is written the next is received, and no more than that.
async fn write_all(app: &App, field: &mut Field<'_>, file: File, target: &Target) -> Result<u64, ApiError> {
    let mut size = 0;
    let mut writing = app.pool().begin(move || Ok(file))?;
    loop {
        let (chunk, length, last) = gather(field).await?;
        let mut file = written(writing, target).await?;
        size += length;
        writing = app
            .pool()
            .begin(move || chunk.iter().try_for_each(|part| file.write_all(part)).map(|()| file))?;
        if last {
            written(writing, target).await?;
            return Ok(size);
        }
    }
}

/// The next bytes of the form, in the pieces in which they came; how many; and whether they are the last.
async fn gather(field: &mut Field<'_>) -> Result<(Vec<Bytes>, u64, bool), ApiError> {
    let (mut pieces, mut length) = (Vec::new(), 0);
    while length < CHUNK {
        match within(field.chunk()).await? {
            Some(piece) => {
                length += piece.len();
                pieces.push(piece);
            }
            None => return Ok((pieces, length as u64, true)),
        }
    }
    Ok((pieces, length as u64, false))
}

async fn written(writing: Running<std::io::Result<File>>, target: &Target) -> Result<File, ApiError> {
    writing.end().await?.map_err(|error| target.failed(&error).into())
}

/// A new file that did not arrive whole is not left behind.
async fn discard(app: &App, target: &Target, existed: bool) {
    if !existed {
        let path = target.path.clone();
        let _ = app.pool().run(move || std::fs::remove_file(path)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_follows_the_path_and_the_name() {
        let home = Path::new("/tmp");
        for (asked, name, expect) in [
            (Some("/srv/a.txt"), Some("b.txt"), "/srv/a.txt"),
            (Some("/srv/new/"), Some("b.txt"), "/srv/new/b.txt"),
            (Some("/tmp"), Some("b.txt"), "/tmp/b.txt"),
            (None, Some("../../etc/passwd"), "/tmp/passwd"),
            (None, None, "/tmp/upload"),
            (Some(""), Some("x"), "/tmp/x"),
        ] {
            assert_eq!(destination(asked, name, home), expect);
        }
    }
}
