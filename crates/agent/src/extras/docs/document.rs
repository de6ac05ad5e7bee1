//! The OpenAPI document.

use serde_json::{Map, Value, json};

use super::routes::{Gives, ROUTES, Route, Takes, file_failure};

/// What a status means where a route names it.
const FAILURES: &[(u16, &str, &str)] = &[
    (400, "BadRequest", "Something of the request cannot be done; the message says what"),
    (401, "Unauthorized", "The sandbox asks for a token or ticket"),
    (403, "Forbidden", "The host, the origin or the file's rights forbid it"),
    (404, "NotFound", "The session, file or other thing that was named is not there"),
    (408, "TimeOut", "It did not happen, or the request did not arrive, in time"),
    (413, "TooLarge", "The body is larger than the route takes"),
    (415, "WrongType", "The body is not of the type that the route takes"),
    (422, "Invalid", "A field is missing or wrong; `detail` says which"),
    (
        501,
        "NotImplemented",
        "This image lacks what it needs; as do all routes of the full image, such as /v1/browser",
    ),
];
/// Routes that answer without a token where tokens are asked for.
const OPEN: &str = "/v1/sandbox";

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stockade sandbox agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A field that is null is as one left out. Fields that are not known are ignored.",
        },
        // A token is only asked for where the sandbox was given a key.
        "security": [{}, { "token": [] }, { "ticket": [] }],
        "paths": paths,
        "components": {
            "schemas": { "Envelope": envelope(), "FileOperationError": file_failure(), "Error": error() },
            "responses": failures(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "ticket": { "type": "apiKey", "in": "query", "name": "ticket" },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [tag(route)],
        "responses": responses(route),
    });
    let parameters: Vec<Value> = path_parameters(route).chain(query_parameters(route)).collect();
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    let (kind, schema) = match route.takes {
        Takes::Nothing => return operation,
        Takes::Json(schema) => ("application/json", schema()),
        Takes::Form(schema) => ("multipart/form-data", schema()),
    };
    // Nothing at all is read as an object without fields.
    let required = kind != "application/json" || schema.get("required").is_some();
    operation["requestBody"] = json!({ "required": required, "content": { kind: { "schema": schema } } });
    operation
}

/// `post_shell_sessions_create`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '-']).filter(|word| !word.is_empty() && *word != "v1");
    std::iter::once(route.method).chain(words).collect::<Vec<_>>().join("_")
}

fn tag(route: &Route) -> &'static str {
    let path = route.path.strip_prefix("/v1").unwrap_or(route.path);
    path.split('/').find(|part| !part.is_empty()).unwrap_or("")
}

fn path_parameters(route: &Route) -> impl Iterator<Item = Value> {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
}

fn query_parameters(route: &Route) -> impl Iterator<Item = Value> {
    let schema = route.query.map(|schema| schema()).unwrap_or_default();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties.into_iter().map(move |(name, mut schema)| {
        let description = schema.as_object_mut().and_then(|facts| facts.remove("description"));
        let mut parameter = json!({
            "in": "query", "required": required.iter().any(|known| *known == *name),
            // There is no null in an address.
            "schema": one_type(schema), "name": name,
        });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    })
}

fn one_type(mut schema: Value) -> Value {
    if let Some(kind) = schema["type"].get(0).cloned() {
        schema["type"] = kind;
    }
    schema
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    let (status, success) = success(route);
    responses.insert(status.to_owned(), success);
    let follows: &[u16] = match route.takes {
        Takes::Nothing if route.query.is_some() => &[422],
        Takes::Nothing => &[],
        Takes::Json(_) | Takes::Form(_) => &[400, 408, 413, 415, 422],
    };
    let token: &[u16] = if route.path == OPEN { &[] } else { &[401] };
    for status in [token, follows, route.fails, &[403]].concat() {
        if let Some((_, name, _)) = FAILURES.iter().find(|failure| failure.0 == status) {
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            responses.insert(status.to_string(), reference);
        }
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Other" }));
    Value::Object(responses)
}

fn success(route: &Route) -> (&'static str, Value) {
    let any = json!({});
    let (description, content) = match route.gives {
        Gives::WebSocket => return ("101", json!({ "description": "a WebSocket" })),
        Gives::Envelope => ("the envelope", json!({ "application/json": { "schema": wrapped(&any) } })),
        Gives::Data(data) => ("the envelope", json!({ "application/json": { "schema": wrapped(&data()) } })),
        Gives::FileData(data) => (
            "the envelope; with `success: false`, its data says why the call failed",
            json!({ "application/json": { "schema": wrapped_with_failure(&data()) } }),
        ),
        Gives::Stream(data) => (
            "the envelope, or events where Accept asks for text/event-stream: `output` as it comes, and last a `result`, whose data is the envelope",
            json!({
                "application/json": { "schema": wrapped(&data()) },
                "text/event-stream": { "schema": { "type": "string" } },
            }),
        ),
        Gives::Plain => (
            "without the envelope",
            json!({ "application/json": { "schema": { "type": ["object", "array"] } } }),
        ),
        Gives::Bytes => ("the bytes", json!({ "application/octet-stream": {} })),
        Gives::Events => {
            ("server-sent events", json!({ "text/event-stream": { "schema": { "type": "string" } } }))
        }
    };
    ("200", json!({ "description": description, "content": content }))
}

fn wrapped(data: &Value) -> Value {
    json!({ "allOf": [{ "$ref": "#/components/schemas/Envelope" }, { "properties": { "data": data } }] })
}

fn wrapped_with_failure(data: &Value) -> Value {
    let failed = json!({ "$ref": "#/components/schemas/FileOperationError" });
    json!({
        "allOf": [{ "$ref": "#/components/schemas/Envelope" }],
        "oneOf": [
            { "properties": { "success": { "const": true }, "data": data } },
            { "properties": { "success": { "const": false }, "data": failed } },
        ],
    })
}

fn envelope() -> Value {
    json!({
        "type": "object", "required": ["success", "message", "data", "hint"],
        "properties": {
            "success": { "type": "boolean" },
            "message": { "type": ["string", "null"] },
            "data": {},
            "hint": { "type": ["string", "null"], "description": "what the caller could do" },
        },
    })
}

fn error() -> Value {
    let place = json!({ "type": "array", "items": { "type": ["string", "integer"] } });
    let detail = json!({
        "type": "object", "required": ["loc", "msg", "type"],
        "properties": { "loc": place, "msg": { "type": "string" }, "type": { "type": "string" } },
    });
    json!({
        "allOf": [{ "$ref": "#/components/schemas/Envelope" }],
        "properties": {
            "success": { "const": false },
            "detail": { "type": "array", "items": detail, "description": "with status 422: what is wrong where" },
        },
    })
}

fn failures() -> Value {
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    let mut responses: Map<String, Value> = FAILURES
        .iter()
        .map(|(_, name, meaning)| ((*name).to_owned(), json!({ "description": meaning, "content": content })))
        .collect();
    let other = json!({ "description": "Another failure, in the same form", "content": content });
    responses.insert("Other".to_owned(), other);
    Value::Object(responses)
}
