//! The grammar: a line of text to a rule or a setting.
//!
//! Owns lines, options and settings; what a rule is about is read in `target`. Words and names are
//! in any case. The first error of a line ends it. All of it takes time in proportion to the
//! text.
//!
//! ```text
//! line    = [ rule | setting ] , [ "#" , comment ]
//! rule    = ( "allow" | "deny" | "ask" ) , [ "in" ] , target , { option }
//! option  = "verify=" , ( "auto" | "off" ) | "private=yes" | "wide=yes" | "log=no"
//!         | "note=" , '"' , { printable ASCII but '"' and "\" } , '"'
//! setting = "set" , ( "mode" , ( "enforce" | "audit" ) | "ech" , ( "allow" | "deny" )
//!         | "dns-redirect" , ( "yes" | "no" ) | "ask-timeout" , seconds
//!         | "placeholder" , IPv4 , "/" , length )
//! ```

mod target;
#[cfg(test)]
mod tests;
mod words;

use core::net::IpAddr;
use core::time::Duration;

use self::target::{Target, network, number};
use self::words::{Word, Words};
use super::error::{Excerpt, RuleErrorKind};
use super::rule::{
    Action, Direction, EgressRule, Mode, NOTE_CAP, NamePattern, Prefix, RuleDestination, Setting,
    Source, Verify,
};
use super::warning::{self, RuleWarning};

pub(super) use self::words::Wrong;

/// Seconds that `ask-timeout` may be: less is too short to read a question; Linux gives up a
/// connection after 127.
const ASK_TIMEOUT: core::ops::RangeInclusive<u32> = 5..=120;
/// Lengths of the network of placeholders: room for one, and less than all addresses (arbitrary).
const PLACEHOLDER_LENGTHS: core::ops::RangeInclusive<u8> = 8..=30;

/// What a line says.
#[derive(Debug)]
pub(super) enum Statement {
    Rule(EgressRule),
    Setting(Setting),
}

/// Reads a line of a file or an entry of a list, which may be empty.
pub(super) fn line(
    line: &str,
    source: Source,
    warnings: &mut Vec<RuleWarning>,
) -> Result<Option<Statement>, Wrong> {
    let mut words = Words::new(line);
    let Some(verb) = words.next() else {
        return Ok(None);
    };
    if verb.is("set") {
        return setting(words).map(|setting| Some(Statement::Setting(setting)));
    }
    let action = verb
        .find(&Action::WORDS)
        .ok_or_else(|| verb.wrong(RuleErrorKind::NoAction { word: verb.excerpt() }))?;
    rule(action, words, source, warnings).map(Some)
}

/// Reads the value of an option that has the action in its name.
pub(super) fn option(
    action: Action,
    text: &str,
    source: Source,
    warnings: &mut Vec<RuleWarning>,
) -> Result<Option<Statement>, Wrong> {
    rule(action, Words::new(text), source, warnings).map(Some)
}

fn rule(
    action: Action,
    mut words: Words<'_>,
    source: Source,
    warnings: &mut Vec<RuleWarning>,
) -> Result<Statement, Wrong> {
    let mut next = || words.next().ok_or_else(|| words.missing(RuleErrorKind::NoDestination));
    let mut direction = Direction::Out;
    let mut word = next()?;
    if word.is("in") {
        direction = Direction::In;
        word = next()?;
    }
    let Target { protocol, destination, ports } = target::target(word, action, direction)?;
    let mut rule = EgressRule {
        action,
        direction,
        protocol,
        destination,
        ports,
        verify: Verify::Auto,
        private: false,
        wide: false,
        log: true,
        note: None,
        source,
    };
    let mut given = Vec::new();
    for option in words {
        let key = rule_option(&mut rule, option)?;
        if given.contains(&key) {
            return Err(option.wrong(RuleErrorKind::OptionTwice { key }));
        }
        given.push(key);
    }
    if let RuleDestination::Name(NamePattern::Below(name) | NamePattern::Tree(name)) =
        &rule.destination
        && name.is_one_label()
        && !rule.wide
        && action != Action::Deny
    {
        let pattern = Excerpt::new(&rule.destination.to_string());
        return Err(word.wrong(RuleErrorKind::Wide { pattern }));
    }
    if given.is_empty() && rule.is_about_all() {
        return Ok(Statement::Setting(Setting::Default(action)));
    }
    warning::of_rule(&rule, word.text, warnings);
    Ok(Statement::Rule(rule))
}

