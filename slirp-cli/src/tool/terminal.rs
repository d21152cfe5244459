//! A terminal that is read key by key, beside a network that sends messages.
//!
//! Owns the terminal's raw mode, which ends on every way out, and the threads that read. Signals
//! that end a program end it in order, so that the terminal is left as it was found.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::sys::signal::{SigSet, Signal};

use super::client::{ClientError, Message, Messages};

/// Inputs that wait, at most (arbitrary; a network that says more is read more slowly).
const INPUTS_CAP: usize = 256;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Input {
    Key(KeyCode),
    Resized,
    Message(Message),
    /// The network has ended, or the connection to it.
    Ended(ClientError),
    /// Control-C, a signal, or a terminal that is gone.
    Quit,
}

/// Whether there is a terminal to take over: to be asked before anything is connected.
///
/// # Errors
/// That stdin or stdout is none.
pub(super) fn check() -> io::Result<()> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return Ok(());
    }
    Err(io::Error::other("stdin and stdout have to be a terminal"))
}

/// A terminal in raw mode. Dropping it ends that. It is entered once the network has answered:
/// until then control-C ends the program, and a failure is read on an ordinary screen.
#[derive(Debug)]
pub(super) struct Raw {
    has_screen: bool,
}

impl Raw {
    /// Takes the terminal over, with a screen of its own if `has_screen`.
    ///
    /// # Errors
    /// That stdin or stdout is no terminal, and errors of the terminal.
    pub(super) fn enter(has_screen: bool) -> io::Result<Self> {
        check()?;
        enable_raw_mode()?;
        let raw = Self { has_screen };
        if has_screen {
            execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        }
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no order.
        if self.has_screen {
            let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        }
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Reads keys, messages and signals from now on.
///
/// # Errors
/// That there is no thread for it.
pub(super) fn inputs(messages: Messages) -> io::Result<Receiver<Input>> {
    let (sender, receiver) = sync_channel(INPUTS_CAP);
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    // The threads below inherit it.
    signals.thread_block()?;
    let for_signals = sender.clone();
    let for_messages = sender.clone();
    spawn("keys", move || read_keys(&sender))?;
    spawn("signals", move || {
        let _ = signals.wait();
        let _ = for_signals.send(Input::Quit);
    })?;
    spawn("messages", move || read_messages(messages, &for_messages))?;
    Ok(receiver)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn read_keys(sender: &SyncSender<Input>) {
    loop {
        let input = match read() {
            Ok(Event::Key(KeyEvent { kind: KeyEventKind::Release, .. })) => continue,
            Ok(Event::Key(KeyEvent { code: KeyCode::Char('c'), modifiers, .. }))
                if modifiers.contains(KeyModifiers::CONTROL) =>
            {
                Input::Quit
            }
            // Not to be mistaken for the letter alone.
            Ok(Event::Key(KeyEvent { modifiers, .. }))
                if modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                continue;
            }
            Ok(Event::Key(key)) => Input::Key(key.code),
            Ok(Event::Resize(..)) => Input::Resized,
            Ok(Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => {
                continue;
            }
            Err(_) => Input::Quit,
        };
        let is_last = matches!(input, Input::Quit);
        if sender.send(input).is_err() || is_last {
            return;
        }
    }
}

fn read_messages(mut messages: Messages, sender: &SyncSender<Input>) {
    loop {
        let (input, is_last) = match messages.next() {
            Ok(message) => (Input::Message(message), false),
            Err(error) => (Input::Ended(error), true),
        };
        if sender.send(input).is_err() || is_last {
            return;
        }
    }
}
