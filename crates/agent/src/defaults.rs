//! Flags of requests whose type says what they are when they are left out, or null.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::json;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// `true` unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnByDefault(pub(crate) bool);

/// `false` unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffByDefault(pub(crate) bool);

macro_rules! flag {
    ($name:ident, $default:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // serde gives a field that is left out as a null.
                Ok(Self(Option::deserialize(deserializer)?.unwrap_or($default)))
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                flag($default).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    };
}

flag!(OnByDefault, true);
flag!(OffByDefault, false);

fn flag(default: bool) -> Object {
    let types = SchemaType::from_iter([Type::Boolean, Type::Null]);
    ObjectBuilder::new().schema_type(types).default(Some(json!(default))).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Flags {
        on: OnByDefault,
        off: OffByDefault,
    }

    #[test]
    fn what_is_left_out_or_null_is_the_default() {
        for text in ["{}", r#"{"on": null, "off": null}"#] {
            let flags: Flags = serde_json::from_str(text).unwrap();
            assert_eq!((flags.on.0, flags.off.0), (true, false), "{text}");
        }
        let flags: Flags = serde_json::from_str(r#"{"on": false, "off": true}"#).unwrap();
        assert_eq!((flags.on.0, flags.off.0), (false, true));
        assert!(serde_json::from_str::<Flags>(r#"{"on": 1}"#).is_err());
    }
}
