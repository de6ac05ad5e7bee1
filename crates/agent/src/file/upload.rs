//! `POST /v1/file/upload`: a multipart form with the path before the file, written as it arrives.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use multer::{Field, SizeLimit};
use serde::Serialize;

use super::content::open_for_writing;
use super::paths::Target;
use crate::app::App;
use crate::http::{ApiError, form, ok};

/// Bytes gathered before they are written.
const CHUNK: usize = 256 * 1024;
const PATH_BYTES: u64 = 16 * 1024;
/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct UploadResult {
    file_path: String,
    file_size: u64,
    success: bool,
}

pub(crate) async fn upload(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let limits = SizeLimit::new().for_field("path", PATH_BYTES);
    let mut form = form(request, limits)?;
    let mut asked = None;
    while let Some(field) = within(form.next_field()).await? {
        match field.name() {
            Some("path") => asked = Some(within(field.text()).await?),
            Some("file") => {
                let home = app.home();
                let path = destination(asked.as_deref(), field.file_name(), &home);
                let target = Target::parse("write", &path, &home)?;
                let size = receive(&app, field, &target).await?;
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
fn destination(asked: Option<&str>, file_name: Option<&str>, home: &Path) -> String {
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
    let (mut file, existed) = app
        .pool()
        .run(move || {
            let existed = opening.path.exists();
            open_for_writing(&opening, false).map(|file| (file, existed))
        })
        .await??;
    let mut size = 0;
    let mut gathered = BytesMut::with_capacity(CHUNK);
    loop {
        let chunk = within(field.chunk()).await;
        let (chunk, last) = match chunk {
            Ok(Some(chunk)) => (chunk, false),
            Ok(None) => (Bytes::new(), true),
            Err(error) => {
                discard(app, target, existed).await;
                return Err(error);
            }
        };
        gathered.extend_from_slice(&chunk);
        if gathered.len() < CHUNK && !last {
            continue;
        }
        size += gathered.len() as u64;
        let full = std::mem::replace(&mut gathered, BytesMut::with_capacity(if last { 0 } else { CHUNK }));
        match append(app, file, full.freeze(), target).await {
            Ok(_) if last => return Ok(size),
            Ok(back) => file = back,
            Err(error) => {
                discard(app, target, existed).await;
                return Err(error);
            }
        }
    }
}

async fn append(app: &App, mut file: File, bytes: Bytes, target: &Target) -> Result<File, ApiError> {
    let written = app.pool().run(move || file.write_all(&bytes).map(|()| file)).await?;
    written.map_err(|error| target.failed(&error).into())
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
