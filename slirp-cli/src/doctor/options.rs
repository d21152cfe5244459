//! The command line of `slirp doctor`.

use std::ffi::OsString;

/// An option as data, from which texts are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionSpec {
    /// Without the two hyphens.
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    /// How its value is called, if it takes one.
    pub(crate) value: Option<&'static str>,
    pub(crate) about: &'static str,
}

/// All options.
pub(crate) const OPTIONS: [OptionSpec; 3] = [
    OptionSpec {
        long: "json",
        short: None,
        value: None,
        about: "print one JSON object instead of a table",
    },
    OptionSpec {
        long: "no-drive",
        short: None,
        value: None,
        about: "only look; do not make a network and drive it",
    },
    OptionSpec { long: "help", short: Some('h'), value: None, about: "show this help" },
];

const HEAD: &str = "\
Usage: slirp doctor [OPTION]...

Tells what works here, what does not, and what to do about it. First looks at
kernel, namespaces, /dev/net/tun, sandbox, resolvers, routes and limits. Then
makes a network as slirp run does, and drives it against servers on loopback.
Needs no privileges and no internet, and leaves nothing behind.

";
const FOOT: &str = "
Exit status: 0 if networks work, with or without warnings, 1 for a failure, 2
for a bad command line.
";

/// The text of `--help`.
pub(super) fn usage() -> String {
    let mut text = HEAD.to_owned();
    for option in OPTIONS {
        let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let value = option.value.map(|value| format!("={value}")).unwrap_or_default();
        let names = format!("{short}--{}{value}", option.long);
        text += &format!("  {names:18}{}\n", option.about);
    }
    text + FOOT
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Options {
    pub(super) is_help: bool,
    pub(super) as_json: bool,
    pub(super) no_drive: bool,
}

impl Options {
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.to_str() {
                Some("--json") => options.as_json = true,
                Some("--no-drive") => options.no_drive = true,
                Some("--help" | "-h") => options.is_help = true,
                Some(_) | None => return Err(format!("{argument:?} is no option")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn each_option_of_the_table_is_read_and_shown() {
        for option in OPTIONS {
            let long = format!("--{}", option.long);
            let read = parse(&[&long]).expect("it is an option");
            assert_ne!(read, Options::default(), "{long}");
            if let Some(short) = option.short {
                assert_eq!(parse(&[&format!("-{short}")]), Ok(read));
            }
            assert!(usage().contains(&long), "{long}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(parse(&["--jsno"]), Err("\"--jsno\" is no option".to_owned()));
        assert_eq!(parse(&["here"]), Err("\"here\" is no option".to_owned()));
    }

    #[test]
    fn help_fits_a_screen() {
        assert!(usage().lines().count() <= 24);
        assert!(usage().lines().all(|line| line.len() <= 80), "{}", usage());
    }
}
