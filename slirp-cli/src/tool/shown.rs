//! How text of others, quantities and times are shown to a person.
//!
//! Names, SNIs and Hosts come from the guest, which may be hostile: what reaches a terminal or a
//! file that is read line by line is printable ASCII.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `text` in printable ASCII, with at most `cap` characters of it. All else is escaped.
pub(super) fn foreign(text: &str, cap: usize) -> String {
    let mut shown = String::new();
    for (at, character) in text.chars().enumerate() {
        if at == cap {
            shown.push_str("...");
            break;
        }
        match character {
            '\\' => shown.push_str("\\\\"),
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_default()),
        }
    }
    shown
}

/// A number with three digits and a suffix: `17`, `12.1k`, `402M`.
#[cfg(any(test, feature = "tui"))]
pub(super) fn amount(number: u64) -> String {
    let (digits, suffix) = scaled(number);
    digits + suffix
}

/// A number of bytes: `17 B`, `12.1 kB`, `402 MB`.
pub(super) fn bytes(number: u64) -> String {
    let (digits, suffix) = scaled(number);
    format!("{digits} {suffix}B")
}

fn scaled(number: u64) -> (String, &'static str) {
    if number < 1000 {
        return (number.to_string(), "");
    }
    let mut tenths = number / 100;
    for suffix in ["k", "M", "G", "T", "P"] {
        if tenths < 1000 {
            return (format!("{}.{}", tenths / 10, tenths % 10), suffix);
        }
        if tenths < 10_000 {
            return ((tenths / 10).to_string(), suffix);
        }
        tenths /= 1000;
    }
    ((tenths / 10).to_string(), "E")
}

/// `1 connection`, `2 connections`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// As a clock shows it: `0:07`, `3:12`, `26:00:01`.
#[cfg(any(test, feature = "tui"))]
pub(super) fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 {
        format!("{minutes}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

/// In one unit: `4s`, `12m`, `3h`, `2d`.
#[cfg(any(test, feature = "tui"))]
pub(super) fn brief(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Reads `90`, `90s`, `10m`, `2h` or `7d`.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let cut = |(unit, seconds)| Some((text.strip_suffix(unit)?, seconds));
    let (digits, seconds) = units.into_iter().find_map(cut).unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(digits.parse::<u64>().ok()?.checked_mul(seconds)?))
}

/// A time in UTC as audit logs have it, without its fraction and its `Z`: `2026-11-29T02:35:16`.
pub(super) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin with March, so that the leap day is the last of its year; 400 years have 146,097
    // days, and March 1 of the year 0 is 719,468 days before 1970.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, is_next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + is_next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_one_printable_line() {
        assert_eq!(foreign("a.example", 20), "a.example");
        assert_eq!(foreign("a\n\u{1b}[2Jb", 20), "a\\n\\u{1b}[2Jb");
        assert_eq!(foreign("\u{202e}\u{9b}31mü\\", 20), "\\u{202e}\\u{9b}31m\\u{fc}\\\\");
        assert_eq!(foreign("aaaaaa", 3), "aaa...");
    }

    #[test]
    fn quantities_have_three_digits() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (12_149, "12.1k"),
            (99_999, "99.9k"),
            (402_000, "402k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(amount(number), shown, "{number}");
        }
        assert_eq!(bytes(1_100_000), "1.1 MB");
        assert_eq!(bytes(17), "17 B");
        assert_eq!(counted(1, "connection"), "1 connection");
        assert_eq!(counted(2, "connection"), "2 connections");
    }

    #[test]
    fn times_are_shown_and_read() {
        let seconds = Duration::from_secs;
        assert_eq!(clock(seconds(7)), "0:07");
        assert_eq!(clock(seconds(26 * 3600 + 1)), "26:00:01");
        let spans = [(4, "4s"), (119, "119s"), (720, "12m"), (7200, "2h"), (200_000, "2d")];
        for (span, shown) in spans {
            assert_eq!(brief(seconds(span)), shown);
        }
        for (text, span) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(parse_span(text), Some(seconds(span)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5h", "10w", "99999999999999999999d"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
        for (since, shown) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_109_635_199, "2005-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_795_919_716, "2026-11-29T02:35:16"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + seconds(since)), shown);
        }
    }
}
