//! Reading one JSON object field by field, and collecting what is wrong with it.

use serde_json::{Map, Value};

use crate::error::{FieldError, Loc};
use crate::field::Wrong;

/// One object that is being read.
pub(crate) struct Reader<'a> {
    pub(crate) whole: &'a Value,
    pub(crate) members: &'a Map<String, Value>,
    pub(crate) path: Vec<Loc>,
    pub(crate) errors: Vec<FieldError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.members.contains_key(name) {
            let loc = self.loc(name);
            self.errors.push(Wrong::missing().at(loc, self.whole));
            return None;
        }
        self.optional(name, read)
    }

    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.members.get(name)?;
        match read(value) {
            Ok(read) => Some(read),
            Err(wrong) => {
                let loc = self.loc(name);
                self.errors.push(wrong.at(loc, value));
                None
            }
        }
    }

    /// The object in a field, for `read` to read; `None` when the field is not there or null.
    pub(crate) fn inside<T>(&mut self, name: &str, read: impl FnOnce(&mut Reader<'a>) -> T) -> Option<T> {
        let whole = self.members.get(name).filter(|value| !value.is_null())?;
        let path = self.loc(name);
        let Value::Object(members) = whole else {
            self.errors.push(Wrong::not_an_object().at(path, whole));
            return None;
        };
        let mut reader = Reader { whole, members, path, errors: Vec::new() };
        let read = read(&mut reader);
        self.errors.append(&mut reader.errors);
        Some(read)
    }

    /// Refuses every member that is not one of these: what is not understood must not be ignored.
    pub(crate) fn only(&mut self, known: &[&str]) {
        for (name, value) in self.members.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let mut loc = self.path.clone();
            loc.push(crate::echo::bounded_text(name).as_str().into());
            let expected = known.join(", ");
            let wrong = Wrong::new(
                "extra_forbidden",
                format!("Extra inputs are not permitted; there are {expected}"),
            );
            self.errors.push(wrong.at(loc, value));
            if self.errors.len() > MAX_EXTRA {
                break;
            }
        }
    }

    pub(crate) fn loc(&self, name: &str) -> Vec<Loc> {
        let mut loc = self.path.clone();
        loc.push(name.into());
        loc
    }
}

/// How many unknown members one answer names.
const MAX_EXTRA: usize = 16;
