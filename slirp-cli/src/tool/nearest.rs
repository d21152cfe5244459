//! What somebody meant who wrote an unknown word.

/// The one of `words` that `text` begins or misspells, if there is one.
pub fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let begun = words.iter().find(|word| !text.is_empty() && word.starts_with(text));
    let misspelt = || {
        let near = words.iter().map(|word| (distance(text, word), word));
        near.filter(|(slips, word)| *slips <= 2 && slips * 2 <= word.len()).min()
    };
    begun.or_else(|| misspelt().map(|(_, word)| word)).copied()
}

/// How many slips make `text` of `word`, or a larger number if `text` is more than twice as long.
/// A slip is a byte that is added, removed, replaced or has changed places with its neighbour
/// (optimal string alignment).
pub fn distance(text: &str, word: &str) -> usize {
    // This also bounds the time for a long text.
    if text.len() > 2 * word.len() {
        return text.len();
    }
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (line, byte) in text.iter().enumerate() {
        let mut next = vec![line + 1];
        for (column, wanted) in word.iter().enumerate() {
            let replaced = row[column] + usize::from(byte != wanted);
            let mut least = replaced.min(row[column + 1] + 1).min(next[column] + 1);
            let is_swap =
                line > 0 && column > 0 && byte == &word[column - 1] && text[line - 1] == *wanted;
            if is_swap {
                least = least.min(above[column - 1] + 1);
            }
            next.push(least);
        }
        above = std::mem::replace(&mut row, next);
    }
    row[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_change_places_are_one_slip() {
        assert_eq!(nearest("dsn", &["deny", "dns"]), Some("dns"));
        for (text, word, slips) in [
            ("", "dns", 3),
            ("dns", "dns", 0),
            ("dsn", "dns", 1),
            ("dn", "dns", 1),
            ("nds", "dns", 1),
        ] {
            assert_eq!(distance(text, word), slips, "{text}");
        }
    }

    #[test]
    fn misspelt_and_unfinished_words_are_recognized() {
        let words = ["check", "explain", "help"];
        for (text, meant) in [
            ("chekc", Some("check")),
            ("exp", Some("explain")),
            ("explian", Some("explain")),
            ("hlp", Some("help")),
            ("", None),
            ("approve", None),
            ("checkcheckcheck", None),
        ] {
            assert_eq!(nearest(text, &words), meant, "{text}");
        }
    }
}
