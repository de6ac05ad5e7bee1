//! Columns of text for people.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use crate::printable::printable;

/// Rows under a heading, each column as wide as its widest text.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with this heading.
    pub(crate) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    /// One more row. What cannot be printed is replaced: some of it comes from inside sandboxes.
    pub(crate) fn row(&mut self, row: [Cow<'_, str>; N]) {
        self.rows.push(row.map(|text| printable(&text)));
    }

    /// Prints it; the last column has no blanks after it.
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A time as people say it: `7s`, `12m`, `3h`, `5d`.
pub(crate) fn age(since: Duration) -> String {
    match since.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_end_without_blanks() {
        let mut table = Table::new(["ID", "STATUS"]);
        table.row(["a-long-one".into(), "Up".into()]);
        table.row(["b".into(), "\u{1b}[31mred".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let expect = "ID          STATUS\na-long-one  Up\nb            [31mred\n";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn ages_are_short() {
        for (seconds, expect) in [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Duration::from_secs(seconds)), expect);
        }
    }
}
