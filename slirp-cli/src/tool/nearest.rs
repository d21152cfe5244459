//! What somebody meant who wrote an unknown word.

/// The one of `words` that `text` begins or misspells, if there is one.
pub fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let begun = words.iter().find(|word| !text.is_empty() && word.starts_with(text));
    let misspelt = || {
        let near = words.iter().map(|word| (distance(text, word), word));
        // Two letters that change places are two slips.
        near.filter(|(slips, word)| *slips <= 2 && slips * 2 <= word.len()).min()
    };
    begun.or_else(|| misspelt().map(|(_, word)| word)).copied()
}

/// How many bytes have to be added, removed or replaced to make `word` of `text` (Levenshtein), or
/// some larger number if `text` is more than twice as long.
pub fn distance(text: &str, word: &str) -> usize {
    // This also bounds the time for a long text.
    if text.len() > 2 * word.len() {
        return text.len();
    }
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (line, byte) in text.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, wanted) in word.bytes().enumerate() {
            let replaced = diagonal + usize::from(byte != wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

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
