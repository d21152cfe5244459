//! What a person looks at, and what keys do.
//!
//! Owns the state of the screen without a screen: the pane, its order, the selected row, what
//! stands still, and the dialogs. What is known of the network is in `feed`.

use std::time::Instant;

use crossterm::event::KeyCode;
use serde_json::{Value, json};

use super::columns::{PANES, Pane, Sort, columns};
use super::feed::Feed;
use super::table::{Row, Table, table};
use crate::tool::question::{OnScreen, Question};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// A change, and what it is called when it is done.
    Change {
        request: &'static str,
        arguments: Value,
        done: String,
    },
    /// What becomes of an attempt.
    Explain(Value),
    /// The rules in force, into a new file.
    WriteRules(String),
    Quit,
}

/// What lies over the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Dialog {
    Help,
    /// Lines about something.
    Details(Vec<String>),
    /// A line that is being written.
    Input {
        purpose: Purpose,
        text: String,
    },
    /// A flow that is about to be cut.
    Cut {
        flow: String,
        shown: String,
    },
}

/// What a line is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Filter,
    Rule,
    File,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct View {
    pub(super) may_decide: bool,
    pub(super) pane: Pane,
    sorts: [Sort; PANES.len()],
    pub(super) filter: String,
    /// The key of the selected row in each pane.
    selected: [Option<String>; PANES.len()],
    on_screen: OnScreen,
    /// The tables as they were when everything was to stand still.
    frozen: Option<Vec<Table>>,
    pub(super) dialog: Option<Dialog>,
    /// What became of the last change.
    pub(super) message: Option<String>,
    /// Rows of the table that fit the screen.
    pub(super) page: usize,
}

fn index_of(pane: Pane) -> usize {
    PANES.iter().position(|(other, _)| *other == pane).unwrap_or(0)
}

impl View {
    pub(super) fn new(may_decide: bool) -> Self {
        Self {
            may_decide,
            pane: Pane::default(),
            sorts: PANES.map(|(pane, _)| columns(pane).1),
            filter: String::new(),
            selected: PANES.map(|_| None),
            on_screen: OnScreen::default(),
            frozen: None,
            dialog: None,
            message: None,
            page: 10,
        }
    }

    pub(super) const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// How the pane is sorted.
    pub(super) fn sort(&self) -> Sort {
        self.sorts[index_of(self.pane)]
    }

    /// The pane's table, as of now or of when it was frozen.
    pub(super) fn table(&self, feed: &Feed, now: Instant) -> Table {
        match self.frozen.as_ref().and_then(|tables| tables.get(index_of(self.pane))) {
            Some(table) => table.clone(),
            None => table(self.pane, feed, now),
        }
    }

    /// Where the selected row is among `rows`.
    pub(super) fn selected_at(&self, rows: &[&Row]) -> usize {
        let key = self.selected[index_of(self.pane)].as_ref();
        rows.iter().position(|row| Some(&row.key) == key).unwrap_or(0)
    }

