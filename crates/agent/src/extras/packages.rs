//! The packages installed for Python and Node.js, asked of the interpreters themselves.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::Value;

use crate::app::App;
use crate::bash::run_once;
use crate::http::{ApiError, ok};

const LIMIT: Duration = Duration::from_secs(30);
const PYTHON: &str = "command -v python3 > /dev/null || { echo '[]'; exit; }; exec python3 -c 'import json, importlib.metadata as m\nprint(json.dumps(sorted(({\"name\": d.metadata[\"Name\"], \"version\": d.version} for d in m.distributions() if d.metadata[\"Name\"]), key=lambda p: p[\"name\"].lower())))'";
const NODE: &str = "command -v node > /dev/null || { echo '[]'; exit; }; NODE_ROOT=$(npm root -g 2>/dev/null || echo /usr/local/lib/node_modules) exec node -e '
const fs = require(\"fs\"), path = require(\"path\"), found = [];
const look = (dir, scope) => { for (const name of fs.existsSync(dir) ? fs.readdirSync(dir).sort() : []) {
  if (name.startsWith(\"@\") && !scope) { look(path.join(dir, name), name); continue; }
  try { const p = JSON.parse(fs.readFileSync(path.join(dir, name, \"package.json\"))); found.push({ name: p.name, version: p.version }); } catch {} } };
look(process.env.NODE_ROOT, null); console.log(JSON.stringify(found));'";

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/v1/sandbox/packages/python", get(python))
        .route("/v1/sandbox/packages/nodejs", get(nodejs))
}

async fn python(State(app): State<App>) -> Result<Response, ApiError> {
    packages(&app, PYTHON).await
}

async fn nodejs(State(app): State<App>) -> Result<Response, ApiError> {
    packages(&app, NODE).await
}

async fn packages(app: &App, command: &str) -> Result<Response, ApiError> {
    let ran = run_once(app, command, Vec::new(), app.workspace(), None, LIMIT).await?;
    match serde_json::from_str::<Value>(&ran.stdout) {
        Ok(list) => Ok(ok("Packages", list)),
        Err(_) => {
            let reason: String = ran.stderr.chars().take(500).collect();
            Err(ApiError::internal(format!("the packages cannot be listed: {reason}")))
        }
    }
}
