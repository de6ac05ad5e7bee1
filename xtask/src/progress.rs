//! What a person sees while something takes long: a spinner or a bar in a terminal, plain lines in
//! a pipe. All of it on standard error: standard output belongs to answers.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// In a pipe a long step says this often how far it is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// One step under way. Dropped without [`Step::done`], it has failed and leaves no "done" behind.
#[derive(Debug)]
pub struct Step {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
    last_plain: Instant,
}

impl Step {
    /// Starts a step; `what` is short, in the present participle: "building etcd".
    #[must_use]
    pub fn start(what: &str) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { what: what.to_owned(), started: now, bar, last_plain: now }
    }

    /// Says how far a long step is.
    pub fn advance(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total) {
                bar.set_length(total);
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}")
                {
                    bar.set_style(style);
                }
            }
            bar.set_position(done.min(total));
        } else if self.last_plain.elapsed() >= PLAIN_INTERVAL {
            self.last_plain = Instant::now();
            say(&format!("{}: {done} of {total}", self.what));
        }
    }

    /// Ends the step and says how long it took.
    pub fn done(self) {
        let seconds = self.started.elapsed().as_secs_f32();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&format!("{}: done in {seconds:.1} s", self.what));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line for the person at the terminal, on standard error.
#[expect(clippy::print_stderr, reason = "xtask is a program for a terminal, not a server with logs")]
pub fn say(line: &str) {
    eprintln!("{line}");
}

/// An answer, on standard output.
#[expect(clippy::print_stdout, reason = "the answer of a command-line program")]
pub fn answer(text: &str) {
    println!("{text}");
}
