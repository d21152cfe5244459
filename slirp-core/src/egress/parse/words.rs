//! The words of a line, and where in the line they stand.

use crate::egress::error::{Excerpt, RuleErrorKind};

/// What is wrong with a line, and at which byte of it.
#[derive(Debug)]
pub(in crate::egress) struct Wrong {
    pub(in crate::egress) at: usize,
    pub(in crate::egress) kind: RuleErrorKind,
}

/// A part of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    /// Its first byte's index in the line.
    pub(super) at: usize,
}

impl<'a> Word<'a> {
    /// Whether it is the `other` word, in any case.
    pub(super) fn is(self, other: &str) -> bool {
        self.text.eq_ignore_ascii_case(other)
    }

    /// The value that belongs to this word in `table`.
    pub(super) fn find<T: Copy>(self, table: &[(&str, T)]) -> Option<T> {
        table.iter().find(|(word, _)| self.is(word)).map(|(_, value)| *value)
    }

    /// The part from the byte `from` up to the byte `to` of this word.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        Self { text: &self.text[from..to], at: self.at + from }
    }

    /// The parts before and behind the separator at the byte `index`, which is ASCII.
    pub(super) fn split_at_separator(self, index: usize) -> (Self, Self) {
        (self.part(0, index), self.part(index + 1, self.text.len()))
    }

    pub(super) fn excerpt(self) -> Excerpt {
        Excerpt::new(self.text)
    }

    pub(super) fn wrong(self, kind: RuleErrorKind) -> Wrong {
        Wrong { at: self.at, kind }
    }
}

/// Cuts a line into words at blanks. Blanks between double quotes do not cut, and a `#` outside of
/// them begins a comment.
#[derive(Debug)]
pub(super) struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    /// Something is missing behind the words so far.
    pub(super) fn missing(&self, kind: RuleErrorKind) -> Wrong {
        Wrong { at: self.at, kind }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let is_blank = |character| character == ' ' || character == '\t';
        let rest = &self.line[self.at..];
        let text = rest.trim_start_matches(is_blank);
        let at = self.at + rest.len() - text.len();
        let mut is_quoted = false;
        let end = text.find(|character| {
            is_quoted ^= character == '"';
            !is_quoted && (is_blank(character) || character == '#')
        });
        let text = &text[..end.unwrap_or(text.len())];
        if text.is_empty() {
            return None;
        }
        self.at = at + text.len();
        Some(Word { text, at })
    }
}
