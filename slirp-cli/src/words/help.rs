//! `--help`, as text for 80 columns.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use super::table::TOPICS;
use super::{Flag, TROUBLE, Value, Word, words};
use crate::console::{eprint_line, print};
use crate::dialect::pasta::Mode;
use crate::dialect::{pasta, pesto, slirp4netns};
use crate::tool::nearest::nearest;

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Columns of an option with its value; a longer one has a line of its own.
const LEFT: usize = 24;

/// What else the program is called as, or with.
const FACES: [(&str, &str); 4] = [
    ("slirp4netns", "connect an existing network namespace, as slirp4netns does"),
    ("pasta", "connect a namespace under the host's addresses, as pasta does"),
    ("passt", "connect a virtual machine, as passt does"),
    ("pesto", "change the ports of a network that pasta has made"),
];

/// The text of `slirp --help`.
pub fn overview() -> String {
    let mut text = String::from(
        "Usage: slirp WORD [OPTION]...\n       slirp help WORD\n\n\
         Rootless networking for containers and sandboxes.\n\n",
    );
    let longest = words().map(|word| word.name.len()).chain(FACES.map(|(face, _)| face.len()));
    let left = longest.max().unwrap_or(0) + 1;
    for (heading, words) in TOPICS {
        text.push_str(&format!("{heading}:\n"));
        for word in *words {
            text.push_str(&entry(word.name, word.about, left));
        }
    }
    text.push_str("Other programs that it is, also by a link of this name:\n");
    for (face, about) in FACES {
        text.push_str(&entry(face, about, left));
    }
    text.push_str(
        "Container runtimes call it as a CNI plugin of type \"slirp\". slirp(1) tells more.\n",
    );
    text
}

/// `slirp help [WORD]`.
pub fn help(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let topic = arguments.next().unwrap_or_else(|| "help".into());
    let topic = topic.to_string_lossy();
    if let Some(further) = arguments.next() {
        return refuse(&further.to_string_lossy());
    }
    if ["help", "--help", "-h"].contains(&&*topic) {
        return tell(overview().as_bytes());
    }
    match words().find(|word| word.name == topic) {
        Some(word) => tell(word.help().as_bytes()),
        None if topic == "slirp4netns" => tell(&slirp4netns::usage(OsStr::new(&*topic))),
        None if topic == "pasta" => tell(&pasta::usage(OsStr::new(&*topic), Mode::Pasta)),
        None if topic == "passt" => tell(&pasta::usage(OsStr::new(&*topic), Mode::Passt)),
        None if topic == "pesto" => tell(&pesto::usage(OsStr::new(&*topic))),
        None => refuse(&topic),
    }
}

/// Refuses a word that is none.
pub fn refuse(word: &str) -> ExitCode {
    let known: Vec<_> = words()
        .map(|word| word.name)
        .chain(FACES.map(|(face, _)| face))
        .chain(["help", "--help", "--version"])
        .collect();
    let meant = nearest(word, &known).map(|meant| format!("; did you mean \"{meant}\"?"));
    let meant = meant.unwrap_or_default();
    eprint_line(format_args!("slirp: {word:?} is no word of slirp{meant}\nTry 'slirp --help'."));
    TROUBLE.into()
}

fn tell(text: &[u8]) -> ExitCode {
    if print(text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Word {
    /// The text of `slirp WORD --help`.
    pub fn help(&self) -> String {
        let mut text = String::new();
        for (at, usage) in self.usage.iter().enumerate() {
            let head = if at == 0 { "Usage:" } else { "      " };
            text.push_str(&format!("{head} slirp {} {usage}\n", self.name));
        }
        if !self.text.is_empty() {
            text.push_str(&format!("\n{}", self.text));
        }
        text.push_str(if self.groups.is_empty() { "" } else { "\n" });
        // What the longest of them needs, so that short ones leave room.
        let longest = self.flags().filter(|flag| !flag.is_rare).map(|flag| shown(flag).len()).max();
        let left = longest.map_or(0, |longest| longest + 1).min(LEFT);
        for group in self.groups {
            if !group.heading.is_empty() {
                text.push_str(&format!("{}:\n", group.heading));
            }
            for flag in group.flags.iter().filter(|flag| !flag.is_rare) {
                text.push_str(&entry(&shown(flag), &flag.text(), left));
            }
        }
        let rare: Vec<_> = self
            .flags()
            .filter(|flag| flag.is_rare)
            .map(|flag| format!("--{}", flag.long))
            .collect();
        if !rare.is_empty() {
            text.push_str("More, in slirp(1):\n");
            text.push_str(&entry("", &rare.join(", "), 0));
        }
        if !self.notes.is_empty() {
            text.push_str(&format!("\n{}", self.notes));
        }
        text
    }
}

/// An option as it is written: `-p, --publish SPEC`, `--ipv6[=BOOL]`.
pub(crate) fn shown(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = match flag.value {
        Value::None => String::new(),
        Value::Needed(what) => format!(" {what}"),
        Value::Optional(what) => format!("[={what}]"),
    };
    format!("{short}--{}{value}", flag.long)
}

/// A line with `what` in a column of `left` columns and `about` behind it, wrapped.
pub(crate) fn entry(what: &str, about: &str, left: usize) -> String {
    let mut text = format!("  {what}");
    if what.len() > left {
        text.push_str(&format!("\n  {:left$}", ""));
    } else {
        text.extend(std::iter::repeat_n(' ', left - what.len()));
    }
    let mut column = 2 + left;
    for word in about.split(' ') {
        if column + 1 + word.len() > WIDTH {
            text.push_str(&format!("\n  {:left$}", ""));
            column = 2 + left;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.len();
    }
    text.push('\n');
    text
}
