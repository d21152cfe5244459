//! Cuts a command line into options and operands by the rules of GNU getopt_long(3).
//!
//! Owns the grammar: options and operands in any order, or options first; unambiguous prefixes of
//! long options, `--opt VALUE`, `--opt=VALUE`, `-mVALUE`, `-m VALUE`, bundles such as `-c6`, and
//! `--`. Owns the errors of that grammar, whose texts callers know. [`table`] has the shape of a
//! list of options; the list is the dialect's.
//!
//! Arguments are bytes: nothing here requires UTF-8. One rule is omitted on purpose: the
//! environment variable POSIXLY_CORRECT, which would forbid options after operands.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

#[cfg(test)]
pub(crate) mod documentation;
mod table;

use table::by_short;
pub(crate) use table::{OptionSpec, Origin, by_long, listing, options};

/// One piece of the command line.
#[derive(Debug)]
pub(crate) enum Token<I: 'static> {
    /// An option, with its value if it takes one.
    Option(&'static OptionSpec<I>, OsString),
    /// Anything else.
    Operand(OsString),
}

/// A violation of the grammar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GrammarError {
    /// A short option that does not exist.
    InvalidShort(u8),
    /// A short option without its value.
    ShortWithoutValue(u8),
    /// A long option that does not exist, as it was written.
    Unrecognized(OsString),
    /// A prefix of several long options, as it was written.
    Ambiguous(OsString, Vec<&'static str>),
    /// A long option without its value.
    LongWithoutValue(&'static str),
    /// A long option with a value that it does not take.
    UnexpectedValue(&'static str),
}

impl GrammarError {
    /// The text, without the name of the program in front of it. It repeats the user's input byte
    /// by byte.
    pub(crate) fn text(&self) -> Vec<u8> {
        match self {
            Self::InvalidShort(short) => [b"invalid option -- '", &[*short][..], b"'"].concat(),
            Self::ShortWithoutValue(short) => {
                [b"option requires an argument -- '", &[*short][..], b"'"].concat()
            }
            Self::Unrecognized(written) => {
                [b"unrecognized option '", written.as_bytes(), b"'"].concat()
            }
            Self::Ambiguous(written, possibilities) => {
                let mut text =
                    [b"option '", written.as_bytes(), b"' is ambiguous; possibilities:"].concat();
                for long in possibilities {
                    text.extend_from_slice(format!(" '--{long}'").as_bytes());
                }
                text
            }
            Self::LongWithoutValue(long) => {
                format!("option '--{long}' requires an argument").into_bytes()
            }
            Self::UnexpectedValue(long) => {
                format!("option '--{long}' doesn't allow an argument").into_bytes()
            }
        }
    }
}

/// The pieces of a command line, in the order in which they were written.
#[derive(Debug)]
pub(crate) struct Tokens<I: 'static> {
    table: &'static [OptionSpec<I>],
    rest: VecDeque<OsString>,
    /// The rest of a bundle of short options.
    bundle: VecDeque<u8>,
    /// Whether an operand ends the options, as with a `+` before the short ones in getopt(3).
    ends_at_operand: bool,
    /// Whether everything that follows is an operand.
    operands_only: bool,
}

impl<I> Tokens<I> {
    /// The pieces of `arguments`, which do not include the name of the program.
    pub(crate) fn new(
        table: &'static [OptionSpec<I>],
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Self {
        Self {
            table,
            rest: arguments.into_iter().collect(),
            bundle: VecDeque::new(),
            ends_at_operand: false,
            operands_only: false,
        }
    }

    /// Takes everything behind the first operand for an operand: a command and its arguments.
    pub(crate) fn until_operand(self) -> Self {
        Self { ends_at_operand: true, ..self }
    }

    fn short(&mut self, short: u8) -> Result<Token<I>, GrammarError> {
        let option = by_short(self.table, short).ok_or(GrammarError::InvalidShort(short))?;
        if option.value.is_none() {
            return Ok(Token::Option(option, OsString::new()));
        }
        if self.bundle.is_empty() {
            let value = self.rest.pop_front().ok_or(GrammarError::ShortWithoutValue(short))?;
            return Ok(Token::Option(option, value));
        }
        let value = self.bundle.drain(..).collect();
        Ok(Token::Option(option, OsString::from_vec(value)))
    }

    fn long(&mut self, written: OsString) -> Result<Token<I>, GrammarError> {
        let body = &written.as_bytes()[2..];
        let (name, inline) = match body.iter().position(|&byte| byte == b'=') {
            Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]).to_owned())),
            None => (body, None),
        };
        let found = by_long(self.table, name);
        let [option] = found[..] else {
            return Err(if found.is_empty() {
                GrammarError::Unrecognized(written)
            } else {
                let possibilities = found.iter().map(|option| option.long).collect();
                GrammarError::Ambiguous(written, possibilities)
            });
        };
        match (option.value, inline) {
            (None, None) => Ok(Token::Option(option, OsString::new())),
            (None, Some(_)) => Err(GrammarError::UnexpectedValue(option.long)),
            (Some(_), Some(value)) => Ok(Token::Option(option, value)),
            (Some(_), None) => match self.rest.pop_front() {
                Some(value) => Ok(Token::Option(option, value)),
                None => Err(GrammarError::LongWithoutValue(option.long)),
            },
        }
    }
}

