//! The Model Context Protocol: the same calls as tools, over streamable HTTP (`/mcp`, `/v1/mcp`) and the `/v1/mcp` routes.
//!
//! A tool call becomes a request to our own route, so both ways in have the same checks and limits.
//! The server keeps no session and sends nothing unasked, which the protocol allows: every POST is
//! answered with one JSON document.

mod tools;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::{ApiError, JsonBody, QueryOf, ok, reply};
use tools::{TOOLS, describe};

/// Protocol versions that are spoken, newest first.
const VERSIONS: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Messages in one batch (which the versions before 2025-06-18 have).
const BATCH: usize = 64;
/// JSON-RPC's codes.
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const SERVER: &str = "sandbox";
/// Bytes of one tool's answer.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/mcp/servers", get(servers))
        .route("/v1/mcp/{server}/tools", get(tools))
        .route("/v1/mcp/{server}/tools/{tool}", post(call))
        .route("/mcp", post(message).get(no_stream).delete(no_stream))
        .route("/v1/mcp", post(message).get(no_stream).delete(no_stream))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ServersQuery {
    /// Also servers that are not shown. There are none.
    #[serde(rename = "include_hidden")]
    _include_hidden: Option<bool>,
}

async fn servers(_: QueryOf<ServersQuery>) -> Response {
    ok("Servers", [SERVER])
}

fn check_server(server: &str) -> Result<(), ApiError> {
    if server == SERVER {
        Ok(())
    } else {
        Err(ApiError::not_found(format!("there is no MCP server {server:?}")))
    }
}

async fn tools(Path(server): Path<String>) -> Result<Response, ApiError> {
    check_server(&server)?;
    let tools: Vec<_> = TOOLS.iter().filter_map(describe).collect();
    Ok(ok("Tools", json!({ "tools": tools, "nextCursor": null })))
}

/// What the tool takes, as its `inputSchema` says.
#[derive(ToSchema)]
#[schema(value_type = Object)]
#[allow(dead_code, reason = "only described")]
pub(crate) struct Arguments(Value);

/// A message of JSON-RPC 2.0, or a list of them.
#[derive(ToSchema)]
#[schema(value_type = Value)]
#[allow(dead_code, reason = "only described")]
pub(crate) struct Message(Value);

async fn call(
    State(app): State<App>,
    Path((server, tool)): Path<(String, String)>,
    JsonBody(arguments): JsonBody<Value, 64>,
) -> Result<Response, ApiError> {
    check_server(&server)?;
    let result = run(app, &tool, &arguments).await;
    let result = result.ok_or_else(|| ApiError::not_found(format!("there is no tool {tool:?}")))?;
    Ok(ok("Tool called", result))
}

/// Calls the route of a tool. `None`: there is no such tool.
async fn run(app: App, name: &str, arguments: &Value) -> Option<Value> {
    let tool = TOOLS.iter().find(|tool| tool.name == name)?;
    let request = Request::post(tool.route)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(arguments.to_string()));
    let answer = match request {
        Ok(request) => match app.routes().oneshot(request).await {
            Ok(response) => body_of(response).await,
            Err(never) => match never {},
        },
        Err(error) => Err(error.to_string()),
    };
    let (text, structured, failed) = match answer {
        Ok(body) if body["success"] == true => (body["data"].to_string(), body["data"].clone(), false),
        Ok(body) => (body["message"].as_str().unwrap_or("the call failed").to_owned(), Value::Null, true),
        Err(error) => (error, Value::Null, true),
    };
    let structured = if structured.is_object() { structured } else { Value::Null };
    Some(
        json!({ "content": [{ "type": "text", "text": text }], "structuredContent": structured, "isError": failed }),
    )
}

async fn body_of(response: Response) -> Result<Value, String> {
    let bytes = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
    let bytes = bytes.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// There is neither a stream to listen to nor a session to end, which the protocol lets a server say so.
async fn no_stream(method: Method) -> Response {
    let message =
        format!("this MCP server keeps no session and sends nothing unasked: use POST, not {method}");
    let mut response = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn message(
    State(app): State<App>,
    headers: HeaderMap,
    JsonBody(message): JsonBody<Value, 64, true>,
) -> Result<Response, ApiError> {
    check_version(&headers)?;
    Ok(match message {
        Value::Array(batch) if batch.len() > BATCH => {
            let message = format!("a batch has at most {BATCH} messages");
            reply::json(StatusCode::BAD_REQUEST, &failure(&Value::Null, INVALID_REQUEST, &message))
        }
        Value::Array(batch) => {
            let mut answers = Vec::new();
            for message in batch {
                answers.extend(answer(app.clone(), message).await);
            }
            if answers.is_empty() { accepted() } else { reply::json(StatusCode::OK, &answers) }
        }
        message => match answer(app, message).await {
            Some(answer) => reply::json(StatusCode::OK, &answer),
            None => accepted(),
        },
    })
}

/// After the handshake clients name the version in a header; one that is not spoken is a 400.
fn check_version(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(version) = headers.get("mcp-protocol-version") else { return Ok(()) };
    if VERSIONS.iter().any(|known| version == known) {
        return Ok(());
    }
    let shown: String = String::from_utf8_lossy(version.as_bytes()).chars().take(40).collect();
    Err(ApiError::bad_request(format!(
        "MCP protocol version {shown:?} is not one of {}",
        VERSIONS.join(", ")
    )))
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

/// The answer to one JSON-RPC message. Notifications, and answers to what was never asked, have none.
async fn answer(app: App, message: Value) -> Option<Value> {
    let id = message.get("id").cloned().unwrap_or(Value::Null);
    let Some(method) = message["method"].as_str().filter(|_| message["jsonrpc"] == "2.0") else {
        let is_answer = message.get("result").is_some() || message.get("error").is_some();
        return (!is_answer).then(|| failure(&id, INVALID_REQUEST, "this is not a JSON-RPC 2.0 request"));
    };
    message.get("id")?;
    if !(id.is_string() || id.is_i64() || id.is_u64()) {
        return Some(failure(&Value::Null, INVALID_REQUEST, "an id is a string or a whole number"));
    }
    Some(match perform(app, method, &message["params"]).await {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message)) => failure(&id, code, &message),
    })
}

fn failure(id: &Value, code: i32, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

async fn perform(app: App, method: &str, parameters: &Value) -> Result<Value, (i32, String)> {
    match method {
        "initialize" => {
            let asked = parameters["protocolVersion"].as_str().unwrap_or("");
            let version = VERSIONS.iter().find(|version| **version == asked).unwrap_or(&VERSIONS[0]);
            Ok(json!({
                "protocolVersion": version,
                "capabilities": { "tools": { "listChanged": false } },
                "serverInfo": { "name": "stockade-agent", "version": env!("CARGO_PKG_VERSION") },
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": TOOLS.iter().filter_map(describe).collect::<Vec<_>>() })),
        "tools/call" => {
            let name = parameters["name"].as_str().unwrap_or("").to_owned();
            let arguments = parameters.get("arguments").cloned().unwrap_or_else(|| json!({}));
            let mut result = Box::pin(run(app, &name, &arguments))
                .await
                .ok_or_else(|| (INVALID_PARAMS, format!("there is no tool {name:?}")))?;
            // The protocol knows an object there, or nothing.
            if let Value::Object(fields) = &mut result {
                fields.retain(|_, value| !value.is_null());
            }
            Ok(result)
        }
        other => Err((METHOD_NOT_FOUND, format!("method {other:?} is not known"))),
    }
}
