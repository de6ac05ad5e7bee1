//! The `/v1/file` routes: they check, convert, and run the call on the pool.

use std::borrow::Cow;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::content::{self, Writing};
use super::editor::{self, EditRequest};
use super::failure::Failure;
use super::find::{self, GlobQuery, SortBy};
use super::given::{Encoding, Found, Given};
use super::grep::{self, GrepQuery};
use super::list::{self, ListQuery};
use super::paths::Target;
use super::replace;
use super::store::Note;
use super::{download, upload};
use crate::app::App;
use crate::defaults::{OffByDefault, OnByDefault};
use crate::http::{ApiError, JsonBody, RawJson, ok_with_hint};

/// A write may carry a 100 MiB file as base64.
const WRITE_MIB: usize = 160;
const GREP_RESULTS: usize = 500;
const GREP_FILE_SIZE: &str = "1M";
const GLOB_RESULTS: usize = 5_000;
/// Results one call may ask for.
const MOST_RESULTS: usize = 100_000;
const CONTEXT_LINES: usize = 1_000;

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/file/read", post(read))
        .route("/v1/file/write", post(write))
        .route("/v1/file/replace", post(replace_all))
        .route("/v1/file/search", post(search))
        .route("/v1/file/find", post(find))
        .route("/v1/file/grep", post(grep))
        .route("/v1/file/glob", post(glob))
        .route("/v1/file/list", post(list))
        .route("/v1/file/str_replace_editor", post(edit))
        .route("/v1/file/upload", post(upload::upload))
        .route("/v1/file/download", get(download::download))
}

/// A result, and what the caller should know of how it came about.
struct Told<T> {
    message: String,
    data: T,
    hint: Option<String>,
}

impl<T> Told<T> {
    /// A write, with what there is to say of it.
    fn written(message: &str, (data, note): (T, Option<Note>)) -> Self {
        match note {
            Some(Note { message: how, hint }) => {
                Self { message: format!("{message} {how}"), data, hint: Some(hint) }
            }
            None => Self { message: message.to_owned(), data, hint: None },
        }
    }
}

/// Runs a call on the pool that has more to say than its result.
async fn tell<T, F>(app: &App, operation: &'static str, path: String, call: F) -> Answer
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Target) -> Result<Told<T>, Failure> + Send + 'static,
{
    let home = app.home();
    let job = move || Target::parse(operation, &path, &home).and_then(|target| call(&target));
    let Told { message, data, hint } = app.pool().run(job).await??;
    Ok(ok_with_hint(&message, data, hint.as_deref()))
}

/// What could not be read of what was asked for, in words.
fn unreadable(count: usize) -> Option<String> {
    (count > 0).then(|| format!("not looked into: {count} directories that could not be read"))
}

