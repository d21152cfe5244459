//! The screen of `slirp top`.
//!
//! Owns where everything stands. What it means is told by words and places; colour only repeats it,
//! and `NO_COLOR` leaves it out.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::columns::{Column, PANES, Pane, Sort, columns};
use super::feed::Feed;
use super::table::Row;
use super::view::{Dialog, Purpose, View};
use crate::tool::shown::{amount, brief, clock, counted};

/// Lines above the rows: two of the network, one of columns.
const ABOVE: u16 = 3;
/// Columns from which on words are not shortened.
const WIDE: usize = 110;

const HELP: &[&str] = &[
    "1-7, Tab    another pane",
    "Up, Down, PageUp, PageDown, Home, End    select a row",
    "Enter       details of the row",
    "letters     sort by the column with this letter, again for the other way:",
];

const HELP_MORE: &[&str] = &[
    "s, S        sort by the next column; the other way",
    "/           show only rows that contain a text; Esc for all",
    "space       let the screen stand still, and go on",
    "w           write the rules in force to a new file",
    "q           quit",
];

const HELP_DECIDE: &[&str] = &[
    "x           cut the selected flow",
    "+  -        add a rule that allows or denies the selected destination",
    "In pane 6:  a allow once  s session  f 10 minutes  p parent  d deny  D deny session",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, feed: &Feed, now: Instant, color: bool) {
    let area = frame.area();
    let width = usize::from(area.width);
    let question = view.question(feed, now).filter(|_| area.height > ABOVE + 2);
    let below = 1 + u16::from(question.is_some());
    line(frame, 0, Line::from(head(view, feed, now, width)));
    line(frame, 1, tabs(view, feed));
    let table = view.table(feed, now);
    let columns: Vec<_> =
        table.columns.iter().enumerate().filter(|(_, column)| column.from <= width).collect();
    let widths = widths(&columns, width);
    line(frame, 2, titles(&columns, &widths, view.sort()));
    let rows = table.view(view.sort(), &view.filter);
    let selected = view.selected_at(&rows);
    let page = usize::from(area.height.saturating_sub(ABOVE + below));
    // The selected row is on the page.
    let first = (selected + 1).saturating_sub(page);
    for (at, row) in rows.iter().enumerate().skip(first).take(page) {
        let shown = cells(&columns, &widths, row);
        let mut style = row_style(row, color);
        if at == selected {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let y = ABOVE + u16::try_from(at - first).unwrap_or(u16::MAX);
        line(frame, y, Line::styled(shown, style));
    }
    if let Some(question) = question {
        let keys = if !view.may_decide {
            String::new()
        } else if view.pane == Pane::Questions {
            format!("  {}", question.keys())
        } else {
            "  6 to answer".to_owned()
        };
        let text = format!(" QUESTION  {}  {}{keys}", question.target(), question.status(now));
        line(frame, area.height - 2, Line::styled(text, Modifier::BOLD));
    }
    line(frame, area.height.saturating_sub(1), Line::from(foot(view, rows.len(), width)));
    if let Some(dialog) = &view.dialog {
        over(frame, dialog, view);
    }
}

fn line(frame: &mut Frame<'_>, y: u16, line: Line<'_>) {
    let area = frame.area();
    if y < area.height {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// The network in one line: in short where the screen is narrow.
fn head(view: &View, feed: &Feed, now: Instant, width: usize) -> String {
    let info = &feed.info;
    let is_wide = width >= WIDE;
    let policy = match &info.policy {
        Some((revision, rules, default, mode)) => {
            let mode = if mode == "audit" { " AUDIT" } else { "" };
            let rules = counted(*rules, "rule");
            let rules = if is_wide { format!(" ({rules})") } else { String::new() };
            format!("r{revision} {default}{mode}{rules}")
        }
        None => "no policy".to_owned(),
    };
    let policy = if is_wide { format!("policy {policy}") } else { policy };
    let last = feed.denied_at.map(|then| brief(now.saturating_duration_since(then)));
    let last =
        last.map(|span| if is_wide { format!(" (last {span} ago)") } else { format!(" ({span})") });
    let rate = |bytes| amount(bytes) + if is_wide { "B/s" } else { "/s" };
    let frozen = if view.is_frozen() { "  FROZEN" } else { "" };
    let lost = if feed.lost > 0 { format!("  lost {}", amount(feed.lost)) } else { String::new() };
    format!(
        " slirp {}{frozen}  up {}  {policy}  out {}  in {}  flows {}  denied {}{}{lost}",
        info.version,
        clock(info.uptime),
        rate(feed.rate.out),
        rate(feed.rate.back),
        amount(info.flows),
        amount(info.denied),
        last.unwrap_or_default(),
    )
}

fn tabs(view: &View, feed: &Feed) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    for (number, (pane, name)) in (1..).zip(PANES) {
        let questions = feed.questions.len();
        let is_count = pane == Pane::Questions && questions > 0;
        let count = if is_count { format!("({questions})") } else { String::new() };
        let is_open = pane == view.pane;
        let style = if is_open { Modifier::BOLD | Modifier::UNDERLINED } else { Modifier::empty() };
        // The open pane is to be seen without any style, too.
        let mark = if is_open { ">" } else { "[" };
        spans.push(Span::styled(format!("{mark}{number}]{name}{count}"), style));
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

/// Cells of the screen for each column.
fn widths(columns: &[(usize, &Column)], width: usize) -> Vec<usize> {
    let fixed: usize = columns.iter().map(|(_, column)| column.width + 1).sum();
    let rest = width.saturating_sub(fixed).max(8);
    let of = |column: &Column| if column.width == 0 { rest } else { column.width };
    columns.iter().map(|(_, column)| of(column)).collect()
}

fn titles(columns: &[(usize, &Column)], widths: &[usize], sort: Sort) -> Line<'static> {
    let mut spans = Vec::new();
    for ((at, column), &width) in columns.iter().zip(widths) {
        let is_sorted = *at == sort.column;
        let title = if is_sorted { format!("*{}", column.title) } else { column.title.to_owned() };
        let style = if is_sorted { Modifier::BOLD } else { Modifier::empty() };
        spans.push(Span::styled(placed(&title, width, column.is_number), style));
    }
    Line::from(spans)
}

fn cells(columns: &[(usize, &Column)], widths: &[usize], row: &Row) -> String {
    let mut text = String::new();
    for ((at, column), &width) in columns.iter().zip(widths) {
        let shown = row.cells.get(*at).map_or("", |cell| &cell.shown);
        text += &placed(shown, width, column.is_number);
    }
    text
}

/// A text in a column, behind a gap; what does not fit is cut, as `>` shows.
fn placed(text: &str, width: usize, is_number: bool) -> String {
    let len = text.chars().count();
    if len > width {
        let cut: String = text.chars().take(width.saturating_sub(1)).collect();
        format!(" {cut}>")
    } else if is_number {
        format!(" {text:>width$}")
    } else {
        format!(" {text:<width$}")
    }
}

fn row_style(row: &Row, color: bool) -> Style {
    let says = |word: &str| row.cells.iter().any(|cell| cell.shown == word);
    match (color, says("deny"), says("ask")) {
        (true, true, _) => Style::new().fg(Color::Red),
        (true, false, true) => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn foot(view: &View, rows: usize, width: usize) -> String {
    if let Some(message) = &view.message {
        return format!(" {message}");
    }
    let is_wide = width >= WIDE;
    let decide = match (view.may_decide, is_wide) {
        (true, true) => "  x cut  + allow  - deny",
        (true, false) => "  x cut  + -",
        (false, _) => "",
    };
    let filter = match view.filter.as_str() {
        "" => "/ filter".to_owned(),
        text => format!("/{text} ({})", counted(rows as u64, "row")),
    };
    let (details, write) =
        if is_wide { ("Enter details", "w write rules") } else { ("Enter", "w write") };
    format!(" s sort  {filter}  {details}{decide}  {write}  space freeze  ? help  q quit")
}

fn over(frame: &mut Frame<'_>, dialog: &Dialog, view: &View) {
    let lines: Vec<String> = match dialog {
        Dialog::Help => {
            let columns = columns(view.pane).0;
            let letters =
                columns.iter().map(|column| format!("{} {}", column.letter, column.title));
            let letters = letters.collect::<Vec<_>>().join("  ");
            let decide = if view.may_decide { HELP_DECIDE } else { &[] };
            let lines = HELP.iter().map(|line| (*line).to_owned());
            let more = HELP_MORE.iter().chain(decide).map(|line| (*line).to_owned());
            lines.chain([format!("            {letters}")]).chain(more).collect()
        }
        Dialog::Details(lines) => lines.clone(),
        Dialog::Cut { flow, shown } => {
            vec![
                format!("Cut flow {flow}?"),
                shown.clone(),
                "y cuts it, any other key does not".into(),
            ]
        }
        Dialog::Input { purpose, text } => {
            let what = match purpose {
                Purpose::Filter => "filter",
                Purpose::Rule => "rule",
                Purpose::File => "write the rules in force to the new file",
            };
            let area = frame.area();
            let y = area.height.saturating_sub(1);
            frame.render_widget(Clear, Rect { y, height: 1.min(area.height), ..area });
            line(frame, y, Line::styled(format!(" {what}: {text}_"), Modifier::BOLD));
            return;
        }
    };
    let area = frame.area();
    let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let lines: Vec<_> = lines.into_iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered()), place);
}
