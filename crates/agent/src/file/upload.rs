//! `POST /v1/file/upload`: a multipart form, whose file is written as it arrives. The path is best sent before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use multer::{Field, Multipart, SizeLimit};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::failure::Failure;
use super::incoming::Incoming;
use super::names;
use super::paths::Target;
use crate::app::App;
use crate::http::{ApiError, form, ok, ok_with_hint};
use crate::pool::{Pool, Running};

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
                "description": "Where it goes: a path, or a directory. Sent before the file, it saves a copy. The home directory unless given.",
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
    let mut waiting: Option<Held> = None;
    while let Some(mut field) = within(form.next_field()).await? {
        match field.name() {
            Some("path") => asked = Some(within(field.text()).await?),
            Some("file") if waiting.is_none() => {
                let held = Held::begin(app, asked.clone(), field.file_name().map(str::to_owned)).await?;
                held.take_all(&mut field).await?;
                if asked.is_some() {
                    return held.finish(None).await;
                }
                waiting = Some(held);
            }
            _ => {}
        }
    }
    // The path may come behind the file.
    match waiting {
        Some(held) => held.finish(asked).await,
        None => Err(ApiError::unprocessable("file", "the form has no part named file", "missing")),
    }
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
        None => names::shown(&home.join(names::meant(&name))).into_owned(),
        Some(asked)
            if asked.ends_with('/') || (!asked.contains('\0') && home.join(names::meant(asked)).is_dir()) =>
        {
            PathBuf::from(asked).join(name.as_ref()).to_string_lossy().into_owned()
        }
        Some(asked) => asked.to_owned(),
    }
}

/// What has arrived, worked on and let go by the pool alone: to remove a file may take the kernel a while.
struct Held {
    incoming: Arc<Mutex<Option<Incoming>>>,
    target: Target,
    file_name: Option<String>,
    home: Arc<Path>,
    pool: Pool,
}

impl Held {
    async fn begin(app: &App, asked: Option<String>, file_name: Option<String>) -> Result<Self, ApiError> {
        let (home, pool) = (app.home(), app.pool().clone());
        let name = file_name.clone();
        let job = move || {
            let target = place_of(asked.as_deref(), name.as_deref(), &home)?;
            let begun = if asked.is_some() { Incoming::begin } else { Incoming::begin_anywhere };
            Ok::<_, Failure>((Arc::new(Mutex::new(Some(begun(target.clone(), &home)?))), target))
        };
        let (incoming, target) = pool.run(job).await??;
        Ok(Self { incoming, target, file_name, home: app.home(), pool })
    }

    /// Writes what arrives. While one chunk is written the next is received, and no more than that.
    async fn take_all(&self, field: &mut Field<'_>) -> Result<(), ApiError> {
        let (mut chunk, mut last) = gather(field).await?;
        while !last {
            let writing = self.write(chunk)?;
            let gathered = gather(field).await;
            writing.end().await??;
            (chunk, last) = gathered?;
        }
        Ok(self.write(chunk)?.end().await??)
    }

    fn write(&self, pieces: Vec<Bytes>) -> Result<Running<Result<(), Failure>>, ApiError> {
        let (incoming, target) = (Arc::clone(&self.incoming), self.target.clone());
        self.pool.begin(move || match incoming.lock().as_mut() {
            Some(incoming) => incoming.write(&pieces).map_err(|error| incoming.failed(&target, &error)),
            None => Ok(()),
        })
    }

    /// Puts it where it belongs: at the place it was begun for, or the one told since.
    async fn finish(self, told: Option<String>) -> Result<Response, ApiError> {
        let incoming = Arc::clone(&self.incoming);
        let (begun_for, name, home) = (self.target.clone(), self.file_name.clone(), Arc::clone(&self.home));
        let job = move || {
            let Some(incoming) = incoming.lock().take() else {
                return Err(begun_for.failed(&std::io::ErrorKind::NotFound.into()));
            };
            let size = incoming.size();
            let (incoming, target) = match told {
                Some(told) => {
                    let target = place_of(Some(&told), name.as_deref(), &home)?;
                    (incoming.moved_to(&target, &home)?, target)
                }
                None => (incoming, begun_for),
            };
            let note = incoming.finish(target.clone(), &home)?;
            Ok((UploadResult { file_path: target.text, file_size: size, success: true }, note))
        };
        let (result, note) = self.pool.run(job).await??;
        Ok(match note {
            Some(note) => ok_with_hint(&format!("File uploaded {}", note.message), result, Some(&note.hint)),
            None => ok("File uploaded", result),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let incoming = Arc::clone(&self.incoming);
        // Empty when all went well.
        if incoming.try_lock().is_none_or(|incoming| incoming.is_some()) {
            self.pool.leave(move || drop(incoming.lock().take()));
        }
    }
}

fn place_of(asked: Option<&str>, file_name: Option<&str>, home: &Path) -> Result<Target, Failure> {
    Target::parse("write", &destination(asked, file_name, home), home)
}

/// The next bytes of the form, in the pieces in which they came, and whether they are the last.
async fn gather(field: &mut Field<'_>) -> Result<(Vec<Bytes>, bool), ApiError> {
    let (mut pieces, mut length) = (Vec::new(), 0);
    while length < CHUNK {
        match within(field.chunk()).await? {
            Some(piece) => {
                length += piece.len();
                pieces.push(piece);
            }
            None => return Ok((pieces, true)),
        }
    }
    Ok((pieces, false))
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
