//! The description for people, and for models that read text.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::routes::{ROUTES, Route, Takes};

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sandbox API</title>\
<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}\
details,.r{border-bottom:1px solid #ddd;padding:.3rem 0}summary{cursor:pointer}.r{padding-left:1.1rem}\
table{margin:.3rem 1.1rem;border-collapse:collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}small{color:#666}</style>\
<h1>Sandbox API</h1><p>Machine-readable: <a href=\"/v1/openapi.json\">openapi.json</a>. \
A terminal: <a href=\"/terminal\">/terminal</a>. Fields with * are required.</p>";

/// A field of a body, or a parameter.
struct Field {
    name: String,
    required: bool,
    kind: String,
    about: String,
}

/// The page.
pub(super) fn html() -> String {
    let mut page = HEAD.to_owned();
    for route in ROUTES {
        let title =
            format!("<code>{} {}</code> {}", route.method.to_uppercase(), route.path, escaped(route.summary));
        let fields = fields(route);
        if fields.is_empty() {
            let _ = write!(page, "<div class=\"r\">{title}</div>");
            continue;
        }
        let _ = write!(page, "<details><summary>{title}</summary><table>");
        for Field { name, required, kind, about } in fields {
            let star = if required { "*" } else { "" };
            let (name, kind, about) = (escaped(&name), escaped(&kind), escaped(&about));
            let _ = write!(
                page,
                "<tr><td><code>{name}</code>{star}</td><td><small>{kind}</small></td><td>{about}</td></tr>"
            );
        }
        page.push_str("</table></details>");
    }
    page.push_str("</html>");
    page
}

/// One line a route.
pub(super) fn text() -> String {
    let mut text = String::new();
    for route in ROUTES {
        let _ = write!(text, "{} {}: {}", route.method.to_uppercase(), route.path, route.summary);
        let fields = fields(route).into_iter().map(|f| if f.required { f.name + "*" } else { f.name });
        let fields = fields.collect::<Vec<_>>().join(", ");
        let _ = if fields.is_empty() { writeln!(text) } else { writeln!(text, " ({fields})") };
    }
    text
}

/// What a caller may say, required fields first.
fn fields(route: &Route) -> Vec<Field> {
    let schema = match (&route.takes, &route.query) {
        (Takes::Json(schema) | Takes::Form(schema), _) | (Takes::Nothing, Some(schema)) => schema(),
        (Takes::Nothing, None) => return Vec::new(),
    };
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut fields: Vec<_> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, facts)| field(name, facts, required.iter().any(|known| known == name.as_str())))
        .collect();
    fields.sort_by_key(|field| !field.required);
    fields
}

fn field(name: &str, facts: &Value, required: bool) -> Field {
    let empty = Map::new();
    let facts = facts.as_object().unwrap_or(&empty);
    let kind = match facts.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    };
    let mut kind = kind.unwrap_or("any").to_owned();
    if let Some(values) = facts.get("enum").and_then(Value::as_array) {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
        kind = values.join(" | ");
    }
    for (key, label) in
        [("minimum", "≥ "), ("maximum", "≤ "), ("maxLength", "characters ≤ "), ("default", "default ")]
    {
        if let Some(value) = facts.get(key) {
            let _ = write!(kind, ", {label}{value}");
        }
    }
    let about = facts.get("description").and_then(Value::as_str).unwrap_or("");
    Field { name: name.to_owned(), required, kind, about: about.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
