use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::file::replace::replaced;

fn target() -> Target {
    Target::parse("test", "/x", Path::new("/")).unwrap()
}

#[track_caller]
fn check(text: &str, old: &str, new: &str, expect: &str) {
    assert_eq!(replaced(text, old, new).1, expect, "{text:?}: {old:?} for {new:?}");
}

#[test]
fn line_ends_follow_where_the_text_goes() {
    check("a\r\nb\r\n", "a", "1\n2", "1\r\n2\r\nb\r\n");
    check("a\nb\n", "a", "1\r\n2", "1\n2\nb\n");
    check("a\r\nb\nb", "b", "1\n2", "a\r\n1\n2\n1\n2");
    check("a\r\nb", "b", "1\n2", "a\r\n1\r\n2");
    check("one line", "one", "1\r\n2", "1\r\n2 line");
    check("\r\n\r\n", "\n\n", "\n", "\r\n");
    check("a\rb\r\n", "\r", "", "ab\n");
    check("a\nb\r\n", "\n", "\r\n", "a\r\nb\r\n");
    check("a\nb\r\n", "\r\n", "\n", "a\nb\n");
}

#[test]
fn a_text_of_one_line_without_an_end_is_searched_once_for_one() {
    let text = "ab".repeat(1_000_000);
    let began = std::time::Instant::now();
    assert_eq!(replaced(&text, "a", "\n").0, 1_000_000);
    assert!(began.elapsed().as_secs() < 60, "the time grows with the square of the size");
}

proptest! {
    #[test]
    fn every_form_comes_back_as_it_was(text in "\\PC{0,40}") {
        for form in [Form::Utf8WithMark, Form::Utf16Little, Form::Utf16Big] {
            let bytes = form.encode(&text);
            if text.is_empty() && form != Form::Utf8WithMark {
                continue;
            }
            prop_assert!(is_text(&bytes));
            let document = Document::decode(&target(), bytes).unwrap();
            prop_assert_eq!((document.form, document.text), (form, text.clone()));
        }
    }

    #[test]
    fn no_bytes_panic_and_both_ways_to_ask_agree(bytes in proptest::collection::vec(any::<u8>(), 0..20), mark in 0usize..4) {
        let marks: [&[u8]; 4] = [b"", UTF8_MARK, b"\xFF\xFE", b"\xFE\xFF"];
        let bytes = [marks[mark], &bytes].concat();
        prop_assert_eq!(is_text(&bytes), Document::decode(&target(), bytes).is_ok());
    }

    #[test]
    fn places_in_the_document_are_those_in_its_plain_text(text in "[ab\r\n]{0,40}", old in "[ab\n]{1,4}") {
        let occurrences = Occurrences::of(&old, &text);
        let plain = text.replace("\r\n", "\n");
        let found: Vec<_> = occurrences.ranges().map(|range| text[range].replace("\r\n", "\n")).collect();
        prop_assert_eq!(found.len(), plain.matches(&old).count());
        prop_assert!(found.iter().all(|found| *found == old));
        prop_assert_eq!(replaced(&text, &old, &old).1.replace("\r\n", "\n"), plain);
    }
}
