//! The screen: the table, and of the selected unit its histograms and sessions. It draws what it is given and keeps only
//! what the user has chosen.

use std::net::SocketAddr;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};

use super::answer::{AT_MEDIUM, OPERATIONS, PHASES, Unit};
use super::chart;
use super::interval::Interval;
use super::table;
use crate::figures;

/// What is shown, and what of it is chosen.
#[derive(Debug)]
pub(crate) struct View {
    gateway: SocketAddr,
    interval: Option<Interval>,
    /// Why there is nothing newer.
    failure: Option<String>,
    /// The unit whose details are shown; the first, where it is gone.
    selected: u32,
    /// Whose histograms are shown; `None`: of the busiest operation.
    operation: Option<usize>,
}

/// Lines of the table, its headings included, that are shown at least.
const TABLE_LINES_MIN: u16 = 4;
/// Lines of the sessions of one unit, their heading included, that are shown at most.
const SESSION_LINES_MAX: u16 = 6;
/// Columns of the labels of histograms.
const LABEL_COLUMNS: u16 = 9;
/// Columns of the counts of histograms.
const COUNT_COLUMNS: u16 = 6;

impl View {
    /// A view on this gateway, of which nothing is known yet.
    pub(crate) fn new(gateway: SocketAddr) -> Self {
        Self { gateway, interval: None, failure: None, selected: 0, operation: None }
    }

    /// Shows this from now on.
    pub(crate) fn show(&mut self, interval: Interval) {
        self.failure = None;
        self.interval = Some(interval);
    }