/// The same as [`tell`] for calls that may take long: only a few at once, so that the others find a thread.
async fn tell_long<T, F>(
    app: &App,
    message: &'static str,
    operation: &'static str,
    path: String,
    hint: fn(&T) -> Option<String>,
    call: F,
) -> Answer
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Target) -> Result<T, Failure> + Send + 'static,
{
    let _turn =
        app.limits().long_calls.acquire().await.map_err(|_| ApiError::internal("the agent is ending"))?;
    let told = move |target: &Target| {
        call(target).map(|data| Told { message: message.to_owned(), hint: hint(&data), data })
    };
    tell(app, operation, path, told).await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ReadRequest {
    /// The file's path.
    file: String,
    /// The first line, counted from 0.
    #[schema(minimum = 0)]
    start_line: Option<i64>,
    /// The line to stop before; -1 or none for the end.
    #[schema(minimum = -1)]
    end_line: Option<i64>,
    /// Read as root, which only an agent that is root can.
    sudo: OffByDefault,
}

async fn read(State(app): State<App>, JsonBody(request): JsonBody<ReadRequest>) -> Answer {
    let ReadRequest { file, start_line, end_line, sudo } = request;
    let start = line_number("start_line", start_line)?;
    // Some callers write "to the end" as -1.
    let end = line_number("end_line", end_line.filter(|end| *end != -1))?;
    tell(&app, "read", file, move |target| {
        target.check_sudo(sudo.0)?;
        let data = content::read(target, start, end)?;
        Ok(Told { message: "File read".to_owned(), hint: data.hint(), data })
    })
    .await
}

fn line_number(field: &str, value: Option<i64>) -> Result<Option<u64>, ApiError> {
    value
        .map(|value| {
            u64::try_from(value).map_err(|_| ApiError::invalid(field, format!("{field} {value} is below 0")))
        })
        .transpose()
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct WriteRequest<'a> {
    /// The file's path. It is made, and its directories, when missing.
    file: String,
    /// What to write.
    #[serde(borrow)]
    content: Cow<'a, str>,
    /// How `content` is written here; in `raw` a character is a byte.
    #[schema(default = "utf-8")]
    encoding: Option<Encoding>,
    /// Keep what is there.
    append: OffByDefault,
    /// Put a line feed before the content.
    leading_newline: OffByDefault,
    /// Put a line feed behind the content.
    trailing_newline: OffByDefault,
    /// Write as root, which only an agent that is root can.
    sudo: OffByDefault,
}

async fn write(State(app): State<App>, body: RawJson<WRITE_MIB>) -> Answer {
    let request: WriteRequest<'_> = body.read()?;
    let (encoding, append, sudo) = (request.encoding.unwrap_or_default(), request.append.0, request.sudo.0);
    let (leading_newline, trailing_newline) = (request.leading_newline.0, request.trailing_newline.0);
    let file = request.file;
    let found = Found::of(request.content, body.bytes());
    let content = Given::new(found, body.into_bytes());
    let writing = Writing { content, encoding, append, leading_newline, trailing_newline };
    tell(&app, "write", file, move |target| {
        target.check_sudo(sudo)?;
        content::write(target, writing).map(|written| Told::written("File written", written))
    })
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ReplaceRequest {
    /// The file's path.
    file: String,
    /// The text to replace, everywhere.
    #[schema(min_length = 1)]
    old_str: String,
    /// The text to put there.
    new_str: String,
    /// Do it as root, which only an agent that is root can.
    sudo: OffByDefault,
}

async fn replace_all(
    State(app): State<App>,
    JsonBody(request): JsonBody<ReplaceRequest, WRITE_MIB>,
) -> Answer {
    if request.old_str.is_empty() {
        return Err(ApiError::invalid("old_str", "old_str is empty"));
    }
    tell(&app, "replace", request.file, move |target| {
        target.check_sudo(request.sudo.0)?;
        let (data, note) = replace::replace(target, &request.old_str, &request.new_str)?;
        if data.replaced_count == 0 {
            let message = "Nothing was replaced: old_str is not in the file".to_owned();
            let hint = "read the lines again and give old_str exactly as they are, white space included";
            return Ok(Told { message, data, hint: Some(hint.to_owned()) });
        }
        let message = if data.changed {
            "Replacement done"
        } else {
            "Nothing was changed: the new text is the old one"
        };
        Ok(Told::written(message, (data, note)))
    })
    .await
}

async fn edit(State(app): State<App>, JsonBody(request): JsonBody<EditRequest, WRITE_MIB>) -> Answer {
    let path = request.path.clone();
    let shared = app.clone();
    tell(&app, "edit", path, move |target| {
        editor::edit(target, request, shared.undo()).map(|edited| Told::written("Edit done", edited))
    })
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct SearchRequest {
    /// The file's path.
    file: String,
    /// A regular expression, without look-around and back references.
    regex: String,
    /// Read as root, which only an agent that is root can.
    sudo: OffByDefault,
}

async fn search(State(app): State<App>, JsonBody(request): JsonBody<SearchRequest>) -> Answer {
    tell_long(
        &app,
        "Search done",
        "search",
        request.file,
        |_| None,
        move |target| {
            target.check_sudo(request.sudo.0)?;
            content::search(target, &request.regex)
        },
    )
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct FindRequest {
    /// The directory.
    path: String,
    /// Relative to the directory: `*` stays within one name, `**` is any number of directories.
    glob: String,
}

async fn find(State(app): State<App>, JsonBody(request): JsonBody<FindRequest>) -> Answer {
    let hint = |found: &find::FindResult| unreadable(found.unreadable);
    tell_long(&app, "Files found", "find", request.path, hint, move |target| {
        find::find(target, &request.glob)
    })
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct GrepRequest {
    /// A directory or file.
    path: String,
    /// A regular expression, without look-around and back references.
    pattern: String,
    /// Globs of files to search, as ripgrep's `-g`; all unless given. Ignore files do not hide what they name.
    include: Option<Vec<String>>,
    /// Globs of files and directories to leave out, as ripgrep's `-g !GLOB`.
    exclude: Option<Vec<String>>,
    /// Ignore case.
    case_insensitive: OffByDefault,
    /// Take the pattern as text.
    fixed_strings: OffByDefault,
    /// Lines before each match, never more than 1,000.
    #[schema(default = 0)]
    context_before: Option<usize>,
    /// Lines after each match, never more than 1,000.
    #[schema(default = 0)]
    context_after: Option<usize>,
    /// Matches at most, never more than 100,000.
    #[schema(default = json!(GREP_RESULTS))]
    max_results: Option<usize>,
    /// Larger files are left out: bytes, or with K, M or G.
    #[schema(default = json!(GREP_FILE_SIZE))]
    max_file_size: Option<String>,
    /// Let the pattern match across lines.
    multiline: OffByDefault,
    /// Matches to skip, never more than 100,000.
    #[schema(default = 0)]
    offset: Option<usize>,
    /// A kind of file as ripgrep names it, such as `py`.
    #[serde(rename = "type")]
    file_type: Option<String>,
    /// Also what lies in directories below.
    recursive: OnByDefault,
}

async fn grep(State(app): State<App>, JsonBody(request): JsonBody<GrepRequest>) -> Answer {
    let size = request.max_file_size.unwrap_or_else(|| GREP_FILE_SIZE.to_owned());
    let max_file_size = grep::parse_size(&size).ok_or_else(|| {
        ApiError::invalid("max_file_size", format!("{size:?} is not a size such as 500K or 1M"))
    })?;
    let query = GrepQuery {
        pattern: request.pattern,
        include: request.include.unwrap_or_default(),
        exclude: request.exclude.unwrap_or_default(),
        case_insensitive: request.case_insensitive.0,
        fixed_strings: request.fixed_strings.0,
        context_before: request.context_before.unwrap_or(0).min(CONTEXT_LINES),
        context_after: request.context_after.unwrap_or(0).min(CONTEXT_LINES),
        max_results: request.max_results.unwrap_or(GREP_RESULTS).min(MOST_RESULTS),
        max_file_size,
        multiline: request.multiline.0,
        offset: request.offset.unwrap_or(0).min(MOST_RESULTS),
        file_type: request.file_type,
        recursive: request.recursive.0,
    };
    tell_long(&app, "Search done", "grep", request.path, grep::GrepResult::hint, move |target| {
        grep::grep(target, &query)
    })
    .await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct GlobRequest {
    /// The directory.
    path: String,
    /// Relative to the directory: `*` stays within one name, `**` is any number of directories.
    pattern: String,
    /// Globs of what to leave out.
    exclude: Option<Vec<String>>,
    /// Also what begins with a dot.
    include_hidden: OffByDefault,
    /// No directories.
    files_only: OnByDefault,
    /// Say size and time.
    include_metadata: OnByDefault,
    /// Files at most, never more than 100,000.
    #[schema(default = json!(GLOB_RESULTS))]
    max_results: Option<usize>,
    #[schema(default = "path")]
    sort_by: Option<SortBy>,
    /// Largest, newest or last first.
    sort_desc: OffByDefault,
}

async fn glob(State(app): State<App>, JsonBody(request): JsonBody<GlobRequest>) -> Answer {
    let query = GlobQuery {
        pattern: request.pattern,
        exclude: request.exclude.unwrap_or_default(),
        include_hidden: request.include_hidden.0,
        files_only: request.files_only.0,
        include_metadata: request.include_metadata.0,
        max_results: request.max_results.unwrap_or(GLOB_RESULTS).min(MOST_RESULTS),
        sort_by: request.sort_by.unwrap_or(SortBy::Path),
        descending: request.sort_desc.0,
    };
    let hint = |found: &find::GlobResult| unreadable(found.unreadable);
    tell_long(&app, "Files found", "glob", request.path, hint, move |target| find::glob(target, &query)).await
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ListRequest {
    /// The directory.
    path: String,
    /// Also what lies in directories below.
    recursive: OffByDefault,
    /// Also what begins with a dot.
    show_hidden: OnByDefault,
    /// Only files of these extensions; all unless given.
    file_types: Option<Vec<String>>,
    /// Levels of directories, when recursive.
    max_depth: Option<usize>,
    /// Say sizes.
    include_size: OnByDefault,
    /// Say permissions, as `ls -l` does.
    include_permissions: OffByDefault,
    #[schema(default = "name")]
    sort_by: Option<SortBy>,
    /// Largest, newest or last first.
    sort_desc: OffByDefault,
}

async fn list(State(app): State<App>, JsonBody(request): JsonBody<ListRequest>) -> Answer {
    let query = ListQuery {
        recursive: request.recursive.0,
        show_hidden: request.show_hidden.0,
        file_types: request.file_types.unwrap_or_default(),
        max_depth: request.max_depth,
        include_size: request.include_size.0,
        include_permissions: request.include_permissions.0,
        sort_by: request.sort_by.unwrap_or(SortBy::Name),
        descending: request.sort_desc.0,
    };
    let hint = |listed: &list::ListResult| unreadable(listed.unreadable);
    tell_long(&app, "Directory listed", "list", request.path, hint, move |target| list::list(target, &query))
        .await
}
