//! `/v1/openapi.json` says what the routes take: each is asked with what the document forbids.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic as they do")]

mod common;

use common::{Agent, Client};
use serde_json::{Map, Value, json};

/// A route with a JSON body whose fields are described.
struct Route {
    method: String,
    path: String,
    schema: Value,
}

fn described(client: &mut Client) -> Vec<Route> {
    let document = client.get("/v1/openapi.json").json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = operation["requestBody"]["content"]["application/json"]["schema"].clone();
            if schema["properties"].is_object() {
                let path = path.replace("{id}", "none");
                routes.push(Route { method: method.to_uppercase(), path, schema });
            }
        }
    }
    assert!(routes.len() >= 30, "{} routes", routes.len());
    routes
}

/// A value of the field that is described, or one that is not of its type.
fn value(schema: &Value, right: bool) -> Value {
    if let (Some(values), true) = (schema["enum"].as_array(), right) {
        return values[0].clone();
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match (kind.unwrap_or("none"), right) {
        ("string", true) => json!("x"),
        ("boolean", true) => json!(true),
        ("integer" | "number", true) => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        ("array", true) => json!([]),
        ("object", true) => json!({}),
        ("string", false) if schema["enum"].is_array() => json!("none of them"),
        ("string" | "array", false) => json!(1),
        ("boolean" | "integer" | "number" | "object", false) => json!("x"),
        (kind, _) => panic!("type {kind} of {schema}"),
    }
}

fn required(route: &Route) -> Map<String, Value> {
    let names = route.schema["required"].as_array().cloned().unwrap_or_default();
    let field = |name: Value| {
        let name = name.as_str().unwrap().to_owned();
        let value = value(&route.schema["properties"][&name], true);
        (name, value)
    };
    names.into_iter().map(field).collect()
}

fn ask(client: &mut Client, route: &Route, body: &Map<String, Value>) -> (u16, Value) {
    let body = json!(body).to_string();
    let Route { method, path, .. } = route;
    client.raw(
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    let answer = client.answer();
    (answer.status, answer.json())
}

#[test]
fn a_field_that_is_said_to_be_required_is() {
    let agent = Agent::start();
    let mut client = agent.client();
    for route in described(&mut client) {
        for name in required(&route).keys() {
            let mut body = required(&route);
            body.remove(name);
            let (status, answer) = ask(&mut client, &route, &body);
            assert_eq!(
                (status, &answer["detail"][0]["loc"]),
                (422, &json!(["body", name])),
                "{}",
                route.path
            );
        }
    }
}

#[test]
fn every_field_has_the_type_and_bounds_that_are_said() {
    let agent = Agent::start();
    let mut client = agent.client();
    for route in described(&mut client) {
        for (name, schema) in route.schema["properties"].as_object().unwrap() {
            let mut wrong = vec![value(schema, false)];
            if schema["type"] != json!("object") && !required(&route).contains_key(name) {
                assert_eq!(
                    schema["type"][1], "null",
                    "{} {name} may be left out, and so be null",
                    route.path
                );
            }
            if let Some(least) = schema["minimum"].as_i64() {
                wrong.push(json!(least - 1));
            }
            if let Some(most) = schema["maximum"].as_f64() {
                wrong.push(json!(most * 2.0 + 1.0));
            }
            if let Some(longest) = schema["maxLength"].as_u64() {
                wrong.push(json!("y".repeat(usize::try_from(longest).unwrap() + 1)));
            }
            for wrong in wrong {
                let mut body = required(&route);
                body.insert(name.clone(), wrong.clone());
                let (status, answer) = ask(&mut client, &route, &body);
                let shown: String = wrong.to_string().chars().take(40).collect();
                // A session that is not there is looked for before what its fields hold.
                let looked_up = status == 404 && answer["message"].as_str().unwrap().contains("not found");
                assert!(status == 422 || looked_up, "{} {name} = {shown}: {status} {answer}", route.path);
            }
        }
    }
}

#[test]
fn every_operation_is_named_once_and_every_field_explained() {
    let agent = Agent::start();
    let mut client = agent.client();
    let document = client.get("/v1/openapi.json").json();
    let mut names: Vec<&str> = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            names.push(operation["operationId"].as_str().unwrap());
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let page = String::from_utf8(client.get("/v1/docs").body).unwrap();
    for field in ["hard_timeout", "max_file_size", "change_policy", "press_enter"] {
        assert!(page.contains(&format!("<code>{field}</code>")), "{field}");
    }
}