impl<I> Iterator for Tokens<I> {
    type Item = Result<Token<I>, GrammarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(short) = self.bundle.pop_front() {
            return Some(self.short(short));
        }
        let argument = self.rest.pop_front()?;
        let bytes = argument.as_bytes();
        if self.operands_only || bytes.len() < 2 || bytes[0] != b'-' {
            self.operands_only |= self.ends_at_operand;
            return Some(Ok(Token::Operand(argument)));
        }
        if bytes == b"--" {
            self.operands_only = true;
            return self.next();
        }
        if bytes.starts_with(b"--") {
            return Some(self.long(argument));
        }
        self.bundle.extend(&bytes[1..]);
        let short = self.bundle.pop_front()?;
        Some(self.short(short))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::slirp4netns::OPTIONS;

    /// The command line's pieces: `long=value` for an option, the word itself for an operand, and
    /// the text of the error that ends it.
    fn pieces(line: &[&str]) -> Vec<String> {
        let mut pieces = Vec::new();
        for token in Tokens::new(OPTIONS, line.iter().map(OsString::from)) {
            match token {
                Ok(Token::Option(option, value)) => {
                    pieces.push(format!("{}={}", option.long, value.display()));
                }
                Ok(Token::Operand(word)) => pieces.push(word.display().to_string()),
                Err(error) => {
                    pieces.push(String::from_utf8(error.text()).unwrap());
                    break;
                }
            }
        }
        pieces
    }

    #[test]
    fn every_way_to_write_a_value_is_understood() {
        for line in
            [&["--mtu", "9"][..], &["--mtu=9"], &["--mt", "9"], &["--mt=9"], &["-m9"], &["-m", "9"]]
        {
            assert_eq!(pieces(line), ["mtu=9"], "{line:?}");
        }
        assert_eq!(pieces(&["--mtu="]), ["mtu="]);
        assert_eq!(pieces(&["--mtu=a=b"]), ["mtu=a=b"]);
        assert_eq!(pieces(&["-m=9"]), ["mtu==9"]);
        assert_eq!(pieces(&["--mtu", "--"]), ["mtu=--"]);
        assert_eq!(pieces(&["-c6m", "-9"]), ["configure=", "enable-ipv6=", "mtu=-9"]);
        assert_eq!(pieces(&["-c6m9c"]), ["configure=", "enable-ipv6=", "mtu=9c"]);
    }

    #[test]
    fn options_and_operands_mix_until_two_dashes() {
        assert_eq!(
            pieces(&["7", "-c", "tap0", "--ready=3"]),
            ["7", "configure=", "tap0", "ready-fd=3"]
        );
        assert_eq!(pieces(&["7", "--", "-c", "--", "--mtu"]), ["7", "-c", "--", "--mtu"]);
        assert_eq!(pieces(&["-", ""]), ["-", ""]);
    }

    #[test]
    fn first_operand_ends_the_options_where_a_command_is_meant() {
        let line = ["-c", "7", "-c", "--", "--mtu"].map(OsString::from);
        let pieces: Vec<_> = Tokens::new(OPTIONS, line)
            .until_operand()
            .map(|token| match token.unwrap() {
                Token::Option(option, _) => option.long.to_owned(),
                Token::Operand(word) => word.display().to_string(),
            })
            .collect();
        assert_eq!(pieces, ["configure", "7", "-c", "--", "--mtu"]);
    }

    #[test]
    fn violations_have_the_texts_of_getopt() {
        for (line, text) in [
            (&["--unknown"][..], "unrecognized option '--unknown'"),
            (&["--unknown=5"], "unrecognized option '--unknown=5'"),
            (&["-x"], "invalid option -- 'x'"),
            (&["--mtu"], "option '--mtu' requires an argument"),
            (&["--net"], "option '--netns-type' requires an argument"),
            (&["-m"], "option requires an argument -- 'm'"),
            (&["--configure=1"], "option '--configure' doesn't allow an argument"),
            (&["--ver=3"], "option '--version' doesn't allow an argument"),
            (&["--m=9"], "option '--m=9' is ambiguous; possibilities: '--mtu' '--macaddress'"),
            (
                &["--e"],
                "option '--e' is ambiguous; possibilities: \
                 '--exit-fd' '--enable-ipv6' '--enable-sandbox' '--enable-seccomp'",
            ),
            (
                &["--c"],
                "option '--c' is ambiguous; possibilities: \
                 '--configure' '--cidr' '--create-sandbox'",
            ),
            (
                &["--outbound"],
                "option '--outbound' is ambiguous; possibilities: \
                 '--outbound-addr' '--outbound-addr6'",
            ),
        ] {
            assert_eq!(pieces(line), [text], "{line:?}");
        }
        assert_eq!(pieces(&["-cx"]), ["configure=", "invalid option -- 'x'"]);
    }

    #[test]
    fn bytes_that_are_no_text_come_back_as_they_were() {
        let argument = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let error = Tokens::new(OPTIONS, [argument(b"--\xff")]).next().unwrap().unwrap_err();
        assert_eq!(error.text(), b"unrecognized option '--\xff'");
        let error = Tokens::new(OPTIONS, [argument(b"-\xff")]).next().unwrap().unwrap_err();
        assert_eq!(error.text(), b"invalid option -- '\xff'");
        let Token::Option(_, value) =
            Tokens::new(OPTIONS, [argument(b"-m\xff")]).next().unwrap().unwrap()
        else {
            panic!("not an option");
        };
        assert_eq!(value.as_bytes(), b"\xff");
    }
}
