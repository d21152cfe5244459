//! The options of the words in slirp(1), made from the table.

use super::shells::compare;
use super::{Flag, Value, words};

/// Lines around what is made.
const START: &str = ".\\\" The lists of this section are made from the table of words.\n";
const END: &str = ".\\\" Here they end.\n";

/// The options of all words.
fn sections() -> String {
    let mut text = String::from(START);
    for word in words().filter(|word| word.flags().next().is_some()) {
        text += &format!(".Ss slirp {}\n", word.name);
        for group in word.groups {
            if !group.heading.is_empty() {
                text += &format!("{}:\n", sentence(group.heading).trim_end_matches('.'));
            }
            text += ".Bl -tag -width Ds\n";
            for flag in group.flags {
                text += &format!(".It {}\n{}\n", names(flag), sentence(&flag.text()));
            }
            text += ".El\n";
        }
    }
    text + END
}

/// The names of an option in mdoc(7): `Fl p , Fl Fl publish Ar SPEC`.
fn names(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!("Fl {short} , ")).unwrap_or_default();
    let value = match flag.value {
        Value::None => String::new(),
        Value::Needed(what) => format!(" Ar {what}"),
        Value::Optional(what) => format!(" Ns Op = Ns Ar {what}"),
    };
    format!("{short}Fl Fl {}{value}", flag.long)
}

/// `about` as a sentence of a page, in lines of at most 80 columns.
fn sentence(about: &str) -> String {
    let mut first = about.chars();
    let capital: String = first.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if about.ends_with('.') { "" } else { "." };
    let text = format!("{capital}{}{end}", first.as_str()).replace('\\', "\\e");
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            *line = word.to_owned();
        } else if line.len() + 1 + word.len() <= 80 {
            *line += &format!(" {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[test]
fn page_has_the_options_of_the_table() {
    let page = include_str!("../../man/slirp.1");
    let (before, rest) = page.split_once(START).expect("the page has the place");
    let (_, after) = rest.split_once(END).expect("the place ends");
    compare("man/slirp.1", &format!("{before}{}{after}", sections()));
}
