//! Durations as the API gives them: seconds, whole or not.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Longer than any wait that means something, short enough for every clock.
const LONGEST: f64 = 1e9;

/// A number of seconds from 0 to a thousand million.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(Duration);

impl Seconds {
    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=LONGEST).contains(&seconds) {
            return Err(de::Error::custom(format!(
                "{seconds} is not a number of seconds from 0 to {LONGEST}"
            )));
        }
        Duration::try_from_secs_f64(seconds).map(Self).map_err(de::Error::custom)
    }
}

impl PartialSchema for Seconds {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(LONGEST)).into()
    }
}

impl ToSchema for Seconds {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sensible_durations_are_taken() {
        let parse = |text| serde_json::from_str::<Seconds>(text);
        assert_eq!(parse("605").unwrap().duration(), Duration::from_secs(605));
        assert_eq!(parse("0.25").unwrap().duration(), Duration::from_millis(250));
        for bad in ["-1", "1e300", "\"5\"", "null"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
