//! The manual pages, the completions and the documents agree with the table of options.

use super::table::{OPTIONS, left_column};

const PAGE: &str = include_str!("../../../../man/slirp4netns.1");
const README: &str = include_str!("../../../../../README.md");
const SECURITY: &str = include_str!("../../../../../SECURITY.md");
const EXTENSIONS: &str = include_str!("../../../../man/slirp4netns-extensions.7");

/// The entries of a page's section as `--help` writes them: `-e, --exit-fd=FD`.
fn documented(page: &str, section: &str) -> Vec<String> {
    let start = format!("\n.Sh {section}\n");
    let text = page.split(&start).nth(1).and_then(|rest| rest.split("\n.Sh ").next());
    text.expect("the page has the section")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .map(|line| {
            format!("Fl {line}")
                .replace("Fl Fl ", "--")
                .replace("Fl ", "-")
                .replace(" , ", ", ")
                .replace(" Ns = Ns Ar ", "=")
        })
        .collect()
}

#[test]
fn manual_has_the_options_of_help_in_the_same_order_and_then_the_others() {
    let (listed, others): (Vec<_>, Vec<_>) =
        OPTIONS.iter().partition(|option| option.about.is_some());
    let expected: Vec<_> = listed.into_iter().chain(others).map(left_column).collect();
    assert_eq!(documented(PAGE, "OPTIONS"), expected);
}

/// The words after `start` in a text that can be names of options.
fn names_behind<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    text.split(start).skip(1).map(move |rest| rest.split(|letter| !is_part(letter)).next().unwrap())
}

#[test]
fn options_that_pages_and_documents_name_exist() {
    let commands = README.lines().filter_map(|line| line.trim().strip_prefix("slirp4netns "));
    let commands: String = commands.map(|line| format!("{line}\n")).collect();
    let mut named: Vec<_> = names_behind(PAGE, "Fl Fl ").collect();
    named.extend(names_behind(EXTENSIONS, "Fl Fl "));
    named.extend(names_behind(SECURITY, "`--"));
    let from_readme: Vec<_> = names_behind(&commands, "--").collect();
    assert_eq!(from_readme.first(), Some(&"configure"));
    named.extend(from_readme);
    for name in named {
        assert!(OPTIONS.iter().any(|option| option.long == name), "{name}");
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

// Completions are also tested in the shells themselves, if these are installed.
#[test]
fn completions_know_every_listed_option() {
    let bash = include_str!("../../../../completions/slirp4netns.bash");
    let fish = include_str!("../../../../completions/slirp4netns.fish");
    let zsh = include_str!("../../../../completions/_slirp4netns");
    for option in OPTIONS.iter().filter(|option| option.about.is_some()) {
        let long = option.long;
        let equals = if option.value.is_some() { "=" } else { "" };
        let word = format!("--{long}{equals}");
        assert!(bash.split([' ', '\n', '"']).any(|said| said == word), "bash: {long}");
        let line = fish.lines().find(|line| line.contains(&format!(" -l {long} ")));
        let line = line.unwrap_or_else(|| panic!("fish: {long}"));
        let wants_value = line.contains(" -x ") || line.contains(" -r ");
        assert_eq!(wants_value, option.value.is_some(), "fish: {long}");
        let spec = [format!("'{word}["), format!("'*{word}["), format!(",{word}}}")];
        assert!(spec.iter().any(|spec| zsh.contains(spec)), "zsh: {long}");
        if let Some(short) = option.short.map(char::from) {
            assert!(bash.contains(&format!(" -{short} {word}")), "bash: -{short}");
            assert!(line.contains(&format!(" -s {short} ")), "fish: -{short}");
            let plus = if option.value.is_some() { "+" } else { "" };
            assert!(zsh.contains(&format!("{{-{short}{plus},{word}}}")), "zsh: -{short}");
        }
    }
}