/// Puts one option into the rule. Returns its key.
fn rule_option(rule: &mut EgressRule, word: Word<'_>) -> Result<&'static str, Wrong> {
    let unknown = || word.wrong(RuleErrorKind::NoOption { word: word.excerpt() });
    let (key, value) = word.split_at_separator(word.text.find('=').ok_or_else(unknown)?);
    let keys = ["verify", "private", "wide", "log", "note"].map(|key| (key, key));
    let key = key.find(&keys).ok_or_else(unknown)?;
    let bad = |values| value.wrong(RuleErrorKind::Value { key, values });
    let only = |only| if value.is(only) { Ok(()) } else { Err(bad(only)) };
    match key {
        "verify" => {
            let table = [("auto", Verify::Auto), ("off", Verify::Off)];
            rule.verify = value.find(&table).ok_or_else(|| bad("auto or off"))?;
        }
        "log" => {
            only("no")?;
            rule.log = false;
        }
        "note" => {
            let note = value.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let is_fit = |text: &&str| {
                text.len() <= NOTE_CAP
                    && text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
            };
            let note = note.filter(is_fit).ok_or_else(|| {
                bad("printable ASCII in quotes, at most 120 bytes, without \" and \\")
            })?;
            rule.note = Some(note.into());
        }
        _ => {
            only("yes")?;
            if !matches!(rule.destination, RuleDestination::Name(_)) {
                return Err(word.wrong(RuleErrorKind::NeedsName { key, value: "yes" }));
            }
            let field = if key == "private" { &mut rule.private } else { &mut rule.wide };
            *field = true;
        }
    }
    Ok(key)
}

/// Reads what follows `set`.
fn setting(mut words: Words<'_>) -> Result<Setting, Wrong> {
    let key = words.next().ok_or_else(|| words.missing(RuleErrorKind::SettingMissing))?;
    let end = words.missing(RuleErrorKind::SettingMissing).at;
    let value = words.next().unwrap_or(Word { text: "", at: end });
    let (setting, key, values) = if key.is("mode") {
        let table = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
        (value.find(&table).map(Setting::Mode), "mode", "enforce or audit")
    } else if key.is("ech") {
        let table = [("allow", true), ("deny", false)];
        (value.find(&table).map(Setting::Ech), "ech", "allow or deny")
    } else if key.is("dns-redirect") {
        let table = [("yes", true), ("no", false)];
        (value.find(&table).map(Setting::DnsRedirect), "dns-redirect", "yes or no")
    } else if key.is("ask-timeout") {
        let seconds = number(value.text).filter(|seconds| ASK_TIMEOUT.contains(seconds));
        let timeout = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        (timeout.map(Setting::AskTimeout), "ask-timeout", "5 to 120 seconds")
    } else if key.is("placeholder") {
        let network = network(value).transpose()?.filter(|Prefix { address, len }| {
            matches!(address, IpAddr::V4(_)) && PLACEHOLDER_LENGTHS.contains(len)
        });
        (network.map(Setting::Placeholder), "placeholder", "an IPv4 network of /8 to /30")
    } else {
        return Err(key.wrong(RuleErrorKind::NoSetting { word: key.excerpt() }));
    };
    let setting = setting.ok_or_else(|| value.wrong(RuleErrorKind::Value { key, values }))?;
    match words.next() {
        Some(word) => Err(word.wrong(RuleErrorKind::Behind { word: word.excerpt() })),
        None => Ok(setting),
    }
}

/// Cuts a text into entries, at the ends of lines and at each `;` that is neither in a note nor in
/// a comment.
pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let (mut is_quoted, mut is_comment) = (false, false);
        line.split(move |character| {
            is_quoted ^= character == '"' && !is_comment;
            is_comment |= character == '#' && !is_quoted;
            character == ';' && !is_quoted && !is_comment
        })
    })
}
