//! A terminal that a program runs in: keys pressed, screen read, size changed.
//!
//! The terminal is one of tmux(1), with a server of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::namespace::Namespace;
use crate::requirement::{Missing, is_installed};
use crate::wait::{PATIENCE, wait_until};

/// A program in a terminal. Dropping it ends both.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs a command of the shell in the network of `namespace`, on 80 columns and 24 lines. What
    /// is on the screen at its end stays there.
    ///
    /// # Errors
    /// [`Missing`], when this machine has no tmux.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(namespace: &Namespace, folder: &Path, command: &str) -> Result<Self, Missing> {
        is_installed("tmux")?;
        let mut number = 0;
        let socket = loop {
            let socket = folder.join(format!("terminal-{number}"));
            if !socket.exists() {
                break socket;
            }
            number += 1;
        };
        let terminal = Self { socket };
        let socket = terminal.socket.to_string_lossy().into_owned();
        // The end is on the screen, and the screen stays until the terminal is dropped.
        let command = format!("{command}; echo \"status $?\"; stty -a; exec sleep 1000000");
        let options =
            ["-f", "/dev/null", "-S", &socket, "new-session", "-d", "-x", "80", "-y", "24"];
        let mut tmux = namespace.network_command(&["tmux"]);
        tmux.args(options).arg(&command).env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        let started = output(&mut tmux);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        let output = output(tmux.arg("-S").arg(&self.socket).args(arguments));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The screen as it is, one line each.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen with its escape sequences for colours and the like.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn styled_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Presses keys by their names in tmux: `a`, `Enter`, `Down`.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Gives the terminal another size.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, lines: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]);
    }

    /// Waits until the screen contains a text, and hands the screen back.
    ///
    /// # Panics
    /// When that does not happen; with the screen.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until a condition holds for the screen.
    ///
    /// # Panics
    /// When that does not happen; with the screen.
    pub fn wait_until(&self, what: &str, is_met: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(PATIENCE, what, || {
                last = self.screen();
                is_met(&last)
            });
        }));
        assert!(found.is_ok(), "{what} is not on the screen:\n{last}");
        last
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        // It may have ended already.
        let _ = output(tmux.arg("-S").arg(&self.socket).arg("kill-server"));
    }
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("tmux runs")
}
