//! Schemas of requests and answers, from the types that the handlers read and write.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

/// Makes a schema. Nothing is kept between two questions for the description.
pub(crate) type SchemaOf = fn() -> Value;

/// The JSON schema of `T`, complete in itself.
pub(crate) fn of<T: ToSchema>() -> Value {
    let mut named = Vec::new();
    T::schemas(&mut named);
    let mut schema = to_value(&T::schema());
    settle(&mut schema, &named);
    schema
}

/// The same without the nulls that stand for a field left out, for readers that know one type a field.
pub(crate) fn without_nulls(mut schema: Value) -> Value {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return schema };
    for property in properties.values_mut() {
        if let Some([kind, null]) = property["type"].as_array().map(Vec::as_slice)
            && null == "null"
        {
            property["type"] = kind.clone();
        }
        if let Some(values) = property.get_mut("enum").and_then(Value::as_array_mut) {
            values.retain(|value| !value.is_null());
        }
    }
    schema
}

fn to_value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// Puts named schemas where they are referred to, and says "or null" in one way.
fn settle(schema: &mut Value, named: &[(String, RefOr<Schema>)]) {
    let Value::Object(facts) = schema else { return };
    let name = facts.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    if let Some(name) = name
        && let Some((_, target)) = named.iter().find(|(known, _)| known == name)
        && let Value::Object(target) = to_value(target)
    {
        facts.remove("$ref");
        merge(facts, target);
    }
    if let Some(Value::Array(mut choices)) = facts.remove("oneOf") {
        choices.iter_mut().for_each(|choice| settle(choice, named));
        let or_null = choices.iter().position(|choice| *choice == json!({ "type": "null" }));
        match (choices.as_mut_slice(), or_null) {
            ([other, _], Some(1)) | ([_, other], Some(0)) => {
                if let Value::Object(other) = other {
                    nullable(other);
                    merge(facts, std::mem::take(other));
                }
            }
            _ => drop(facts.insert("oneOf".to_owned(), json!(choices))),
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = facts.get_mut(key) {
            settle(below, named);
        }
    }
    let mut optional = Vec::new();
    if let Some(Value::Object(properties)) = facts.get_mut("properties") {
        for (name, property) in properties {
            settle(property, named);
            // What has a default may be left out.
            if property.get("default").is_some() {
                optional.push(name.clone());
            }
        }
    }
    if let Some(Value::Array(required)) = facts.get_mut("required") {
        required.retain(|name| !optional.iter().any(|optional| name == optional));
        if required.is_empty() {
            facts.remove("required");
        }
    }
}

/// What stands at the place of use goes before what the named schema says.
fn merge(facts: &mut Map<String, Value>, others: Map<String, Value>) {
    for (key, value) in others {
        facts.entry(key).or_insert(value);
    }
}

fn nullable(facts: &mut Map<String, Value>) {
    if let Some(kind @ Value::String(_)) = facts.get_mut("type") {
        *kind = json!([kind.clone(), "null"]);
    }
    if let Some(Value::Array(values)) = facts.get_mut("enum") {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::OnByDefault;
    use crate::seconds::Seconds;

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    enum Colour {
        Red,
    }

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct Thing {
        /// Its name.
        name: String,
        colour: Option<Colour>,
        wait: Option<Seconds>,
        on: OnByDefault,
    }

    #[test]
    fn named_types_are_put_in_and_defaults_are_optional() {
        let schema = of::<Thing>();
        assert_eq!(schema["required"], json!(["name"]));
        let properties = &schema["properties"];
        assert_eq!(properties["name"], json!({ "type": "string", "description": "Its name." }));
        assert_eq!(properties["colour"], json!({ "type": ["string", "null"], "enum": ["Red", null] }));
        assert_eq!(properties["wait"]["type"], json!(["number", "null"]));
        assert_eq!(properties["on"], json!({ "type": ["boolean", "null"], "default": true }));
        let plain = without_nulls(schema);
        assert_eq!(plain["properties"]["colour"], json!({ "type": "string", "enum": ["Red"] }));
        assert_eq!(plain["properties"]["wait"]["type"], "number");
    }
}
