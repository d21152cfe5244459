//! What manual pages and completions are made of: a dialect's table of options.

use super::OptionSpec;
use crate::words::{Flag, Value};

/// The options of `--help`, for the completions of the shells.
pub(crate) fn flags<'t, I: 't>(table: impl IntoIterator<Item = &'t OptionSpec<I>>) -> Vec<Flag> {
    let flags = table.into_iter().filter_map(|option| {
        let about = option.about?;
        Some(Flag {
            long: option.long,
            short: option.short.map(char::from),
            value: option.value.map_or(Value::None, Value::Needed),
            about,
            offers: option.offers,
            is_repeatable: about.contains("repeatable"),
            is_rare: false,
        })
    });
    flags.collect()
}

/// A page's list of options in mdoc(7): those of `--help`, and then the others. `manual` has the
/// entries below their names.
pub(crate) fn list<I: Copy>(table: &[OptionSpec<I>], manual: fn(I) -> &'static str) -> String {
    let (listed, others): (Vec<_>, Vec<_>) =
        table.iter().partition(|option| option.about.is_some());
    let entries = listed.into_iter().chain(others).map(|option| {
        let short = option.short.map(|short| format!("Fl {} , ", char::from(short)));
        let value = option.value.map(|value| format!(" Ns = Ns Ar {value}"));
        let (short, value) = (short.unwrap_or_default(), value.unwrap_or_default());
        let text = manual(option.id).trim_start_matches('\n');
        format!(".It {short}Fl Fl {}{value}\n{text}\n", option.long)
    });
    entries.collect()
}
