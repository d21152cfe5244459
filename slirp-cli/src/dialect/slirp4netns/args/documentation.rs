//! The manual pages, the completions and the documents agree with the table of options.

use super::manual::manual;
use super::table::OPTIONS;
use crate::dialect::getopt::documentation::{flags, list};
use crate::dialect::pasta;
use crate::words;
use crate::words::shells::{Command, Operands, Program, compare};

const PAGE: &str = include_str!("../../../../man/slirp4netns.1");
const README: &str = include_str!("../../../../../README.md");
const SECURITY: &str = include_str!("../../../../../SECURITY.md");
const EXTENSIONS: &str = include_str!("../../../../man/slirp4netns-extensions.7");

#[test]
fn manual_is_made_from_the_table() {
    const LIST: &str = ".Bl -tag -width Ds\n";
    let (before, rest) = PAGE.split_once("\n.Sh OPTIONS\n").expect("the page has the section");
    let (text, rest) = rest.split_once(LIST).expect("the section has a list");
    let (_, after) = rest.split_once("\n.El\n.Sh ").expect("the section ends with it");
    let made =
        format!("{before}\n.Sh OPTIONS\n{text}{LIST}{}.El\n.Sh {after}", list(OPTIONS, manual));
    compare("man/slirp4netns.1", &made);
}

/// The words after `start` in a text that can be names of options.
fn names_behind<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.split(start).skip(1).map(move |rest| rest.split(|letter| !is_part(letter)).next().unwrap())
}

#[test]
fn options_that_pages_and_documents_name_exist() {
    let mut named: Vec<_> = names_behind(PAGE, "Fl Fl ").collect();
    named.extend(names_behind(EXTENSIONS, "Fl Fl "));
    for name in named {
        assert!(OPTIONS.iter().any(|option| option.long == name), "{name}");
    }
    let of_both: Vec<_> =
        [README, SECURITY].iter().flat_map(|it| names_behind(it, "`--")).collect();
    assert!(of_both.contains(&"allow") && of_both.contains(&"disable-host-loopback"));
    let of_pasta = String::from_utf8(pasta::usage("pasta".as_ref(), pasta::Mode::Pasta)).unwrap();
    for name in of_both.into_iter().filter(|name| !["net", "network"].contains(name)) {
        let is_of_another = words::RUN.flags().any(|flag| flag.long == name)
            || of_pasta.lines().any(|line| names_behind(line, "--").next() == Some(name));
        assert!(is_of_another || OPTIONS.iter().any(|option| option.long == name), "{name}");
    }
}

#[test]
fn options_of_our_own_are_on_both_pages() {
    for option in OPTIONS.iter().filter(|option| option.is_ours()) {
        let name = format!("Fl Fl {}", option.long);
        assert!(EXTENSIONS.contains(&name), "{}", option.long);
        let entry = PAGE.split(&format!("\n.It {name}")).nth(1);
        let entry = entry.and_then(|rest| rest.split("\n.It ").next()).unwrap_or_default();
        assert!(entry.contains("Ours alone"), "{}", option.long);
    }
}

#[test]
fn every_entry_names_a_default() {
    let options = PAGE.split("\n.Sh OPTIONS\n").nth(1).unwrap().split("\n.Sh ").next().unwrap();
    for entry in options.split("\n.It ").skip(1) {
        let acts_at_once = ["Fl h ", "Fl v "].iter().any(|start| entry.starts_with(start));
        let told = entry.contains("\nDefault:") || entry.contains("\nDeprecated name");
        assert!(acts_at_once || told, "{entry}");
    }
}

// The shells themselves are asked by tests of the package, if they are installed.
#[test]
fn completions_are_made_from_the_table() {
    let mut flags = flags(OPTIONS);
    for flag in flags.iter_mut().filter(|flag| flag.long == "publish") {
        flag.is_repeatable = true;
    }
    let command = Command { word: "", about: "", flags, operands: Operands::Guest };
    let program = Program { name: "slirp4netns", commands: vec![command] };
    compare("completions/slirp4netns.bash", &program.bash());
    compare("completions/slirp4netns.fish", &program.fish());
    compare("completions/_slirp4netns", &program.zsh());
}
