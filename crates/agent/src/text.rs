//! Cutting and decoding output without splitting characters.

/// Keeps the first and last characters of `text` so that at most about `limit` remain, and says in
/// the middle how many were left out. `limit` 0 means no limit.
pub(crate) fn cut_middle(text: String, limit: usize) -> String {
    // A text has at most as many characters as bytes, so most are settled without counting.
    if limit == 0 || text.len() <= limit {
        return text;
    }
    let count = text.chars().count();
    if count <= limit {
        return text;
    }
    let head = limit / 2;
    let tail = limit - head;
    let head_end = text.char_indices().nth(head).map_or(text.len(), |(at, _)| at);
    let tail_start = text.char_indices().nth(count - tail).map_or(text.len(), |(at, _)| at);
    let omitted = count - limit;
    format!("{}\n[... {omitted} characters omitted ...]\n{}", &text[..head_end], &text[tail_start..])
}

/// How many bytes at the end of `bytes` are the beginning of a character whose rest is not there yet.
pub(crate) fn incomplete_tail(bytes: &[u8]) -> usize {
    let window = bytes.len().min(3);
    for back in 1..=window {
        let byte = bytes[bytes.len() - back];
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let needed = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if needed > back { back } else { 0 };
    }
    0
}

/// Skips continuation bytes at the start, left over when a ring dropped the character's first byte.
pub(crate) fn skip_partial_head(bytes: &[u8]) -> &[u8] {
    let cut = bytes.iter().take(3).take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000).count();
    &bytes[cut..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_text_is_left_alone() {
        assert_eq!(cut_middle("häß".to_owned(), 3), "häß");
        assert_eq!(cut_middle("abc".to_owned(), 0), "abc");
    }

    #[test]
    fn long_text_keeps_head_and_tail() {
        let cut = cut_middle("a".repeat(50) + &"ü".repeat(50), 10);
        assert!(cut.starts_with("aaaaa\n[... 90 characters omitted ...]\n"), "{cut}");
        assert!(cut.ends_with("üüüüü"));
    }

    proptest! {
        #[test]
        fn decoding_in_pieces_equals_decoding_at_once(text in "\\PC{0,40}", cut in 0usize..160) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let held = incomplete_tail(&bytes[..cut]);
            let (first, rest) = bytes.split_at(cut - held);
            prop_assert!(std::str::from_utf8(first).is_ok());
            let joined = String::from_utf8_lossy(first).into_owned() + &String::from_utf8_lossy(rest);
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn cut_text_stays_near_the_limit(text in "\\PC{0,300}", limit in 1usize..100) {
            let cut = cut_middle(text.clone(), limit);
            prop_assert!(cut.chars().count() <= limit + 50);
            if text.chars().count() <= limit { prop_assert_eq!(cut, text); }
        }

        #[test]
        fn any_bytes_are_held_back_at_most_three(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(incomplete_tail(&bytes) <= 3.min(bytes.len()));
        }
    }
}
