//! The text of `slirp run --help`, made of the table.

use super::table::{Group, OPTIONS, spelled};

const HEAD: &str = "\
Usage: slirp run [OPTION]... [--] [COMMAND [ARG]...]
Run COMMAND (default: $SHELL) on a network of its own, which ends with it.
";

/// The width of a line.
const WIDTH: usize = 80;

/// The width of the left column, between two margins of two.
const LEFT: usize = 22;

/// The text.
pub(super) fn text() -> String {
    let mut text = HEAD.to_owned();
    for group in Group::ALL {
        text.push_str(group.title());
        text.push('\n');
        for option in OPTIONS.iter().filter(|option| option.group == group && option.is_everyday) {
            text.push_str(&format!("  {:<LEFT$}  {}\n", spelled(option), option.about));
        }
    }
    let rare: Vec<_> = OPTIONS.iter().filter(|option| !option.is_everyday).collect();
    let mut line = "More, in slirp(1):".to_owned();
    for (at, option) in rare.iter().enumerate() {
        let end = if at + 1 == rare.len() { "" } else { "," };
        let word = format!(" --{}{end}", option.long);
        if line.len() + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = " ".to_owned();
        }
        line.push_str(&word);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal() {
        let text = text();
        for line in text.lines() {
            assert!(line.len() <= WIDTH, "{line}");
        }
        assert!(text.lines().count() <= 28, "{text}");
    }

    #[test]
    fn descriptions_start_in_one_column() {
        for line in text().lines().filter(|line| line.starts_with("  ") && line.contains("--")) {
            if line.starts_with("  --") {
                continue;
            }
            assert_eq!(line.as_bytes()[LEFT + 3], b' ', "{line}");
            assert_ne!(line.as_bytes()[LEFT + 4], b' ', "{line}");
        }
    }
}