    /// Says why there is nothing newer.
    pub(crate) fn complain(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    /// Takes a key; `false` to leave.
    pub(crate) fn press(&mut self, key: KeyCode) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-10),
            KeyCode::PageDown => self.step(10),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char('r') => self.operation = Some(0),
            KeyCode::Char('w') => self.operation = Some(1),
            KeyCode::Char('o') => self.operation = Some(2),
            KeyCode::Char('b') => self.operation = None,
            _ => {}
        }
        true
    }

    fn step(&mut self, by: isize) {
        let index = self.index();
        if let Some(interval) = &self.interval
            && let Some(last) = interval.end.units.len().checked_sub(1)
        {
            self.selected = interval.end.units[index.saturating_add_signed(by).min(last)].unit;
        }
    }

    /// The index of the selected unit.
    fn index(&self) -> usize {
        let units = self.interval.as_ref().map_or(&[][..], |interval| &interval.end.units);
        units.iter().position(|unit| unit.unit == self.selected).unwrap_or(0)
    }

    /// Draws everything.
    pub(crate) fn draw(&self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)])
                .areas(frame.area());
        self.draw_head(frame, head);
        let keys = " ↑↓ select   r read  w write  o other  b busiest   q quit";
        frame.render_widget(Paragraph::new(keys).dim(), foot);
        let Some(interval) = &self.interval else { return };
        if interval.end.units.is_empty() {
            let nothing = "The gateway has no logical unit open.";
            frame.render_widget(Paragraph::new(nothing).block(Block::bordered()), body);
            return;
        }
        let rows = table::rows(interval);
        let wanted = u16::try_from(rows.len()).unwrap_or(u16::MAX).saturating_add(1);
        let table_lines = wanted.min((body.height / 2).max(TABLE_LINES_MIN));
        let [upper, lower] =
            Layout::vertical([Constraint::Length(table_lines), Constraint::Min(0)]).areas(body);
        self.draw_table(frame, upper, &rows);
        self.draw_unit(frame, lower, interval);
    }

    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut first = vec![Span::from(" portico top ").bold(), Span::from(format!(" {}", self.gateway))];
        let mut second = String::new();
        if let Some(interval) = &self.interval {
            let up = interval.end.taken_ns / 1_000_000_000;
            let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
            let over = figures::time_ns(interval.length_ns);
            first.push(Span::from(format!("   up {hours}:{minutes:02}:{seconds:02}   over {over}")));
            second = format!(" {}", table::shards(&interval.end));
        }
        if let Some(failure) = &self.failure {
            first.push(Span::from("   "));
            first.push(Span::from(failure.as_str()).red().bold());
        } else if self.interval.is_none() {
            first.push(Span::from("   the first figures come after one interval"));
        }
        frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, rows: &[table::Row]) {
        let selected = self.index();
        let align = |column: usize, text: &str| {
            let line = Line::from(text.to_owned());
            Cell::from(if column < table::FIRST_FIGURE { line } else { line.right_aligned() })
        };
        let lines = rows.iter().map(|row| {
            let cells = row.cells.iter().enumerate().map(|(column, cell)| align(column, cell));
            let style = if row.alarming { Style::new().red() } else { Style::new() };
            Row::new(cells).style(if row.unit == selected { style.reversed() } else { style })
        });
        let headings = Row::new(table::HEADINGS.iter().enumerate().map(|(column, text)| align(column, text)));
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(7),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(7),
        ];
        // The last row of the unit, then the first, so that both are on the screen where there is room.
        let last = rows.iter().rposition(|row| row.unit == selected);
        let mut state = TableState::new().with_selected(last);
        let table = Table::new(lines, widths).header(headings.bold());
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn draw_unit(&self, frame: &mut Frame<'_>, area: Rect, interval: &Interval) {
        let index = self.index();
        let unit = &interval.end.units[index];
        let sessions = sessions(interval, unit);
        let wanted = u16::try_from(sessions.len()).unwrap_or(u16::MAX).saturating_add(1);
        let session_lines = wanted.min(SESSION_LINES_MAX).min(area.height / 3);
        let [title, charts, list] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(session_lines)])
                .areas(area);
        let title_lines = vec![Line::from(format!("── {} ", unit.device)).bold(), Line::from(describe(unit))];
        frame.render_widget(Paragraph::new(title_lines), title);
        self.draw_charts(frame, charts, interval, index);
        let shown = usize::from(session_lines.saturating_sub(1));
        let more = sessions.len().saturating_sub(shown);
        let heading = match (sessions.len(), more) {
            (count, 0) => format!("── sessions: {count}"),
            (count, more) => format!("── sessions: {count}, {more} of them not shown"),
        };
        let lines = [heading].into_iter().chain(sessions.into_iter().take(shown)).map(Line::from);
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), list);
    }

    fn draw_charts(&self, frame: &mut Frame<'_>, area: Rect, interval: &Interval, index: usize) {
        let activities = &interval.activities[index];
        let busiest = (0..OPERATIONS.len()).rev().max_by_key(|operation| activities[*operation].commands);
        let operation = self.operation.or(busiest).unwrap_or(0);
        let activity = &activities[operation];
        let [heading, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let columns = Layout::horizontal([
            Constraint::Length(LABEL_COLUMNS),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Fill(1),
        ])
        .spacing(1);
        let [label, phases @ ..]: [Rect; 4] = columns.areas(heading);
        frame.render_widget(Paragraph::new(OPERATIONS[operation]).bold(), label);
        for (phase, area) in phases.into_iter().enumerate() {
            let median = activity.phases[phase].quantile(50_000).map_or("-".to_owned(), figures::time_ns);
            let library = Some(&activity.in_library).filter(|_| phase == AT_MEDIUM);
            let library = library.and_then(|times| times.quantile(50_000));
            let library = library.map_or(String::new(), |ns| format!(", librbd {}", figures::time_ns(ns)));
            frame.render_widget(
                Paragraph::new(format!("{}  p50 {median}{library}", PHASES[phase])).bold(),
                area,
            );
        }
        let buckets = chart::buckets(&activity.phases, usize::from(body.height));
        if buckets.is_empty() {
            frame.render_widget(Paragraph::new("none in this interval").dim(), body);
            return;
        }
        let [label, phases @ ..]: [Rect; 4] = columns.areas(body);
        let labels: Vec<Line<'_>> =
            buckets.iter().map(|bucket| Line::from(bucket.label()).right_aligned()).collect();
        frame.render_widget(Paragraph::new(labels), label);
        for (distribution, area) in activity.phases.iter().zip(phases) {
            let counts = buckets.iter().map(|bucket| distribution.between(bucket.above_ns, bucket.to_ns));
            let most = counts.clone().max().unwrap_or(0);
            let width = usize::from(area.width.saturating_sub(COUNT_COLUMNS + 1));
            let lines = counts.map(|count| {
                let number = if count == 0 { String::new() } else { figures::count(count) };
                let columns = usize::from(COUNT_COLUMNS);
                let bar = Span::from(chart::bar(count, most, width)).cyan();
                Line::from(vec![Span::from(format!("{number:>columns$} ")), bar])
            });
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
        }
    }
}