    /// A key was pressed.
    #[expect(clippy::wildcard_enum_match_arm, reason = "keys without a meaning do nothing")]
    pub(super) fn on_key(&mut self, key: KeyCode, feed: &Feed, now: Instant) -> Vec<Effect> {
        self.message = None;
        if let Some(dialog) = self.dialog.take() {
            return self.on_dialog_key(dialog, key);
        }
        if self.pane == Pane::Questions
            && let KeyCode::Char(letter) = key
            && let Some(effects) = self.on_answer(letter, feed, now)
        {
            return effects;
        }
        match key {
            KeyCode::Char('q') => return vec![Effect::Quit],
            KeyCode::Char('?') => self.dialog = Some(Dialog::Help),
            KeyCode::Char(digit @ '1'..='7') => {
                let at = digit.to_digit(10).unwrap_or(1) as usize - 1;
                self.pane = PANES.get(at).map_or(Pane::Names, |(pane, _)| *pane);
            }
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(PANES.len() - 1),
            KeyCode::Char(' ') => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(PANES.iter().map(|(pane, _)| table(*pane, feed, now)).collect()),
                };
            }
            KeyCode::Char('/') => self.ask(Purpose::Filter, self.filter.clone()),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('w') => self.ask(Purpose::File, String::new()),
            KeyCode::Up => self.go(feed, now, -1),
            KeyCode::Down => self.go(feed, now, 1),
            KeyCode::PageUp => self.go(feed, now, -(self.page as isize)),
            KeyCode::PageDown => self.go(feed, now, self.page as isize),
            KeyCode::Home => self.go(feed, now, isize::MIN),
            KeyCode::End => self.go(feed, now, isize::MAX),
            KeyCode::Enter => {
                if let Some(row) = self.row(feed, now) {
                    self.dialog = Some(Dialog::Details(row.details));
                }
            }
            KeyCode::Char('x') if self.may_decide => {
                let cut = self.row(feed, now).and_then(|row| Some((row.flow?, row.details)));
                match cut {
                    Some((flow, details)) => {
                        let shown = details.get(2).cloned().unwrap_or_default();
                        self.dialog = Some(Dialog::Cut { flow, shown });
                    }
                    None => self.message = Some("x cuts flows: press 2 and select one".into()),
                }
            }
            KeyCode::Char(sign @ ('+' | '-')) if self.may_decide => {
                let target = self.row(feed, now).and_then(|row| row.target).unwrap_or_default();
                let action = if sign == '+' { "allow" } else { "deny" };
                self.ask(Purpose::Rule, format!("{action} {target}"));
            }
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Char('S') => {
                let sort = &mut self.sorts[index_of(self.pane)];
                sort.is_reversed = !sort.is_reversed;
            }
            KeyCode::Char(letter) => self.sort_by(letter),
            _ => {}
        }
        Vec::new()
    }

    fn turn(&mut self, by: usize) {
        let at = (index_of(self.pane) + by) % PANES.len();
        self.pane = PANES.get(at).map_or(Pane::Names, |(pane, _)| *pane);
    }

    fn ask(&mut self, purpose: Purpose, text: String) {
        self.dialog = Some(Dialog::Input { purpose, text });
    }

    fn sort_by_next(&mut self) {
        let sort = &mut self.sorts[index_of(self.pane)];
        let columns = columns(self.pane).0.len();
        *sort = Sort { column: (sort.column + 1) % columns, is_reversed: false };
    }

    /// Sorts by the column with this letter; the other way if it is sorted by that.
    fn sort_by(&mut self, letter: char) {
        let columns = columns(self.pane).0;
        let Some(column) = columns.iter().position(|column| column.letter == letter) else {
            return;
        };
        let sort = &mut self.sorts[index_of(self.pane)];
        let is_reversed = sort.column == column && !sort.is_reversed;
        *sort = Sort { column, is_reversed };
    }

    /// The selected row.
    fn row(&self, feed: &Feed, now: Instant) -> Option<Row> {
        let table = self.table(feed, now);
        let rows = table.view(self.sort(), &self.filter);
        rows.get(self.selected_at(&rows)).map(|row| Row::clone(row))
    }

    fn go(&mut self, feed: &Feed, now: Instant, by: isize) {
        let table = self.table(feed, now);
        let rows = table.view(self.sort(), &self.filter);
        let at =
            self.selected_at(&rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        self.selected[index_of(self.pane)] = rows.get(at).map(|row| row.key.clone());
    }

    /// The question that keys are about: the selected one in its pane, or the oldest.
    pub(super) fn question<'f>(&self, feed: &'f Feed, now: Instant) -> Option<&'f Question> {
        let key = match self.pane {
            Pane::Questions => self.row(feed, now).map(|row| row.key),
            Pane::Names | Pane::Flows | Pane::Denied | Pane::Dns | Pane::Rules | Pane::Members => {
                None
            }
        };
        let selected = feed.questions.iter().find(|question| Some(question.id.to_string()) == key);
        // One that stands still on the screen may be over.
        if key.is_some() { selected } else { feed.questions.first() }
    }

    /// The screen was drawn.
    pub(super) fn on_drawn(&mut self, feed: &Feed, now: Instant) {
        let question = self.question(feed, now).map(|question| question.id);
        self.on_screen.on_drawn(question, now);
    }

    /// What a letter means for the question that keys are about: nothing where it was pressed too
    /// soon to be meant for that one. `None` if it has no meaning there.
    fn on_answer(&self, letter: char, feed: &Feed, now: Instant) -> Option<Vec<Effect>> {
        let question = self.question(feed, now)?;
        if letter == 'e' {
            return Some(vec![Effect::Explain(question.attempt())]);
        }
        let choice = question.choice(letter).filter(|_| self.may_decide)?;
        if !self.on_screen.may_decide(question.id, now) {
            return Some(Vec::new());
        }
        Some(vec![Effect::Change {
            request: "decide",
            arguments: question.decision(choice),
            done: format!("{}: {}", question.target(), choice.as_str()),
        }])
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "keys without a meaning do nothing")]
    fn on_dialog_key(&mut self, dialog: Dialog, key: KeyCode) -> Vec<Effect> {
        match (dialog, key) {
            // Any key closes what is only read, and does nothing else.
            (Dialog::Help | Dialog::Details(_), _) => {}
            (Dialog::Cut { flow, shown }, KeyCode::Char('y')) => {
                let arguments = json!({ "flow": flow });
                return vec![Effect::Change {
                    request: "cut",
                    arguments,
                    done: format!("cut {flow}: {shown}"),
                }];
            }
            (Dialog::Cut { .. }, _) => {}
            (Dialog::Input { purpose, .. }, KeyCode::Esc) => {
                if purpose == Purpose::Filter {
                    self.filter.clear();
                }
            }
            (Dialog::Input { purpose, text }, KeyCode::Enter) => {
                return self.on_line(purpose, text.trim()).into_iter().collect();
            }
            (Dialog::Input { purpose, mut text }, key) => {
                match key {
                    KeyCode::Backspace => drop(text.pop()),
                    KeyCode::Char(letter @ ' '..='~') if text.len() < 1000 => text.push(letter),
                    _ => {}
                }
                if purpose == Purpose::Filter {
                    self.filter.clone_from(&text);
                }
                self.dialog = Some(Dialog::Input { purpose, text });
            }
        }
        Vec::new()
    }

    fn on_line(&mut self, purpose: Purpose, text: &str) -> Option<Effect> {
        match purpose {
            Purpose::Filter => {
                text.clone_into(&mut self.filter);
                None
            }
            Purpose::Rule | Purpose::File if text.is_empty() => None,
            Purpose::Rule => Some(Effect::Change {
                request: "policy_add",
                arguments: json!({ "rule": text }),
                done: format!("in force: {text}"),
            }),
            Purpose::File => Some(Effect::WriteRules(text.to_owned())),
        }
    }
}
