//! How many tests there were, from what test programs print.

use std::fmt;
use std::ops::AddAssign;

/// Tests by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Counts {
    /// The sum of all `test result:` lines, and of the last lines of pytest.
    pub(super) fn of(log: &str) -> Self {
        let mut counts = Self::default();
        for line in log.lines() {
            counts += Self::of_pytest(line).unwrap_or_default();
        }
        for line in log.lines().filter_map(|line| line.trim().strip_prefix("test result: ")) {
            let number_before = |word: &str| {
                let before = line.split([';', '.']).find_map(|part| part.trim().strip_suffix(word));
                before.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or_default()
            };
            counts += Self {
                passed: number_before(" passed"),
                failed: number_before(" failed"),
                skipped: number_before(" ignored"),
            };
        }
        counts
    }

    /// From `1 failed, 258 passed, 1 skipped in 31.75s (0:01:00)`, which pytest may put between `=`.
    fn of_pytest(line: &str) -> Option<Self> {
        let (outcomes, time) = line.trim_matches(['=', ' ']).split_once(" in ")?;
        let seconds = time.split(' ').next()?.strip_suffix('s')?;
        seconds.parse::<f32>().ok()?;
        let mut counts = Self::default();
        for outcome in outcomes.split(", ") {
            let (number, word) = outcome.split_once(' ')?;
            let number: u64 = number.parse().ok()?;
            match word {
                "passed" | "xfailed" => counts.passed += number,
                "failed" | "error" | "errors" | "xpassed" => counts.failed += number,
                "skipped" => counts.skipped += number,
                "deselected" | "warning" | "warnings" => {}
                _ => return None,
            }
        }
        Some(counts)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// What failed tests printed; `None` when no test failed.
pub(super) fn failures(log: &str) -> Option<String> {
    let mut shown = String::new();
    let mut inside = false;
    for line in log.lines() {
        let begins = line == "failures:" || is_heading(line, "FAILURES") || is_heading(line, "ERRORS");
        let ends = line.starts_with("test result: ") || Counts::of_pytest(line).is_some();
        inside = (inside || begins) && !ends;
        if inside {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    (!shown.is_empty()).then_some(shown)
}

/// A heading of pytest: the word between `=`.
fn is_heading(line: &str, word: &str) -> bool {
    line.starts_with("===") && line.trim_matches(['=', ' ']) == word
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
running 2 tests
test a ... ok
test b ... FAILED

failures:

---- b stdout ----
left != right

failures:
    b

test result: FAILED. 1 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests x
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_of_several_programs_are_added() {
        let counts = Counts::of(LOG);
        assert_eq!(counts, Counts { passed: 5, failed: 1, skipped: 3 });
        assert_eq!(counts.to_string(), "5 passed, 1 failed, 3 skipped");
        assert!(Counts::of("nothing of the kind").is_empty());
    }

    #[test]
    fn the_last_line_of_pytest_is_counted_in_all_its_forms() {
        for (line, expect) in [
            ("259 passed in 75.22s (0:01:15)", (259, 0, 0)),
            ("== 2 failed, 256 passed, 1 skipped, 3 warnings in 4.5s ==", (256, 2, 1)),
            ("1 passed, 258 deselected, 1 error in 0.1s", (1, 1, 0)),
            ("no tests ran in 0.01s", (0, 0, 0)),
            ("Finished 3 things in 4.0s", (0, 0, 0)),
            ("3 passed in the test", (0, 0, 0)),
        ] {
            let (passed, failed, skipped) = expect;
            assert_eq!(Counts::of(line), Counts { passed, failed, skipped }, "{line}");
        }
    }

    #[test]
    fn only_what_failed_is_shown_of_pytest() {
        let log = "..F\n=== FAILURES ===\n__ test_x __\nassert 1 == 2\n=== short test summary info ===\nFAILED x\n1 failed in 0.1s\nafter";
        let shown = failures(log).unwrap();
        assert!(shown.starts_with("=== FAILURES") && shown.ends_with("FAILED x\n"), "{shown}");
    }

    #[test]
    fn only_what_failed_is_shown() {
        let shown = failures(LOG).unwrap();
        assert!(shown.contains("left != right") && !shown.contains("running"), "{shown}");
        assert_eq!(failures("test result: ok. 1 passed; 0 failed; 0 ignored"), None);
    }
}
