//! `POST /v1/util/convert_to_markdown`: documents as text an agent can read.
//!
//! `markitdown` does it when it is in the image. Without it, text stays as it is and HTML is reduced to Markdown.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::bash::run_once;
use crate::context::find_program;
use crate::http::{ApiError, JsonBody, ok};

const LIMIT: Duration = Duration::from_secs(50);
/// Bytes of a document that are read.
const DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;
const FETCH: &str = "exec curl -fsSL --max-time 40 --max-filesize 16777216 -- \"$STOCKADE_URI\"";
const MARKITDOWN: &str = "exec markitdown \"$STOCKADE_URI\"";

pub(crate) fn router() -> Router<App> {
    Router::new().route("/v1/util/convert_to_markdown", post(convert))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ConvertRequest {
    /// A path, or an address that begins with file://, http:// or https://.
    uri: String,
}

async fn convert(
    State(app): State<App>,
    JsonBody(request): JsonBody<ConvertRequest>,
) -> Result<Response, ApiError> {
    let uri = request.uri;
    let remote = uri.starts_with("http://") || uri.starts_with("https://");
    let path = uri.strip_prefix("file://").unwrap_or(&uri).to_owned();
    if !remote && !path.starts_with('/') {
        return Err(ApiError::invalid(
            "uri",
            format!("{uri:?} is not an http, https or file URI or an absolute path"),
        ));
    }
    if find_program("markitdown").is_some() {
        let source = if remote { uri } else { path };
        return Ok(ok("Converted", shell(&app, MARKITDOWN, source).await?));
    }
    let text = if remote {
        if find_program("curl").is_none() {
            return Err(ApiError::new(
                http::StatusCode::NOT_IMPLEMENTED,
                "curl is not in this image, which fetches pages",
            ));
        }
        shell(&app, FETCH, uri).await?
    } else {
        local(&app, path).await?
    };
    let markdown = if looks_like_html(&text) { from_html(&text) } else { text };
    Ok(ok("Converted", markdown))
}

async fn shell(app: &App, command: &str, uri: String) -> Result<String, ApiError> {
    let environment = vec![("STOCKADE_URI".to_owned(), uri.clone())];
    let ran = run_once(app, command, environment, app.workspace(), None, LIMIT).await?;
    if ran.exit_code == Some(0) {
        return Ok(ran.stdout);
    }
    let reason: String = ran.stderr.trim().chars().take(500).collect();
    Err(ApiError::bad_request(format!("{uri:?} cannot be converted: {reason}")))
}

async fn local(app: &App, path: String) -> Result<String, ApiError> {
    let home = app.home();
    let bytes = app.pool().run(move || {
        let target = crate::file::Target::parse("convert", &path, &home)?;
        crate::file::content::read_whole(&target, target.open()?, DOCUMENT_BYTES)
    });
    let bytes = bytes.await??;
    String::from_utf8(bytes).map_err(|_| {
        ApiError::new(http::StatusCode::NOT_IMPLEMENTED, "the document is not text")
            .with_hint("install markitdown in the image to convert PDF and office documents")
    })
}

fn looks_like_html(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(500).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype html")
        || start.starts_with("<html")
        || start.contains("<body")
        || start.contains("<head")
}

/// Headings, paragraphs, lists, links, emphasis and code; everything else is its text.
fn from_html(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    let mut link: Option<String> = None;
    while let Some(open) = rest.find('<') {
        text(&mut out, &rest[..open]);
        rest = &rest[open..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let Some(close) = rest.find('>') else { break };
        let tag = rest[1..close].trim();
        rest = &rest[close + 1..];
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "script" | "style" | "head" | "noscript" | "svg" => {
                let end = format!("</{name}");
                let lower = rest.to_ascii_lowercase();
                rest = lower.find(&end).map_or("", |at| &rest[at..]);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                block(&mut out);
                let level = usize::from(name.as_bytes()[1] - b'0');
                out.push_str(&"#".repeat(level));
                out.push(' ');
            }
            "p" | "/p" | "div" | "/div" | "/h1" | "/h2" | "/h3" | "/h4" | "/h5" | "/h6" | "ul" | "/ul"
            | "ol" | "/ol" | "table" | "/table" | "section" | "article" | "/section" | "/article" => {
                block(&mut out);
            }
            "br" | "br/" | "tr" | "/tr" => out.push('\n'),
            "li" => out.push_str("\n- "),
            "td" | "th" => out.push_str(" | "),
            "b" | "/b" | "strong" | "/strong" => out.push_str("**"),
            "i" | "/i" | "em" | "/em" => out.push('*'),
            "code" | "/code" => out.push('`'),
            "pre" => out.push_str("\n\n```\n"),
            "/pre" => out.push_str("\n```\n\n"),
            "a" => {
                link = attribute(tag, "href");
                if link.is_some() {
                    out.push('[');
                }
            }
            "/a" => {
                if let Some(target) = link.take() {
                    out.push_str(&format!("]({target})"));
                }
            }
            _ => {}
        }
    }
    text(&mut out, rest);
    let lines: Vec<_> = out.lines().map(str::trim_end).collect();
    let mut joined = lines.join("\n");
    while joined.contains("\n\n\n") {
        joined = joined.replace("\n\n\n", "\n\n");
    }
    joined.trim().to_owned() + "\n"
}

fn block(out: &mut String) {
    if !out.is_empty() {
        out.push_str("\n\n");
    }
}

fn text(out: &mut String, html: &str) {
    let decoded = html
        .replace("&nbsp;", " ")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&");
    let words: Vec<_> = decoded.split_whitespace().collect();
    if words.is_empty() {
        if !decoded.is_empty() && !out.ends_with(char::is_whitespace) {
            out.push(' ');
        }
        return;
    }
    if decoded.starts_with(char::is_whitespace) && !out.ends_with(char::is_whitespace) && !out.is_empty() {
        out.push(' ');
    }
    out.push_str(&words.join(" "));
    if decoded.ends_with(char::is_whitespace) {
        out.push(' ');
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let at = tag.to_ascii_lowercase().find(&format!("{name}="))?;
    let value = &tag[at + name.len() + 1..];
    let quote = value.chars().next()?;
    if quote == '"' || quote == '\'' {
        return value[1..].split(quote).next().map(str::to_owned);
    }
    value.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn html_becomes_markdown() {
        let html = "<html><head><title>x</title></head><body><h1>Title</h1><p>Some <b>bold</b> &amp; <a href=\"/l\">link</a></p><ul><li>one</li><li>two</li></ul><script>no()</script></body></html>";
        assert_eq!(from_html(html), "# Title\n\nSome **bold** & [link](/l)\n\n- one\n- two\n");
    }

    proptest! {
        #[test]
        fn no_document_panics(html in "(<[a-z/]{0,4}|>|[a-zä ]{0,5}|&amp;|<!--){0,30}") {
            let _ = from_html(&html);
        }
    }
}
