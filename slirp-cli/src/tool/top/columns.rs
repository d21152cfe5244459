//! The panes and their columns.
//!
//! Owns which columns there are, their letters, and from which width of the screen on each is
//! shown.

/// One of the views.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) enum Pane {
    #[default]
    Names,
    Flows,
    Denied,
    Dns,
    Rules,
    Questions,
    Members,
}

/// In the order of their numbers.
pub(super) const PANES: [(Pane, &str); 7] = [
    (Pane::Names, "names"),
    (Pane::Flows, "flows"),
    (Pane::Denied, "denied"),
    (Pane::Dns, "dns"),
    (Pane::Rules, "rules"),
    (Pane::Questions, "questions"),
    (Pane::Members, "members"),
];

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// The key that sorts by it.
    pub(super) letter: char,
    /// Cells of the screen; 0 for the column that takes the rest.
    pub(super) width: usize,
    /// Numbers stand on the right, and the greatest comes first.
    pub(super) is_number: bool,
    /// The screen's width from which on it is shown.
    pub(super) from: usize,
}

const fn words(title: &'static str, letter: char, width: usize, from: usize) -> Column {
    Column { title, letter, width, is_number: false, from }
}

const fn numbers(title: &'static str, letter: char, width: usize, from: usize) -> Column {
    Column { title, letter, width, is_number: true, from }
}

/// How a table is sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) is_reversed: bool,
}

const NAMES: &[Column] = &[
    words("NAME", 'n', 0, 0),
    words("PORTS", 'p', 9, 60),
    numbers("CONN", 'c', 5, 0),
    words("VERDICT", 'v', 7, 0),
    words("RULE", 'u', 14, 100),
    numbers("OUT/s", 'O', 6, 50),
    numbers("IN/s", 'I', 6, 50),
    numbers("OUT", 'o', 6, 0),
    numbers("IN", 'i', 6, 0),
    numbers("IDLE", 't', 5, 70),
];

const FLOWS: &[Column] = &[
    words("FLOW", 'f', 8, 90),
    words("GUEST", 'g', 21, 0),
    words("TO", 'n', 0, 0),
    words("PROTO", 'p', 5, 70),
    words("STATE", 's', 11, 110),
    words("RULE", 'u', 14, 130),
    numbers("OUT/s", 'O', 6, 60),
    numbers("IN/s", 'I', 6, 60),
    numbers("OUT", 'o', 6, 100),
    numbers("IN", 'i', 6, 100),
    numbers("AGE", 'a', 5, 120),
    numbers("IDLE", 't', 5, 50),
];

const DENIED: &[Column] = &[
    words("DESTINATION", 'n', 0, 0),
    numbers("PORT", 'p', 5, 0),
    words("PROTO", 'o', 5, 60),
    words("CAUSE", 'v', 18, 0),
    words("GUEST", 'g', 15, 70),
    numbers("COUNT", 'c', 6, 0),
    numbers("LAST", 't', 5, 50),
];

const DNS: &[Column] = &[
    words("LOOKUP", 'n', 0, 0),
    words("TYPE", 'p', 6, 0),
    words("ANSWER", 'v', 11, 0),
    words("GUEST", 'g', 15, 70),
    numbers("COUNT", 'c', 6, 0),
    numbers("LAST", 't', 5, 50),
];

const RULES: &[Column] = &[
    words("RULE", 'n', 0, 0),
    words("FROM", 'u', 18, 50),
    numbers("CONN", 'c', 5, 60),
    numbers("OUT", 'o', 6, 70),
    numbers("IN", 'i', 6, 70),
    numbers("ENDS", 't', 5, 80),
];

const QUESTIONS: &[Column] =
    &[words("QUESTION", 'n', 0, 0), words("GUEST", 'g', 20, 60), words("HELD", 't', 32, 0)];

const MEMBERS: &[Column] = &[
    numbers("MEMBER", 'm', 6, 0),
    words("ADDRESSES", 'n', 0, 0),
    numbers("CONN", 'c', 5, 0),
    numbers("OUT", 'o', 6, 0),
    numbers("IN", 'i', 6, 0),
];

/// The columns of a pane, and how it is sorted at first.
pub(super) const fn columns(pane: Pane) -> (&'static [Column], Sort) {
    const fn by(column: usize) -> Sort {
        Sort { column, is_reversed: false }
    }
    match pane {
        Pane::Names => (NAMES, by(8)),
        Pane::Flows => (FLOWS, by(7)),
        Pane::Denied => (DENIED, Sort { column: 6, is_reversed: true }),
        Pane::Dns => (DNS, Sort { column: 5, is_reversed: true }),
        Pane::Rules => (RULES, by(0)),
        Pane::Questions => (QUESTIONS, by(2)),
        Pane::Members => (MEMBERS, Sort { column: 0, is_reversed: true }),
    }
}
