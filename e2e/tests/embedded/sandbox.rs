//! A sandbox as an attacker sees it: commands inside, and nothing else.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stockade_e2e::http;

/// What every attack can use.
const PRELUDE: &str = include_str!("isolation/attacks/prelude.py");

/// One sandbox.
pub(crate) struct Sandbox {
    /// Its id.
    pub(crate) id: String,
    /// Its address.
    pub(crate) url: String,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Output {
    /// What it printed.
    pub(crate) stdout: String,
    /// What it said went wrong.
    pub(crate) stderr: String,
    /// Its exit code; `None` when it was ended.
    pub(crate) code: Option<i64>,
}

impl Sandbox {
    pub(crate) fn new(id: String, url: String) -> Self {
        Self { id, url }
    }

    /// Runs `script` with bash.
    pub(crate) async fn sh(&self, script: &str) -> Output {
        self.sh_within(script, 25.0).await
    }

    /// Runs `script` with bash for at most so many seconds.
    pub(crate) async fn sh_within(&self, script: &str, seconds: f64) -> Output {
        let body = json!({ "command": script, "hard_timeout": seconds });
        let answer = self.post("/v1/bash/exec", &body).await.expect("an answer of the agent");
        let data = &answer["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        Output { stdout: text("stdout"), stderr: text("stderr"), code: data["exit_code"].as_i64() }
    }

    /// Starts `script` and does not wait for it.
    pub(crate) async fn start(&self, script: &str) {
        let body = json!({ "command": script, "async_mode": true, "hard_timeout": 60 });
        self.post("/v1/bash/exec", &body).await.expect("an answer of the agent");
    }

    /// Runs an attack written in Python, with `facts` about the machine outside.
    pub(crate) async fn python(&self, attack: &str, facts: &Value) -> Output {
        let script = format!(
            "python3 - <<'END-OF-ATTACK'\nFACTS = r'''{facts}'''\n{PRELUDE}\n{attack}\nEND-OF-ATTACK"
        );
        self.sh(&script).await
    }

    /// Runs an attack and wants all of its attempts, at least so many, to have failed.
    pub(crate) async fn withstands(&self, attack: &str, facts: &Value, attempts: u64) {
        let output = self.python(attack, facts).await;
        let breaches: Vec<&str> = output.stdout.lines().filter(|line| line.starts_with("BREACH")).collect();
        assert!(breaches.is_empty(), "{}: {breaches:#?}", self.id);
        let tried = output.stdout.lines().find_map(|line| line.strip_prefix("tried ")?.parse::<u64>().ok());
        assert!(
            tried.is_some_and(|tried| tried >= attempts),
            "the attack itself failed:\n{}\n{}",
            output.stdout,
            output.stderr
        );
    }

    /// How long the health check takes.
    pub(crate) async fn health(&self) -> Duration {
        let started = Instant::now();
        let answer = http::get(&format!("{}/v1/sandbox", self.url)).await.expect("an answer");
        assert_eq!(answer.status, 200);
        started.elapsed()
    }

    /// A call of the agent's API; `Err` when there is no answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = ::http::Request::post(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.to_string().into_bytes());
        let answer = http::send(request.map_err(|error| error.to_string())?).await?;
        Ok(answer.json())
    }
}
