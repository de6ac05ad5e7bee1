//! The routes, and the handlers that fit in a line or two.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::extract::{DefaultBodyLimit, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::{fetch, files, mountinfo};

/// What `PUT /files` takes at most.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// Memory taken by `POST /allocate`: kept until the process ends.
static ALLOCATED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

pub(crate) fn router() -> Router {
    Router::new()
        .route("/v1/sandbox", get(sandbox))
        .route("/env", get(env))
        .route("/mounts", get(mounts))
        .route("/files", get(files::read).put(files::write))
        .route("/fetch", get(fetch::fetch))
        .route("/exit", post(exit))
        .route("/allocate", post(allocate))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// A refusal as JSON: `error` is one word for a program, `message` a sentence for a person.
pub(crate) fn refuse(status: StatusCode, error: &str, message: &str) -> Response {
    (status, Json(json!({ "error": error, "message": message }))).into_response()
}

/// Names only: values may be secrets, and this answer ends up in test logs.
async fn sandbox() -> Json<serde_json::Value> {
    let mut names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    names.sort();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Json(json!({ "hostname": hostname, "pid": std::process::id(), "env": names }))
}

#[derive(Deserialize)]
struct EnvQuery {
    name: String,
}

async fn env(Query(query): Query<EnvQuery>) -> Response {
    match std::env::var_os(&query.name) {
        Some(value) => Json(json!({ "name": query.name, "value": value.to_string_lossy() })).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "unset", &format!("{} is not set", query.name)),
    }
}

async fn mounts() -> Response {
    match std::fs::read_to_string("/proc/self/mountinfo") {
        Ok(text) => Json(BTreeMap::from([("mounts", mountinfo::parse(&text))])).into_response(),
        Err(error) => files::refuse_io("/proc/self/mountinfo", &error),
    }
}

#[derive(Deserialize)]
struct ExitQuery {
    #[serde(default)]
    code: i32,
}

/// Ends at once: a crash does not answer first.
async fn exit(Query(query): Query<ExitQuery>) {
    std::process::exit(query.code);
}

#[derive(Deserialize)]
struct AllocateQuery {
    mib: usize,
}

async fn allocate(Query(query): Query<AllocateQuery>) -> Response {
    let Some(bytes) = query.mib.checked_mul(1024 * 1024) else {
        return refuse(StatusCode::BAD_REQUEST, "mib", &format!("mib is {}, too large", query.mib));
    };
    // A value other than zero makes the kernel back every page now.
    let block = vec![1_u8; bytes];
    let mut blocks = ALLOCATED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    blocks.push(block);
    let total: usize = blocks.iter().map(Vec::len).sum();
    Json(json!({ "allocated_mib": query.mib, "total_mib": total / (1024 * 1024) })).into_response()
}
