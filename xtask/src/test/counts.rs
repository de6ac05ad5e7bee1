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
    /// The sum of all `test result:` lines.
    pub(super) fn of(log: &str) -> Self {
        let mut counts = Self::default();
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
        inside = (inside || line == "failures:") && !line.starts_with("test result: ");
        if inside {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    (!shown.is_empty()).then_some(shown)
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
    fn only_what_failed_is_shown() {
        let shown = failures(LOG).unwrap();
        assert!(shown.contains("left != right") && !shown.contains("running"), "{shown}");
        assert_eq!(failures("test result: ok. 1 passed; 0 failed; 0 ignored"), None);
    }
}
