//! Looking out of a sandbox: the test image's own HTTP API.

use bytes::Bytes;
use serde::Deserialize;

use crate::http::{self, Answer};

/// A sandbox that runs the test image, by its URL.
#[derive(Debug, Clone)]
pub struct Testbox {
    url: String,
}

/// One mount as the sandbox sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Mount {
    /// Where.
    pub mount_point: String,
    /// What was bound there, as a path of its file system.
    pub root: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// The name of an errno: `EROFS`.
pub type Errno = String;

impl Testbox {
    /// The sandbox at this URL.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// Whether it answers, and with which host name (its Pod's name).
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub async fn host_name(&self) -> Result<String, String> {
        let answer = http::get(&format!("{}/v1/sandbox", self.url)).await?;
        match answer.status {
            200 => Ok(answer.json()["hostname"].as_str().unwrap_or_default().to_owned()),
            status => Err(format!("HTTP {status}: {}", answer.text())),
        }
    }

    /// All mounts.
    pub async fn mounts(&self) -> Vec<Mount> {
        let answer = self.get("/mounts").await;
        serde_json::from_value(answer.json()["mounts"].clone()).expect("mounts")
    }

    /// The mount at exactly this place.
    pub async fn mount_at(&self, place: &str) -> Mount {
        let mounts = self.mounts().await;
        mounts.into_iter().rfind(|mount| mount.mount_point == place).unwrap_or_else(|| {
            panic!("nothing is mounted at {place}");
        })
    }

    /// The value of an environment variable.
    pub async fn env(&self, name: &str) -> Option<String> {
        let answer = self.get(&format!("/env?name={name}")).await;
        answer.json()["value"].as_str().map(str::to_owned)
    }

    /// A file's content.
    ///
    /// # Errors
    /// The errno.
    pub async fn read(&self, path: &str) -> Result<Bytes, Errno> {
        let answer = self.get(&format!("/files?path={path}")).await;
        if answer.status == 200 { Ok(answer.body) } else { Err(errno(&answer)) }
    }

    /// Writes a file.
    ///
    /// # Errors
    /// The errno.
    pub async fn write(&self, path: &str, content: &str) -> Result<(), Errno> {
        let answer = self.send("PUT", &format!("/files?path={path}"), content).await.expect("an answer");
        if answer.status == 200 { Ok(()) } else { Err(errno(&answer)) }
    }

    /// What a GET from inside the sandbox is answered.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn fetch(&self, url: &str) -> Result<(u16, String), String> {
        let answer = http::get(&format!("{}/fetch?url={url}", self.url)).await?;
        let body = answer.json();
        match (answer.status, body["status"].as_u64().and_then(|status| u16::try_from(status).ok())) {
            (200, Some(status)) => Ok((status, body["body"].as_str().unwrap_or_default().to_owned())),
            _ => Err(answer.text()),
        }
    }

    /// Ends the sandbox's process. It does not answer first.
    pub async fn crash(&self, code: i32) {
        let _ = self.send("POST", &format!("/exit?code={code}"), "").await;
    }

    /// Takes memory. When it is too much there is no answer.
    pub async fn allocate(&self, mib: u32) {
        let _ = self.send("POST", &format!("/allocate?mib={mib}"), "").await;
    }

    async fn get(&self, path: &str) -> Answer {
        http::get(&format!("{}{path}", self.url)).await.expect("a sandbox that answers")
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let request = ::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .body(body.as_bytes().to_vec())
            .map_err(|error| error.to_string())?;
        http::send(request).await
    }
}

fn errno(answer: &Answer) -> Errno {
    answer.json()["error"].as_str().map_or_else(|| answer.text(), str::to_owned)
}
