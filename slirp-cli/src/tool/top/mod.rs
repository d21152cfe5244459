//! `slirp top`: a network as it works, on a screen of its own or as one object for scripts.
//!
//! Owns the command line, the loop, and the requests that keep the picture fresh.
//!
//! ```text
//!  terminal, client  -> keys, answers, events
//!  refresh           requests of one round, and their pages
//!  feed              what is known of the network
//!  columns, table    panes as rows, sorted and filtered
//!  view              what a person looks at; keys to effects
//!  draw              the screen
//! ```

mod columns;
mod draw;
mod feed;
mod once;
mod refresh;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use serde_json::json;

use self::feed::Feed;
use self::refresh::{Answered, Refresh};
use self::view::{Dialog, Effect, View};
use super::client::{Client, ClientError, Message, Requests};
use super::question::explained;
use super::terminal::{self, Input, Raw, inputs};
use crate::console::{eprint_line, print};
use crate::words::TOP;

/// Time from one picture to the next.
const REFRESH: Duration = Duration::from_secs(1);

/// Why the picture ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Network(#[from] ClientError),
    #[error("cannot use the terminal: {0}")]
    Terminal(#[from] io::Error),
    #[error("write error: {0}")]
    Output(io::Error),
}

/// Runs `slirp top` with the arguments behind this word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match TOP.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    let [socket] = line.operands() else { return TOP.refuse("one socket is needed") };
    let (is_once, as_json) = (line.has("once"), line.has("json"));
    if as_json && !is_once {
        return TOP.refuse("--json needs --once");
    }
    let shown = if is_once { once(socket, as_json) } else { run(socket) };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Network(ClientError::Ended)) if !is_once => ExitCode::SUCCESS,
        Err(failure) => {
            eprint_line(format_args!("slirp top: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn once(socket: &OsString, as_json: bool) -> Result<(), Failure> {
    let mut client = Client::connect(socket, "slirp top")?;
    let text = once::picture(&mut client, as_json)?;
    print(text.as_bytes()).map_err(Failure::Output)
}

fn run(socket: &OsString) -> Result<(), Failure> {
    // A pipe in the place of the terminal is told before anything is connected.
    terminal::check()?;
    let client = Client::connect(socket, "slirp top")?;
    let raw = Raw::enter(true)?;
    let mut view = View::new(client.greeting.may_decide);
    let mut feed = Feed::default();
    feed.info.version.clone_from(&client.greeting.version);
    let (mut requests, messages) = client.split();
    let inputs = inputs(messages)?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let has_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let arguments = json!({ "decide": view.may_decide });
    let mut refresh = Refresh::default();
    let number = requests.send("subscribe", arguments)?;
    refresh.expect(number, Answered::Nothing);
    let mut next_at = Instant::now();
    let end = loop {
        let now = Instant::now();
        if now >= next_at {
            next_at = now + REFRESH;
            refresh.begin(&mut requests)?;
        }
        let input = inputs.recv_timeout(next_at.saturating_duration_since(now));
        let now = Instant::now();
        let effects = match input {
            Ok(Input::Key(key)) => view.on_key(key, &feed, now),
            Ok(Input::Message(message)) => {
                let answered = match message {
                    Message::Event(event) => {
                        feed.on_event(&event, now);
                        // An answer draws what events have changed, at most a second later.
                        continue;
                    }
                    Message::Answer(number, answer) => {
                        refresh.on_answer(number, answer, &mut requests, &mut feed, now)?
                    }
                };
                on_answered(answered, &mut view);
                Vec::new()
            }
            Ok(Input::Resized) => {
                terminal.autoresize()?;
                Vec::new()
            }
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Ok(Input::Quit) | Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Ok(Input::Ended(error)) => break Err(error.into()),
        };
        if effects.contains(&Effect::Quit) {
            break Ok(());
        }
        for effect in effects {
            perform(effect, &mut requests, &mut refresh)?;
        }
        view.page = usize::from(terminal.size()?.height).saturating_sub(5).max(1);
        terminal.draw(|frame| draw::draw(frame, &view, &feed, now, has_color))?;
        view.on_drawn(&feed, Instant::now());
    };
    drop(raw);
    end
}

fn on_answered(answered: Answered, view: &mut View) {
    match answered {
        Answered::Nothing => {}
        Answered::Told(words) => view.message = Some(words),
        Answered::Explained(answer) => view.dialog = Some(Dialog::Details(explained(&answer))),
        Answered::Rules { path, text } => {
            view.message = Some(match write_new(&path, &text) {
                Ok(()) => format!("written: {path}"),
                Err(error) => format!("cannot write {path}: {error}"),
            });
        }
    }
}

/// Writes a file that is not there yet: a policy is not to be lost by a slip of the finger.
fn write_new(path: &str, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn perform(
    effect: Effect,
    requests: &mut Requests,
    refresh: &mut Refresh,
) -> Result<(), ClientError> {
    match effect {
        Effect::Change { request, arguments, done } => {
            let number = requests.send(request, arguments)?;
            refresh.expect(number, Answered::Told(done));
        }
        Effect::Explain(arguments) => {
            let number = requests.send("explain", arguments)?;
            refresh.expect(number, Answered::Explained(json!({})));
        }
        Effect::WriteRules(path) => {
            let number = requests.send("policy_get", json!({}))?;
            refresh.expect(number, Answered::Rules { path, text: String::new() });
        }
        Effect::Quit => {}
    }
    Ok(())
}
