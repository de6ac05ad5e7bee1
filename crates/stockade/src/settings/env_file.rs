//! Files of variables, one `NAME=value` a line.

use std::collections::BTreeMap;

/// The most bytes of such a file: what a create request may hold.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// The variables of a file. A line is `NAME=value`, taken as it is, without quotes or substitution; empty lines
/// and those that begin with `#` are left out.
///
/// # Errors
/// The first line that is wrong, by its number and never by its content: it may be a secret.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("has {} bytes; at most {MAX_BYTES} are taken", text.len()));
    }
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = pair(line).map_err(|expected| format!("line {} {expected}", number + 1))?;
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

/// `NAME=value`, taken apart.
///
/// # Errors
/// What would be right, to be read after the pair's place.
pub(crate) fn pair(text: &str) -> Result<(&str, &str), &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=value")?;
    let starts_well = name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if !starts_well || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Err("must be NAME=value with a name of letters, digits and _");
    }
    if name.starts_with("STOCKADE_") {
        return Err("names a variable that begins with STOCKADE_; those are the sandbox's own");
    }
    if value.contains('\0') {
        return Err("has a NUL character in its value");
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_as_they_are() {
        let variables = parse("# tokens\n\nTOKEN=a=b \"c\"\n  # more\nEMPTY=\n").unwrap();
        let expect = [("EMPTY", ""), ("TOKEN", "a=b \"c\"")];
        assert_eq!(variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_alone() {
        for (text, expect) in [
            ("A=1\nhunter22", "line 2 must be NAME=value"),
            ("1A=hunter22", "line 1 must be NAME=value with a name of letters, digits and _"),
            (
                "STOCKADE_X=hunter22",
                "line 1 names a variable that begins with STOCKADE_; those are the sandbox's own",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expect);
        }
        assert!(parse(&"#".repeat(MAX_BYTES + 1)).unwrap_err().contains("at most"));
    }
}
