//! [`View`]: a run on a terminal while it goes on. Drawing is a pure function of what is to be shown; the terminal is given back
//! whatever happens, also when something panics.

use std::io;
use std::time::Duration;

use colibri_loadtest::runner::Live;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};

use crate::progress::bytes;

/// A terminal that was taken over.
pub(super) struct View {
    terminal: DefaultTerminal,
    title: String,
}

impl View {
    /// Takes the terminal over, until this is dropped.
    pub fn open(title: &str) -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()?, title: title.to_owned() })
    }

    /// Draws what is to be seen.
    pub fn draw(&mut self, live: &Live, is_ending: bool) -> io::Result<()> {
        let title = &self.title;
        self.terminal.draw(|frame| picture(frame, title, live, is_ending))?;
        Ok(())
    }

    /// Whether a person pressed Ctrl-C or q since this was last asked.
    pub fn is_interrupted(&self) -> io::Result<bool> {
        let mut is_interrupted = false;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()? {
                let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                is_interrupted |= ctrl_c || key.code == KeyCode::Char('q');
            }
        }
        Ok(is_interrupted)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

const SOFT: Style = Style::new().fg(Color::DarkGray);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// Everything.
fn picture(frame: &mut Frame<'_>, title: &str, live: &Live, is_ending: bool) {
    let steps = live.steps.len() as u16 + 3;
    let rows = [
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(3),
        Constraint::Length(3),
        Constraint::Length(steps),
        Constraint::Min(3),
        Constraint::Length(1),
    ];
    let [head, time, updated, sessions, table, marks, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(title).style(Style::new().add_modifier(Modifier::BOLD)), head);
    let of = format!("{:.0} of {:.0} s", live.at_s, live.of_s);
    gauge(frame, time, "time", live.at_s / live.of_s, of);
    let share = live.updated as f64 / live.devices as f64;
    gauge(frame, updated, "newest release", share, format!("{} of {} devices", live.updated, live.devices));
    counts(frame, sessions, live);
    percentiles(frame, table, live);
    what_happened(frame, marks, live);
    let text = if is_ending { "ending: sessions under way may finish" } else { "Ctrl-C ends the run and reports it" };
    frame.render_widget(Paragraph::new(text).style(SOFT), foot);
}

fn gauge(frame: &mut Frame<'_>, area: Rect, title: &str, share: f64, label: String) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let block = Block::bordered().title(title.to_owned()).border_style(SOFT);
    frame.render_widget(Gauge::default().block(block).gauge_style(Color::Blue).ratio(share).label(label), area);
}

fn counts(frame: &mut Frame<'_>, area: Rect, live: &Live) {
    let mut spans = vec![
        Span::raw(format!("{} due  {} ok  ", live.due, live.ok)),
        Span::styled(format!("{} failed", live.failed), if live.failed > 0 { BAD } else { Style::new() }),
        Span::raw(format!("  {} under way   lag p99 {:.1} ms", live.under_way, live.lag_p99_ms)),
    ];
    spans.extend(live.bytes.iter().map(|(hop, count)| Span::raw(format!("   {hop} {}", bytes(*count)))));
    let block = Block::bordered().title("sessions and bytes").border_style(SOFT);
    frame.render_widget(Paragraph::new(Line::from(spans)).block(block), area);
}

fn percentiles(frame: &mut Frame<'_>, area: Rect, live: &Live) {
    let rows = live.steps.iter().map(|step| {
        let failed = Cell::from(step.failed.to_string()).style(if step.failed > 0 { BAD } else { SOFT });
        let [p50, p99] = [step.p50_ms, step.p99_ms].map(|ms| Cell::from(format!("{ms:>9.1}")));
        Row::new([Cell::from(step.step.name()), Cell::from(step.count.to_string()), failed, p50, p99])
    });
    let widths = [12, 10, 10, 10, 10].map(Constraint::Length);
    let head = Row::new(["step", "ok", "failed", "p50 ms", "p99 ms"]).style(SOFT);
    let block = Block::bordered().title("steps").border_style(SOFT);
    frame.render_widget(Table::new(rows, widths).header(head).block(block), area);
}

fn what_happened(frame: &mut Frame<'_>, area: Rect, live: &Live) {
    let lines: Vec<_> =
        live.marks.iter().map(|mark| Line::raw(format!("{:>7.1} s  {}", mark.at_s, mark.what))).collect();
    let block = Block::bordered().title("faults and releases").border_style(SOFT);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use colibri_loadtest::record::Step;
    use colibri_loadtest::runner::{LiveStep, Mark};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(live: &Live, is_ending: bool, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| picture(frame, "wave: 40 devices", live, is_ending)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_in_the_picture() {
        let live = Live {
            at_s: 12.0,
            of_s: 60.0,
            due: 31,
            under_way: 2,
            ok: 28,
            failed: 1,
            updated: 20,
            devices: 40,
            steps: vec![LiveStep { step: Step::Fetch, count: 28, failed: 1, p50_ms: 7.5, p99_ms: 41.25 }],
            bytes: vec![("the origin sent", 2_500_000), ("devices received", 9_000_000)],
            marks: vec![Mark { at_s: 3.25, what: "edge-1 kill begins".to_owned() }],
            lag_p99_ms: 1.5,
        };
        let picture = drawn(&live, false, 120, 30);
        for here in [
            "wave: 40 devices",
            "12 of 60 s",
            "20 of 40 devices",
            "31 due  28 ok  1 failed  2 under way",
            "lag p99 1.5 ms",
            "the origin sent 2.5 MB",
            "devices received 9.0 MB",
            "fetch",
            "41.2",
            "3.2 s  edge-1 kill begins",
            "Ctrl-C ends the run",
        ] {
            assert!(picture.contains(here), "{here} is not in\n{picture}");
        }
        assert!(drawn(&live, true, 120, 30).contains("ending: sessions under way may finish"));
    }

    #[test]
    fn small_terminals_and_nothing_to_show_are_no_trouble() {
        for (width, height) in [(1, 1), (10, 3), (80, 24)] {
            drawn(&Live::default(), false, width, height);
        }
    }
}
