//! The Model Context Protocol: the same calls as tools, over streamable HTTP (`/mcp`, `/v1/mcp`) and the `/v1/mcp` routes.
//!
//! A tool call becomes a request to our own route, so both ways in have the same checks and limits.
//! The server keeps no session and sends nothing unasked, which the protocol allows: every POST is
//! answered with one JSON document.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::app::App;
use crate::http::{ApiError, JsonBody, ok, reply};

/// Protocol versions that are spoken, newest first.
const VERSIONS: &[&str] = &["2025-06-18", "2025-03-26", "2024-11-05"];
const SERVER: &str = "sandbox";
/// Bytes of one tool's answer.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

struct Tool {
    name: &'static str,
    description: &'static str,
    route: &'static str,
    /// Name, JSON type, description, whether it is required.
    arguments: &'static [(&'static str, &'static str, &'static str, bool)],
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "shell_exec",
        description: "Run a command in a terminal session that keeps its state",
        route: "/v1/shell/exec",
        arguments: &[
            ("command", "string", "the command", true),
            ("id", "string", "a session; none makes a new one", false),
            ("exec_dir", "string", "where to run it", false),
            ("timeout", "number", "seconds to wait", false),
            ("hard_timeout", "number", "seconds until it is ended", false),
            ("async_mode", "boolean", "do not wait", false),
        ],
    },
    Tool {
        name: "shell_view",
        description: "What a terminal session shows",
        route: "/v1/shell/view",
        arguments: &[("id", "string", "the session", true)],
    },
    Tool {
        name: "shell_kill",
        description: "End the command running in a terminal session",
        route: "/v1/shell/kill",
        arguments: &[("id", "string", "the session", true)],
    },
    Tool {
        name: "shell_write",
        description: "Type into the command running in a terminal session",
        route: "/v1/shell/write",
        arguments: &[
            ("id", "string", "the session", true),
            ("input", "string", "what to type", true),
            ("press_enter", "boolean", "end with a line feed", false),
        ],
    },
    Tool {
        name: "file_read",
        description: "Read a text file or some of its lines",
        route: "/v1/file/read",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("start_line", "integer", "first line, from 0", false),
            ("end_line", "integer", "line to stop before", false),
        ],
    },
    Tool {
        name: "file_write",
        description: "Write or append to a file",
        route: "/v1/file/write",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("content", "string", "what to write", true),
            ("append", "boolean", "keep what is there", false),
        ],
    },
    Tool {
        name: "file_replace",
        description: "Replace text in a file",
        route: "/v1/file/replace",
        arguments: &[
            ("file", "string", "absolute path", true),
            ("old_str", "string", "text to replace", true),
            ("new_str", "string", "text to put there", true),
        ],
    },
    Tool {
        name: "file_find",
        description: "Find files by glob",
        route: "/v1/file/find",
        arguments: &[("path", "string", "directory", true), ("glob", "string", "pattern", true)],
    },
    Tool {
        name: "file_grep",
        description: "Search files with a regular expression",
        route: "/v1/file/grep",
        arguments: &[
            ("path", "string", "directory or file", true),
            ("pattern", "string", "regular expression", true),
            ("case_insensitive", "boolean", "ignore case", false),
            ("max_results", "integer", "matches at most", false),
        ],
    },
    Tool {
        name: "file_list",
        description: "List a directory",
        route: "/v1/file/list",
        arguments: &[
            ("path", "string", "directory", true),
            ("recursive", "boolean", "with all below", false),
        ],
    },
    Tool {
        name: "str_replace_editor",
        description: "View and edit a file, with undo",
        route: "/v1/file/str_replace_editor",
        arguments: &[
            ("command", "string", "view, create, str_replace, insert or undo_edit", true),
            ("path", "string", "absolute path", true),
            ("file_text", "string", "for create", false),
            ("old_str", "string", "for str_replace", false),
            ("new_str", "string", "for str_replace and insert", false),
            ("insert_line", "integer", "for insert", false),
            ("view_range", "array", "for view: first and last line", false),
        ],
    },
    Tool {
        name: "code_execute",
        description: "Run Python or JavaScript",
        route: "/v1/code/execute",
        arguments: &[
            ("language", "string", "python or javascript", true),
            ("code", "string", "the code", true),
            ("stateful", "boolean", "keep its state", false),
            ("session_id", "string", "a session to go on in", false),
            ("timeout", "number", "seconds", false),
        ],
    },
];

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/mcp/servers", get(servers))
        .route("/v1/mcp/{server}/tools", get(tools))
        .route("/v1/mcp/{server}/tools/{tool}", post(call))
        .route("/mcp", post(message).get(no_stream))
        .route("/v1/mcp", post(message).get(no_stream))
}

fn describe(tool: &Tool) -> Value {
    let properties: Map<String, Value> = tool
        .arguments
        .iter()
        .map(|(name, kind, description, _)| {
            ((*name).to_owned(), json!({ "type": kind, "description": description }))
        })
        .collect();
    let required: Vec<_> =
        tool.arguments.iter().filter(|argument| argument.3).map(|argument| argument.0).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "name": tool.name, "description": tool.description, "inputSchema": schema })
}

async fn servers() -> Response {
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
    let tools: Vec<_> = TOOLS.iter().map(describe).collect();
    Ok(ok("Tools", json!({ "tools": tools, "nextCursor": null })))
}

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
        Ok(request) => match crate::routes::all(app).oneshot(request).await {
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

async fn no_stream() -> Response {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this MCP server sends nothing unasked: use POST")
        .into_response()
}

async fn message(State(app): State<App>, JsonBody(message): JsonBody<Value, 64>) -> Response {
    match message {
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
    }
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

/// The answer to one JSON-RPC message. Notifications have none.
async fn answer(app: App, message: Value) -> Option<Value> {
    let id = message.get("id").filter(|id| !id.is_null()).cloned()?;
    let parameters = &message["params"];
    let result = match message["method"].as_str().unwrap_or("") {
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
        "tools/list" => Ok(json!({ "tools": TOOLS.iter().map(describe).collect::<Vec<_>>() })),
        "tools/call" => {
            let name = parameters["name"].as_str().unwrap_or("").to_owned();
            let arguments = parameters.get("arguments").cloned().unwrap_or_else(|| json!({}));
            Box::pin(run(app, &name, &arguments)).await.ok_or((-32602, format!("there is no tool {name:?}")))
        }
        other => Err((-32601, format!("method {other:?} is not known"))),
    };
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message)) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
        }
    })
}
