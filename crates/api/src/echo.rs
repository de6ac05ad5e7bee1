//! Showing a caller what it sent, without sending all of it back.

use serde_json::{Map, Value};

/// The most bytes of text that one echo repeats.
const MAX_TEXT: usize = 512;
/// The most members of lists and objects that one echo repeats.
const MAX_MEMBERS: usize = 32;

/// The value, cut where it is long. What is left out is marked by `…`.
#[must_use]
pub fn bounded(value: &Value) -> Value {
    Budget { text: MAX_TEXT, members: MAX_MEMBERS }.value(value)
}

/// The text, cut where it is long.
#[must_use]
pub fn bounded_text(text: &str) -> String {
    Budget { text: MAX_TEXT, members: 0 }.text(text)
}

/// What may still be repeated, over all levels.
struct Budget {
    text: usize,
    members: usize,
}

impl Budget {
    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => {
                let mut kept = Vec::new();
                for item in items {
                    if !self.take_member() {
                        kept.push(Value::from("…"));
                        break;
                    }
                    kept.push(self.value(item));
                }
                Value::Array(kept)
            }
            Value::Object(members) => {
                let mut kept = Map::new();
                for (name, member) in members {
                    if !self.take_member() {
                        kept.insert("…".to_owned(), Value::from("…"));
                        break;
                    }
                    let name = self.text(name);
                    let member = self.value(member);
                    kept.insert(name, member);
                }
                Value::Object(kept)
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        if text.len() <= self.text {
            self.text -= text.len();
            return text.to_owned();
        }
        let end = (0..=self.text).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.text = 0;
        format!("{}…", &text[..end])
    }

    fn take_member(&mut self) -> bool {
        self.members = match self.members.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_short_is_repeated_as_it_is() {
        let value = json!({"a": [1, null, "x"], "b": {"c": true}});
        assert_eq!(bounded(&value), value);
    }

    #[test]
    fn what_is_long_is_cut_at_a_character() {
        let echoed = bounded(&json!("é".repeat(10_000)));
        assert_eq!(echoed, json!(format!("{}…", "é".repeat(256))));
    }

    #[test]
    fn wide_and_deep_values_share_one_budget() {
        let wide = json!(vec![vec!["x".repeat(300); 1000]; 1000]);
        assert!(bounded(&wide).to_string().len() < 2048);
    }
}
