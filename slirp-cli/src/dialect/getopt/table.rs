//! A dialect's options, as data.
//!
//! Owns the shape of the one table that drives a dialect's parser, its `--help`, its manual page
//! and its completions; how an option is found by its name; and how `--help` lists the options. A
//! dialect owns its table.

use crate::words::Offers;

/// One option. `I` is the dialect's name for it.
#[derive(Debug)]
pub(crate) struct OptionSpec<I> {
    pub(crate) id: I,
    /// The short form, an ASCII character.
    pub(crate) short: Option<u8>,
    /// The long form without its dashes.
    pub(crate) long: &'static str,
    /// The placeholder of the value, for an option that takes one.
    pub(crate) value: Option<&'static str>,
    /// The description in `--help`. An option without one works and is not listed: an old name.
    pub(crate) about: Option<&'static str>,
    /// What a shell offers for the value.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests make the completions of it"))]
    pub(crate) offers: Offers,
    pub(crate) origin: Origin,
}

impl<I> OptionSpec<I> {
    /// Whether the option is our own, and the program whose dialect it is lacks it.
    #[cfg(test)]
    pub(crate) fn is_ours(&self) -> bool {
        self.origin == Origin::Ours
    }
}

/// Which program the option comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Origin {
    /// An option of the program whose dialect it is, with its place in the list that an error about
    /// an ambiguous prefix prints. Options of the same place have the order of the table.
    Upstream(u8),
    /// An option of our own. It has no short form, because future versions of that program may use
    /// any letter. It gives way: a prefix of any upstream option is resolved as if ours did not
    /// exist. So no abbreviation that callers use changes its meaning or becomes ambiguous.
    Ours,
}

/// Makes the type `OptionId` and the table `OPTIONS` of one list, in the order of `--help`.
macro_rules! options {
    (@maybe) => { None };
    (@maybe $value:literal) => { Some($value) };
    (@offers) => { $crate::words::Offers::Nothing };
    (@offers $offers:expr) => { $offers };
    ($(
        $id:ident: $origin:expr, $([$short:literal])? $long:literal $(= $value:literal)?
        $(of $offers:expr)? $(, $about:literal)?;
    )+) => {
        /// The name of an option.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum OptionId { $( $id, )+ }

        /// Every option, in the order of `--help`.
        pub(crate) const OPTIONS: &[$crate::dialect::getopt::OptionSpec<OptionId>] = &[
            $( $crate::dialect::getopt::OptionSpec {
                id: OptionId::$id,
                origin: $origin,
                short: options!(@maybe $($short)?),
                long: $long,
                value: options!(@maybe $($value)?),
                about: options!(@maybe $($about)?),
                offers: options!(@offers $($offers)?),
            }, )+
        ];
    };
}
pub(crate) use options;

/// The option that `short` stands for.
pub(crate) fn by_short<I>(table: &[OptionSpec<I>], short: u8) -> Option<&OptionSpec<I>> {
    table.iter().find(|option| option.short == Some(short))
}

/// The option whose long form is `name`. If there is none, the options that start with it: upstream
/// ones if any match, otherwise our own.
pub(crate) fn by_long<'a, I>(table: &'a [OptionSpec<I>], name: &[u8]) -> Vec<&'a OptionSpec<I>> {
    if let Some(exact) = table.iter().find(|option| option.long.as_bytes() == name) {
        return vec![exact];
    }
    let mut found: Vec<_> =
        table.iter().filter(|option| option.long.as_bytes().starts_with(name)).collect();
    found.sort_by_key(|option| option.origin);
    if found.first().is_some_and(|option| option.origin != Origin::Ours) {
        found.retain(|option| option.origin != Origin::Ours);
    }
    found
}

/// The lines of `--help` below its head, one for each listed option. Descriptions start behind
/// `left` columns.
pub(crate) fn listing<'t, I: 't>(
    table: impl IntoIterator<Item = &'t OptionSpec<I>>,
    left: usize,
) -> String {
    let mut text = String::new();
    for option in table {
        let Some(about) = option.about else { continue };
        text.push_str(&format!("{:<left$}{about}\n", left_column(option)));
    }
    text
}

/// How an option is written: `-e, --exit-fd=FD`.
fn left_column<I>(option: &OptionSpec<I>) -> String {
    let mut left = String::new();
    if let Some(short) = option.short {
        left.extend(['-', char::from(short), ',', ' ']);
    }
    left.push_str("--");
    left.push_str(option.long);
    if let Some(value) = option.value {
        left.push('=');
        left.push_str(value);
    }
    left
}
