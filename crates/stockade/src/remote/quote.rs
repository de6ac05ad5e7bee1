//! Words as a shell takes them.

/// The word, quoted when a shell would make something else of it.
pub(crate) fn word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command line of these words. The first is always quoted, so that no keyword, alias or assignment is made of it.
pub(crate) fn line(words: &[String]) -> String {
    let mut words = words.iter();
    let first = words.next().map(|first| format!("'{}'", first.replace('\'', r"'\''")));
    first.into_iter().chain(words.map(|each| word(each))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_of_a_shell_as_they_went_in() {
        let words = ["printf", "%s|", "a b", "it's", "", "$HOME", "*", "\\", "\"", "a\nb", "-x", "`id`", "!"];
        let words: Vec<String> = words.map(str::to_owned).to_vec();
        let output = std::process::Command::new("sh").arg("-c").arg(line(&words)).output().unwrap();
        let expect: String = words[2..].iter().map(|each| format!("{each}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expect);
    }

    #[test]
    fn the_first_word_is_a_program_and_nothing_else() {
        assert_eq!(line(&["if".into()]), "'if'");
        assert_eq!(line(&["A=1".into(), "x".into()]), "'A=1' x");
    }
}
