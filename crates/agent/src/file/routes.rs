//! The `/v1/file` routes: they check, convert, and run the call on the pool.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::content::{self, Encoding, Writing};
use super::editor::{self, EditRequest};
use super::failure::Failure;
use super::find::{self, GlobQuery, SortBy};
use super::grep::{self, GrepQuery};
use super::list::{self, ListQuery};
use super::paths::Target;
use super::{download, upload};
use crate::app::App;
use crate::http::{ApiError, JsonBody, ok};

/// A write may carry a 100 MiB file as base64.
const WRITE_MIB: usize = 160;
const GREP_RESULTS: usize = 500;
const GLOB_RESULTS: usize = 5_000;
/// Results one call may ask for.
const MOST_RESULTS: usize = 100_000;
const CONTEXT_LINES: usize = 1_000;

type Answer = Result<Response, ApiError>;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/file/read", post(read))
        .route("/v1/file/write", post(write))
        .route("/v1/file/replace", post(replace))
        .route("/v1/file/search", post(search))
        .route("/v1/file/find", post(find))
        .route("/v1/file/grep", post(grep))
        .route("/v1/file/glob", post(glob))
        .route("/v1/file/list", post(list))
        .route("/v1/file/str_replace_editor", post(edit))
        .route("/v1/file/upload", post(upload::upload))
        .route("/v1/file/download", get(download::download))
}

/// Runs a call on the pool and puts its result, or its failure, into the envelope.
async fn run<T, F>(app: &App, message: &str, operation: &'static str, path: String, call: F) -> Answer
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Target) -> Result<T, Failure> + Send + 'static,
{
    let home = app.home();
    let job = move || Target::parse(operation, &path, &home).and_then(|target| call(&target));
    Ok(ok(message, app.pool().run(job).await??))
}

/// The same for calls that may take long: only a few at once, so that the others find a thread.
async fn run_long<T, F>(app: &App, message: &str, operation: &'static str, path: String, call: F) -> Answer
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Target) -> Result<T, Failure> + Send + 'static,
{
    let _turn =
        app.limits().long_calls.acquire().await.map_err(|_| ApiError::internal("the agent is ending"))?;
    run(app, message, operation, path, call).await
}

#[derive(Deserialize)]
pub(crate) struct ReadRequest {
    file: String,
    start_line: Option<i64>,
    end_line: Option<i64>,
    sudo: Option<bool>,
}