/// What a unit is and where it is found, in one line.
fn describe(unit: &Unit) -> String {
    let state = match (unit.ready, unit.draining) {
        (false, _) => "not ready",
        (true, true) => "draining",
        (true, false) => "ready",
    };
    let bytes = unit.capacity_blocks.saturating_mul(u64::from(unit.block_bytes));
    let mut parts = vec![format!("{state}, {} in blocks of {}", figures::size(bytes), unit.block_bytes)];
    parts.extend(unit.luns.iter().map(|lun| match &lun.group {
        Some(group) => format!("{} {group} LUN {}", lun.target, lun.lun),
        None => format!("{} LUN {}", lun.target, lun.lun),
    }));
    parts.join("   ")
}

/// The sessions of the targets that map a unit, a line each.
fn sessions(interval: &Interval, unit: &Unit) -> Vec<String> {
    let of_unit = interval.end.sessions.iter().filter(|session| {
        let target = session.target.as_deref();
        unit.luns.iter().any(|lun| Some(lun.target.as_str()) == target)
    });
    of_unit
        .map(|session| format!("shard {}  {}  {}", session.shard, session.peer, session.initiator))
        .collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Modifier;

    use super::super::answer::tests::answer;
    use super::*;

    fn gateway() -> SocketAddr {
        "127.0.0.1:9877".parse().unwrap()
    }

    fn viewed() -> View {
        let mut view = View::new(gateway());
        let interval = Interval::between(&answer(3_600_000_000_000, 200), answer(3_601_000_000_000, 25_200));
        view.show(interval.unwrap());
        view
    }

    /// The characters of a screen, without what is blank at the end of a line.
    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn a_screen_shows_the_table_the_histograms_and_the_sessions() {
        assert_eq!(screen(&viewed(), 80, 24), include_str!("golden/screen.txt"));
    }

    #[test]
    fn librbds_own_time_stands_beside_the_mediums() {
        let mut view = viewed();
        let activity = &mut view.interval.as_mut().unwrap().activities[0][0];
        activity.in_library = activity.phases[AT_MEDIUM].clone();
        assert!(screen(&view, 120, 24).contains("at medium  p50 45.0µs, librbd 45.0µs"));
    }

    #[test]
    fn the_unit_below_is_selected_by_an_arrow() {
        let mut view = viewed();
        assert!(view.press(KeyCode::Down));
        assert_eq!(screen(&view, 80, 24), include_str!("golden/second-unit.txt"));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let reversed = |y| terminal.backend().buffer()[(0, y)].modifier.contains(Modifier::REVERSED);
        assert_eq!([3, 4].map(reversed), [false, true], "the rows of disk1 and of disk2");
        assert!(view.press(KeyCode::Down), "and there it stays");
        assert_eq!(view.index(), 1);
        view.press(KeyCode::Home);
        assert_eq!(view.index(), 0);
    }

    #[test]
    fn an_operation_without_commands_says_so() {
        let mut view = viewed();
        view.press(KeyCode::Char('w'));
        assert!(screen(&view, 80, 24).contains("none in this interval"));
        view.press(KeyCode::Char('b'));
        assert!(!screen(&view, 80, 24).contains("none in this interval"));
    }

    #[test]
    fn before_the_first_interval_and_without_a_gateway_the_screen_says_why() {
        let mut view = View::new(gateway());
        assert!(screen(&view, 80, 4).contains("the first figures come after one interval"));
        view.complain("nobody listens there".to_owned());
        assert!(screen(&view, 80, 4).contains("nobody listens there"));
    }

    #[test]
    fn what_was_known_stays_when_the_gateway_goes() {
        let mut view = viewed();
        view.complain("no answer in time".to_owned());
        let screen = screen(&view, 100, 24);
        assert!(screen.contains("no answer in time") && screen.contains("disk1"), "{screen}");
    }

    #[test]
    fn no_screen_is_too_small() {
        let view = viewed();
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            screen(&view, width, height);
        }
    }

    #[test]
    fn q_leaves() {
        assert!(!viewed().press(KeyCode::Char('q')));
        assert!(!viewed().press(KeyCode::Esc));
    }
}
