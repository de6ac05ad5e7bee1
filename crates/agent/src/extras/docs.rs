//! What the API is: `/v1/openapi.json` and a page of it.

use axum::Router;
use axum::response::{Html, Response};
use axum::routing::get;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::reply;

/// Method, path, what it does. A test compares it with the routes.
pub(crate) const ROUTES: &[(&str, &str, &str)] = &[
    ("get", "/v1/sandbox", "What the sandbox is; the health check"),
    ("get", "/v1/sandbox/packages/python", "Installed Python packages"),
    ("get", "/v1/sandbox/packages/nodejs", "Installed Node.js packages"),
    ("get", "/v1/sandbox/hooks", "Commands that run before the end"),
    ("post", "/v1/sandbox/hooks", "Register such a command"),
    ("delete", "/v1/sandbox/hooks/{name}", "Remove one"),
    ("post", "/v1/shell/exec", "Run a command in a terminal session"),
    ("post", "/v1/shell/view", "What a session shows"),
    ("post", "/v1/shell/wait", "Wait for the command in progress"),
    ("post", "/v1/shell/write", "Type into the command in progress"),
    ("post", "/v1/shell/kill", "End the command in progress"),
    ("post", "/v1/shell/sessions/create", "Open a session"),
    ("post", "/v1/shell/sessions/update", "Change a session"),
    ("get", "/v1/shell/sessions", "All sessions"),
    ("delete", "/v1/shell/sessions", "Close all sessions"),
    ("get", "/v1/shell/sessions/stats", "How many there are"),
    ("delete", "/v1/shell/sessions/{id}", "Close a session"),
    ("get", "/v1/shell/terminal-url", "A page with a terminal"),
    ("get", "/v1/shell/ws", "A terminal over a WebSocket"),
    ("post", "/v1/bash/exec", "Run a command over pipes"),
    ("post", "/v1/bash/output", "Its output from an offset on"),
    ("post", "/v1/bash/write", "Write to its standard input"),
    ("post", "/v1/bash/kill", "Send it a signal"),
    ("get", "/v1/bash/sessions", "All bash sessions"),
    ("post", "/v1/bash/sessions/create", "Open one"),
    ("post", "/v1/bash/sessions/{id}/close", "Close one"),
    ("post", "/v1/file/read", "Read a file or some of its lines"),
    ("post", "/v1/file/write", "Write or append"),
    ("post", "/v1/file/replace", "Replace text"),
    ("post", "/v1/file/search", "Lines of a file that match"),
    ("post", "/v1/file/find", "Files by glob"),
    ("post", "/v1/file/grep", "Lines of many files that match"),
    ("post", "/v1/file/glob", "Files by glob, with metadata"),
    ("post", "/v1/file/list", "The entries of a directory"),
    ("post", "/v1/file/upload", "Upload as multipart/form-data"),
    ("get", "/v1/file/download", "Download"),
    ("post", "/v1/file/str_replace_editor", "View and edit, with undo"),
    ("get", "/v1/file/watch", "Watchers"),
    ("post", "/v1/file/watch", "Watch a directory"),
    ("delete", "/v1/file/watch/{id}", "Stop a watcher"),
    ("get", "/v1/file/watch/{id}/events", "Its events as they happen (server-sent)"),
    ("post", "/v1/file/watch/{id}/poll", "Its events since a cursor"),
    ("post", "/v1/file/watch/wait", "Wait for one change of a path"),
    ("post", "/v1/code/execute", "Run Python or JavaScript"),
    ("get", "/v1/code/info", "Languages"),
    ("post", "/v1/jupyter/execute", "Run Python in a session"),
    ("get", "/v1/jupyter/info", "Kernels"),
    ("get", "/v1/jupyter/sessions", "Python sessions"),
    ("delete", "/v1/jupyter/sessions", "Close all of them"),
    ("post", "/v1/jupyter/sessions/create", "Open one"),
    ("delete", "/v1/jupyter/sessions/{id}", "Close one"),
    ("post", "/v1/nodejs/execute", "Run JavaScript"),
    ("get", "/v1/nodejs/info", "Node.js versions"),
    ("get", "/v1/nodejs/sessions", "JavaScript sessions"),
    ("post", "/v1/nodejs/sessions", "Open one"),
    ("get", "/v1/nodejs/sessions/{id}", "One of them"),
    ("patch", "/v1/nodejs/sessions/{id}", "Change one"),
    ("delete", "/v1/nodejs/sessions/{id}", "Close one"),
    ("post", "/v1/util/convert_to_markdown", "A document as Markdown"),
    ("get", "/v1/mcp/servers", "MCP servers"),
    ("get", "/v1/mcp/{server}/tools", "Tools of one"),
    ("post", "/v1/mcp/{server}/tools/{tool}", "Call a tool"),
    ("post", "/mcp", "MCP over streamable HTTP"),
    ("post", "/v1/skills/register", "Register skills"),
    ("get", "/v1/skills/metadatas", "Registered skills"),
    ("delete", "/v1/skills", "Forget all skills"),
    ("get", "/v1/skills/{name}/content", "The text of a skill"),
    ("delete", "/v1/skills/{name}", "Forget one"),
    ("get", "/auth", "Whether the caller is authenticated"),
    ("post", "/tickets", "A short-lived ticket"),
];

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/docs", get(page))
        .route("/index.html", get(page))
        .route("/llms.txt", get(plain))
}

async fn openapi() -> Response {
    let mut paths = Map::new();
    for (method, path, summary) in ROUTES {
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let mut operation = json!({
            "summary": summary, "parameters": parameters,
            "responses": { "200": { "description": "the envelope", "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Envelope" } } } } },
        });
        if matches!(*method, "post" | "patch") && *path != "/v1/file/upload" {
            operation["requestBody"] =
                json!({ "content": { "application/json": { "schema": { "type": "object" } } } });
        }
        if let Value::Object(item) = paths.entry((*path).to_owned()).or_insert_with(|| json!({})) {
            item.insert((*method).to_owned(), operation);
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Stockade sandbox agent", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": { "Envelope": {
            "type": "object", "required": ["success"],
            "properties": {
                "success": { "type": "boolean" }, "message": { "type": ["string", "null"] },
                "data": {}, "hint": { "type": ["string", "null"] },
            },
        } } },
    });
    reply::json(StatusCode::OK, &document)
}

async fn page() -> Html<String> {
    let rows: String = ROUTES
        .iter()
        .map(|(method, path, summary)| {
            format!(
                "<tr><td><code>{}</code></td><td><code>{path}</code></td><td>{summary}</td></tr>",
                method.to_uppercase()
            )
        })
        .collect();
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sandbox API</title>\
         <style>body{{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem}}td{{padding:.2rem .8rem;border-bottom:1px solid #ddd}}</style>\
         <h1>Sandbox API</h1><p>Machine-readable: <a href=\"/v1/openapi.json\">openapi.json</a>. A terminal: <a href=\"/terminal\">/terminal</a>.</p><table>{rows}</table></html>"
    ))
}

async fn plain() -> String {
    ROUTES
        .iter()
        .map(|(method, path, summary)| format!("{} {path}: {summary}\n", method.to_uppercase()))
        .collect()
}
