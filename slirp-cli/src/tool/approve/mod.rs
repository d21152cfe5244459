//! `slirp approve`: questions of a network, answered in a terminal.
//!
//! Owns the command line, the dialog's lines on the terminal, and the file that lasting decisions
//! are saved to. Which question is asked and what a key does is in `dialog`.

mod dialog;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crossterm::cursor::MoveUp;
use crossterm::queue;
use crossterm::terminal::{Clear, ClearType, size};
use slirp_core::egress::EgressPolicy;

use self::dialog::{Dialog, Effect};
use super::client::{Client, ClientError, Requests};
use super::terminal::{self, Input, Raw, inputs};
use crate::console::eprint_line;
use crate::words::APPROVE;

/// How often the clock moves.
const TICK: Duration = Duration::from_secs(1);

/// Runs `slirp approve` with the arguments behind this word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match APPROVE.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    let [socket] = line.operands() else { return APPROVE.refuse("one socket is needed") };
    let file = line.value("save").map(PathBuf::from);
    match run(socket, file.as_deref()) {
        Ok(()) | Err(Failure::Network(ClientError::Ended)) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint_line(format_args!("slirp approve: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Why nothing is asked any more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Network(#[from] ClientError),
    #[error("this connection may not decide")]
    MayNotDecide,
    #[error("cannot use the terminal: {0}")]
    Terminal(#[from] io::Error),
    #[error("cannot save to {0}: {1}")]
    Save(PathBuf, io::Error),
}

fn run(socket: &OsString, file: Option<&Path>) -> Result<(), Failure> {
    let saved =
        file.map(|path| Saved::open(path).map_err(|error| Failure::Save(path.to_owned(), error)));
    let mut saved = saved.transpose()?;
    // Without a terminal nobody is to count as an approver.
    terminal::check()?;
    let client = Client::connect(socket, "slirp approve")?;
    if !client.greeting.may_decide {
        return Err(Failure::MayNotDecide);
    }
    let raw = Raw::enter(false)?;
    let (mut requests, messages) = client.split();
    let inputs = inputs(messages)?;
    let mut dialog = Dialog::default();
    let mut screen = Screen::default();
    // The first tick is at once.
    let mut patience = Duration::ZERO;
    let end = loop {
        let input = inputs.recv_timeout(std::mem::replace(&mut patience, TICK));
        let now = Instant::now();
        let effects = match input {
            Ok(Input::Key(key)) => dialog.on_key(key, now),
            Ok(Input::Message(message)) => dialog.on_message(message, now),
            Ok(Input::Resized) => Vec::new(),
            Err(RecvTimeoutError::Timeout) => dialog.on_tick(),
            Ok(Input::Quit) | Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Ok(Input::Ended(error)) => break Err(error.into()),
        };
        let is_over = effects.contains(&Effect::Quit);
        for effect in effects {
            perform(effect, &mut dialog, &mut requests, &mut screen, saved.as_mut())?;
        }
        if is_over {
            break Ok(());
        }
        screen.draw(&dialog.lines(now))?;
        dialog.on_drawn(Instant::now());
    };
    screen.draw(&[])?;
    drop(raw);
    end
}

fn perform(
    effect: Effect,
    dialog: &mut Dialog,
    requests: &mut Requests,
    screen: &mut Screen,
    saved: Option<&mut Saved>,
) -> Result<(), Failure> {
    match effect {
        Effect::Ask { request, arguments, purpose } => {
            dialog.on_sent(requests.send(request, arguments)?, purpose);
        }
        Effect::Say(line) => screen.say(&line)?,
        Effect::Bell => screen.bell()?,
        Effect::Save(rule) => {
            let Some(saved) = saved else { return Ok(()) };
            match saved.append(&rule) {
                Ok(()) => screen.say(&format!("   saved: {rule}"))?,
                Err(error) => screen.say(&format!("   not saved: {error}"))?,
            }
        }
        Effect::Quit => {}
    }
    Ok(())
}

/// The dialog at the end of what the terminal shows.
#[derive(Default)]
struct Screen {
    /// Lines of the dialog that is shown.
    shown: usize,
}

impl Screen {
    /// Removes the dialog.
    fn erase(&mut self) -> io::Result<()> {
        let mut out = io::stdout();
        if self.shown > 0 {
            write!(out, "\r")?;
            let above = u16::try_from(self.shown - 1).unwrap_or(0);
            if above > 0 {
                queue!(out, MoveUp(above))?;
            }
            queue!(out, Clear(ClearType::FromCursorDown))?;
            self.shown = 0;
        }
        Ok(())
    }

    fn draw(&mut self, dialog: &[String]) -> io::Result<()> {
        self.erase()?;
        // The last column is left free: terminals differ in what follows a full line.
        let width = size().map_or(79, |(columns, _)| usize::from(columns.max(21)) - 1);
        let lines: Vec<_> = dialog.iter().flat_map(|line| wrapped(line, width)).collect();
        write!(io::stdout(), "{}", lines.join("\r\n"))?;
        self.shown = lines.len();
        io::stdout().flush()
    }

    /// Writes a line that stays.
    fn say(&mut self, line: &str) -> io::Result<()> {
        self.erase()?;
        write!(io::stdout(), "{line}\r\n")
    }

    fn bell(&mut self) -> io::Result<()> {
        write!(io::stdout(), "\u{7}")
    }
}

/// A line as lines of at most `width`, cut at its double spaces where that helps.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in line.split_inclusive("  ") {
        let mut part = part.to_owned();
        loop {
            let Some(last) = lines.last_mut() else { return lines };
            if last.len() + part.trim_end().len() <= width {
                last.push_str(&part);
                break;
            }
            if last.trim().is_empty() {
                // Text here is ASCII.
                let rest = part.split_off(width.min(part.len()).saturating_sub(last.len()));
                last.push_str(&part);
                part = rest;
            }
            lines.push(" ".to_owned());
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A policy file that rules are appended to.
#[derive(Debug)]
struct Saved {
    file: File,
}

impl Saved {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    fn append(&mut self, rule: &str) -> io::Result<()> {
        if rule.contains(['\n', '\r', '#']) || EgressPolicy::parse(rule, "").is_err() {
            return Err(io::Error::other("the network's answer is no rule"));
        }
        let mut last = [b'\n'];
        if self.file.seek(SeekFrom::End(0))? > 0 {
            self.file.seek(SeekFrom::End(-1))?;
            self.file.read_exact(&mut last)?;
        }
        let gap = if last == *b"\n" { "" } else { "\n" };
        self.file.write_all(format!("{gap}{rule}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_at_gaps() {
        assert_eq!(wrapped(" [a]llow  [s]ession  [d]eny", 80), [" [a]llow  [s]ession  [d]eny"]);
        assert_eq!(wrapped(" [a]llow  [s]ession  [d]eny", 20), [" [a]llow  [s]ession", " [d]eny"]);
        assert_eq!(wrapped(&"x".repeat(25), 20), ["x".repeat(20), format!(" {}", "x".repeat(5))]);
        assert_eq!(wrapped("", 20), [""]);
    }

    #[test]
    fn rules_are_saved_on_lines_of_their_own() {
        let path = std::env::temp_dir().join(format!("slirp-approve-{}", std::process::id()));
        std::fs::write(&path, "allow a.example").expect("a file");
        let mut saved = Saved::open(&path).expect("the file is there");
        saved.append("allow b.example:443").expect("it is a rule");
        saved.append("deny c.example").expect("it is a rule");
        for hostile in ["allow any\nallow x.example", "permit x", "allow x.example # \u{1b}"] {
            saved.append(hostile).expect_err(hostile);
        }
        let text = std::fs::read_to_string(&path).expect("it is text");
        std::fs::remove_file(&path).expect("it is ours");
        assert_eq!(text, "allow a.example\nallow b.example:443\ndeny c.example\n");
    }
}
