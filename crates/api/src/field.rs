//! Reading fields as pydantic's lax mode reads them, with its names for what is wrong.
//!
//! Callers of the reference see its answers through FastAPI: the same types, places and messages here.

use serde_json::{Value, json};

use crate::echo;
use crate::error::{FieldError, Loc};

/// What is wrong with a value, apart from where it is and what it is.
pub(crate) struct Wrong {
    kind: &'static str,
    msg: String,
    ctx: Option<Value>,
}

impl Wrong {
    pub(crate) fn new(kind: &'static str, msg: impl Into<String>) -> Self {
        Self { kind, msg: msg.into(), ctx: None }
    }

    pub(crate) fn with(self, ctx: Value) -> Self {
        Self { ctx: Some(ctx), ..self }
    }

    pub(crate) fn missing() -> Self {
        Self::new("missing", "Field required")
    }

    pub(crate) fn not_an_object() -> Self {
        Self::new(
            "model_attributes_type",
            "Input should be a valid dictionary or object to extract fields from",
        )
    }

    pub(crate) fn pattern(pattern: &str) -> Self {
        Self::new("string_pattern_mismatch", format!("String should match pattern '{pattern}'"))
            .with(json!({ "pattern": pattern }))
    }

    pub(crate) fn too_long(max: usize) -> Self {
        Self::new("string_too_long", format!("String should have at most {max} characters"))
            .with(json!({ "max_length": max }))
    }

    pub(crate) fn too_many(max: usize, actual: usize) -> Self {
        Self::new("too_long", format!("List should have at most {max} items after validation, not {actual}"))
            .with(json!({ "field_type": "List", "max_length": max, "actual_length": actual }))
    }

    pub(crate) fn not_supported(field: &str) -> Self {
        Self::new(
            "not_supported",
            format!("'{field}' is not available in this version of Stockade; leave it out"),
        )
    }

    pub(crate) fn not_supported_here(field: &str) -> Self {
        Self::new(
            "not_supported",
            format!("'{field}' is not available on this server's backend; leave it out"),
        )
    }

    /// The whole error.
    pub(crate) fn at(self, loc: Vec<Loc>, input: &Value) -> FieldError {
        FieldError {
            kind: self.kind.to_owned(),
            loc,
            msg: self.msg,
            input: echo::bounded(input),
            ctx: self.ctx,
        }
    }
}

/// A text; nothing else is turned into one.
pub(crate) fn text(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or_else(|| Wrong::new("string_type", "Input should be a valid string"))
}

/// A truth value: true and false, 0 and 1, and the usual words.
pub(crate) fn boolean(value: &Value) -> Result<bool, Wrong> {
    let unreadable =
        || Wrong::new("bool_parsing", "Input should be a valid boolean, unable to interpret input");
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(word) => boolean_word(word).ok_or_else(unreadable),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Ok(false),
            Some(1.0) => Ok(true),
            Some(other) if other.fract() == 0.0 => Err(unreadable()),
            _ => Err(Wrong::new("bool_type", "Input should be a valid boolean")),
        },
        _ => Err(Wrong::new("bool_type", "Input should be a valid boolean")),
    }
}

/// A truth value by its word, in any case.
#[must_use]
pub fn boolean_word(word: &str) -> Option<bool> {
    const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const FALSE: [&str; 6] = ["0", "off", "f", "false", "n", "no"];
    let is_in = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    match (is_in(&TRUE), is_in(&FALSE)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// A whole number: also one that is written as a text or with a fraction of zero, and a truth value.
pub(crate) fn integer(value: &Value) -> Result<i64, Wrong> {
    match value {
        Value::Bool(value) => Ok(i64::from(*value)),
        Value::String(text) => integer_text(text),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(whole),
            (None, Some(float)) if float.fract() == 0.0 => whole_float(float).ok_or_else(too_large),
            _ => Err(Wrong::new(
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            )),
        },
        _ => Err(Wrong::new("int_type", "Input should be a valid integer")),
    }
}

fn too_large() -> Wrong {
    Wrong::new("int_parsing_size", "Unable to parse input as an integer, exceeded maximum size")
}

/// The whole number that a float without a fraction is.
#[allow(clippy::cast_possible_truncation)] // the range is checked; 2^63 itself is out of it
fn whole_float(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&float).then_some(float as i64)
}

fn integer_text(text: &str) -> Result<i64, Wrong> {
    let unreadable =
        || Wrong::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer");
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|c| c == b'0') => whole,
        Some(_) => return Err(unreadable()),
        None => text,
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    // An underscore may stand between two digits.
    let is_number =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|c| c.is_ascii_digit()));
    if !is_number {
        return Err(unreadable());
    }
    whole.replace('_', "").parse().map_err(|_| too_large())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value)] // tables read better
    fn check<T: PartialEq + std::fmt::Debug>(
        read: fn(&Value) -> Result<T, Wrong>,
        value: Value,
        expect: Result<T, &str>,
    ) {
        assert_eq!(read(&value).map_err(|wrong| wrong.kind), expect, "{value}");
    }

    #[test]
    fn booleans_are_read_as_pydantic_reads_them() {
        for (value, expect) in [
            (json!(true), Ok(true)),
            (json!("True"), Ok(true)),
            (json!("off"), Ok(false)),
            (json!(1), Ok(true)),
            (json!(0.0), Ok(false)),
            (json!(2), Err("bool_parsing")),
            (json!("maybe"), Err("bool_parsing")),
            (json!(" true"), Err("bool_parsing")),
            (json!(0.5), Err("bool_type")),
            (json!(null), Err("bool_type")),
            (json!([true]), Err("bool_type")),
        ] {
            check(boolean, value, expect);
        }
    }

    #[test]
    fn integers_are_read_as_pydantic_reads_them() {
        for (value, expect) in [
            (json!(2), Ok(2)),
            (json!(2.0), Ok(2)),
            (json!(true), Ok(1)),
            (json!(" +2.00 "), Ok(2)),
            (json!("-1_000"), Ok(-1000)),
            (json!("2.5"), Err("int_parsing")),
            (json!("1__0"), Err("int_parsing")),
            (json!("+-1"), Err("int_parsing")),
            (json!(""), Err("int_parsing")),
            (json!("99999999999999999999"), Err("int_parsing_size")),
            (json!(1e300), Err("int_parsing_size")),
            (json!(u64::MAX), Err("int_parsing_size")),
            (json!(2.5), Err("int_from_float")),
            (json!({}), Err("int_type")),
        ] {
            check(integer, value, expect);
        }
    }
}