async fn read(State(app): State<App>, JsonBody(request): JsonBody<ReadRequest>) -> Answer {
    let ReadRequest { file, start_line, end_line, sudo } = request;
    let start = line_number("start_line", start_line)?;
    // Some callers write "to the end" as -1.
    let end = line_number("end_line", end_line.filter(|end| *end != -1))?;
    run(&app, "File read", "read", file, move |target| {
        target.check_sudo(sudo)?;
        content::read(target, start, end)
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

#[derive(Deserialize)]
pub(crate) struct WriteRequest {
    file: String,
    content: String,
    encoding: Option<Encoding>,
    append: Option<bool>,
    leading_newline: Option<bool>,
    trailing_newline: Option<bool>,
    sudo: Option<bool>,
}

async fn write(State(app): State<App>, JsonBody(request): JsonBody<WriteRequest, WRITE_MIB>) -> Answer {
    let writing = Writing {
        content: request.content,
        encoding: request.encoding.unwrap_or_default(),
        append: request.append.unwrap_or(false),
        leading_newline: request.leading_newline.unwrap_or(false),
        trailing_newline: request.trailing_newline.unwrap_or(false),
    };
    run(&app, "File written", "write", request.file, move |target| {
        target.check_sudo(request.sudo)?;
        content::write(target, writing)
    })
    .await
}

#[derive(Deserialize)]
pub(crate) struct ReplaceRequest {
    file: String,
    old_str: String,
    new_str: String,
    sudo: Option<bool>,
}

async fn replace(State(app): State<App>, JsonBody(request): JsonBody<ReplaceRequest, WRITE_MIB>) -> Answer {
    if request.old_str.is_empty() {
        return Err(ApiError::invalid("old_str", "old_str is empty"));
    }
    run(&app, "Replacement done", "replace", request.file, move |target| {
        target.check_sudo(request.sudo)?;
        content::replace(target, &request.old_str, &request.new_str)
    })
    .await
}

async fn edit(State(app): State<App>, JsonBody(request): JsonBody<EditRequest, WRITE_MIB>) -> Answer {
    let path = request.path.clone();
    let shared = app.clone();
    run(&app, "Edit done", "edit", path, move |target| editor::edit(target, request, shared.undo())).await
}

#[derive(Deserialize)]
pub(crate) struct SearchRequest {
    file: String,
    regex: String,
    sudo: Option<bool>,
}

async fn search(State(app): State<App>, JsonBody(request): JsonBody<SearchRequest>) -> Answer {
    run_long(&app, "Search done", "search", request.file, move |target| {
        target.check_sudo(request.sudo)?;
        content::search(target, &request.regex)
    })
    .await
}

#[derive(Deserialize)]
pub(crate) struct FindRequest {
    path: String,
    glob: String,
}

async fn find(State(app): State<App>, JsonBody(request): JsonBody<FindRequest>) -> Answer {
    run_long(&app, "Files found", "find", request.path, move |target| find::find(target, &request.glob)).await
}

#[derive(Deserialize)]
pub(crate) struct GrepRequest {
    path: String,
    pattern: String,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    case_insensitive: Option<bool>,
    fixed_strings: Option<bool>,
    context_before: Option<usize>,
    context_after: Option<usize>,
    max_results: Option<usize>,
    max_file_size: Option<String>,
    multiline: Option<bool>,
    offset: Option<usize>,
    #[serde(rename = "type")]
    file_type: Option<String>,
    recursive: Option<bool>,
}

async fn grep(State(app): State<App>, JsonBody(request): JsonBody<GrepRequest>) -> Answer {
    let size = request.max_file_size.unwrap_or_else(|| "1M".to_owned());
    let max_file_size = grep::parse_size(&size).ok_or_else(|| {
        ApiError::invalid("max_file_size", format!("{size:?} is not a size such as 500K or 1M"))
    })?;
    let query = GrepQuery {
        pattern: request.pattern,
        include: request.include.unwrap_or_default(),
        exclude: request.exclude.unwrap_or_default(),
        case_insensitive: request.case_insensitive.unwrap_or(false),
        fixed_strings: request.fixed_strings.unwrap_or(false),
        context_before: request.context_before.unwrap_or(0).min(CONTEXT_LINES),
        context_after: request.context_after.unwrap_or(0).min(CONTEXT_LINES),
        max_results: request.max_results.unwrap_or(GREP_RESULTS).min(MOST_RESULTS),
        max_file_size,
        multiline: request.multiline.unwrap_or(false),
        offset: request.offset.unwrap_or(0).min(MOST_RESULTS),
        file_type: request.file_type,
        recursive: request.recursive.unwrap_or(true),
    };
    run_long(&app, "Search done", "grep", request.path, move |target| grep::grep(target, &query)).await
}

#[derive(Deserialize)]
pub(crate) struct GlobRequest {
    path: String,
    pattern: String,
    exclude: Option<Vec<String>>,
    include_hidden: Option<bool>,
    files_only: Option<bool>,
    include_metadata: Option<bool>,
    max_results: Option<usize>,
    sort_by: Option<SortBy>,
    sort_desc: Option<bool>,
}

async fn glob(State(app): State<App>, JsonBody(request): JsonBody<GlobRequest>) -> Answer {
    let query = GlobQuery {
        pattern: request.pattern,
        exclude: request.exclude.unwrap_or_default(),
        include_hidden: request.include_hidden.unwrap_or(false),
        files_only: request.files_only.unwrap_or(true),
        include_metadata: request.include_metadata.unwrap_or(true),
        max_results: request.max_results.unwrap_or(GLOB_RESULTS).min(MOST_RESULTS),
        sort_by: request.sort_by.unwrap_or(SortBy::Path),
        descending: request.sort_desc.unwrap_or(false),
    };
    run_long(&app, "Files found", "glob", request.path, move |target| find::glob(target, &query)).await
}

#[derive(Deserialize)]
pub(crate) struct ListRequest {
    path: String,
    recursive: Option<bool>,
    show_hidden: Option<bool>,
    file_types: Option<Vec<String>>,
    max_depth: Option<usize>,
    include_size: Option<bool>,
    include_permissions: Option<bool>,
    sort_by: Option<SortBy>,
    sort_desc: Option<bool>,
}

async fn list(State(app): State<App>, JsonBody(request): JsonBody<ListRequest>) -> Answer {
    let query = ListQuery {
        recursive: request.recursive.unwrap_or(false),
        show_hidden: request.show_hidden.unwrap_or(true),
        file_types: request.file_types.unwrap_or_default(),
        max_depth: request.max_depth,
        include_size: request.include_size.unwrap_or(true),
        include_permissions: request.include_permissions.unwrap_or(false),
        sort_by: request.sort_by.unwrap_or(SortBy::Name),
        descending: request.sort_desc.unwrap_or(false),
    };
    run_long(&app, "Directory listed", "list", request.path, move |target| list::list(target, &query)).await
}
