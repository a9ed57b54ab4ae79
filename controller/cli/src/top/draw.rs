//! A frame: title, tabs, a pane, help.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::app::{App, Pane};
use super::panes;
use crate::output::duration_ms;

/// The least that everything has room in.
const LEAST: (u16, u16) = (60, 14);

pub(super) const GOOD: Style = Style::new().fg(Color::Green);
pub(super) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
pub(super) const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything as it is.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, now: Instant) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "the terminal is too small: {}x{}, and {}x{} is the least",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, tabs, body, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    title(frame, head, app, now);
    frame.render_widget(Paragraph::new(tab_line(app)), tabs);
    match app.pane {
        Pane::Overview => panes::overview(frame, body, app),
        Pane::Vpcs => panes::vpcs(frame, body, app),
        Pane::Flows => panes::flows(frame, body, app),
        Pane::Drops => panes::drops(frame, body, app),
        Pane::Latency => panes::latency(frame, body, app),
    }
    let line = match app.link(now).1 {
        Some(why) => Line::styled(why.to_owned(), BAD),
        None => Line::styled(keys(app), QUIET),
    };
    frame.render_widget(Paragraph::new(line), help);
}

fn title(frame: &mut Frame<'_>, area: Rect, app: &App, now: Instant) {
    let mut spans = vec![Span::styled("shunt top", HEAD)];
    if let Some(rates) = app.rates() {
        let (text, style) = match (rates.converged, rates.problems.is_empty()) {
            (true, true) => ("converged", GOOD),
            (true, false) => ("degraded", BAD),
            (false, _) => ("NOT converged", BAD),
        };
        spans.push(Span::raw("  "));
        spans.push(Span::styled(text, style));
        let up = duration_ms(rates.at_ms);
        spans.push(Span::raw(format!("  up {up}")));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
    let (link, why) = app.link(now);
    let style = if why.is_some() { BAD } else { Style::new() };
    let mut right = vec![Span::styled(link, style)];
    if app.paused {
        right.insert(0, Span::styled("PAUSED", CHOSEN));
        right.insert(1, Span::raw("  "));
    }
    let right = Paragraph::new(Line::from(right)).alignment(Alignment::Right);
    frame.render_widget(right, area);
}

fn tab_line(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, pane) in (1..).zip(Pane::ALL) {
        let name = format!(" {number} {} ", pane.name());
        let style = if pane == app.pane { CHOSEN } else { QUIET };
        spans.push(Span::styled(name, style));
    }
    let (column, reversed) = app.sorted_by(app.pane);
    if !column.is_empty() {
        let way = if reversed { ", reversed" } else { "" };
        spans.push(Span::raw(format!("   by {column}{way}")));
    }
    Line::from(spans)
}

fn keys(app: &App) -> &'static str {
    match app.pane {
        Pane::Overview => "q quit  Tab 1-5 pane  Space pause  z count from now",
        Pane::Vpcs | Pane::Flows => "q quit  Tab 1-5 pane  Space pause  s sort  r reverse",
        Pane::Drops => "q quit  Tab 1-5 pane  Space pause  s sort  r reverse  z count from now",
        Pane::Latency => "q quit  Tab 1-5 pane  Space pause  < > stage  z count from now",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use shunt_api::v1::TopSample;

    use super::*;
    use crate::error::Error;
    use crate::top::feed::Event;

    fn screen(app: &App, size: (u16, u16), now: Instant) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, app, now)).unwrap();
        terminal.backend().to_string()
    }

    fn sample(at_ms: u64) -> Event {
        Event::Sample(Box::new(TopSample {
            at_ms,
            unread: "switch sw1: it is away".to_owned(),
            ..Default::default()
        }))
    }

    #[test]
    fn every_state_has_its_words() {
        let now = Instant::now();
        let mut app = App::new(Duration::from_secs(1));
        for pane in Pane::ALL {
            app.pane = pane;
            assert!(screen(&app, (80, 24), now).contains("two samples make a rate"));
        }
        app.pane = Pane::Overview;
        app.event(sample(1_000), now);
        assert!(screen(&app, (80, 24), now).contains("waiting for two samples"));
        app.event(sample(2_000), now);
        let shown = screen(&app, (80, 24), now);
        assert!(shown.contains("NOT converged") && shown.contains("live"));
        assert!(shown.contains("counters are not known: switch sw1: it is away"));
        assert!(
            shown.contains("hit ratio   ░░░░░░░░░░░░░░░░░░░░  -"),
            "{shown}"
        );
        let later = now + Duration::from_secs(4);
        assert!(screen(&app, (80, 24), later).contains("no answer for 4 s"));
        app.event(
            Event::Lost(Box::new(Error::Usage("gone".to_owned()))),
            later,
        );
        let shown = screen(&app, (80, 24), later);
        assert!(shown.contains("disconnected, retrying") && shown.contains("gone"));
        // A daemon that was started anew begins with nothing to subtract from.
        app.event(sample(10), later);
        assert!(screen(&app, (80, 24), later).contains("waiting for two samples"));
    }

    #[test]
    fn no_size_is_too_small_to_say_so() {
        let app = App::new(Duration::from_secs(1));
        for size in [(1, 1), (30, 3), (59, 40), (200, 13)] {
            let shown = screen(&app, size, Instant::now());
            let wanted = if size.1 == 1 { "t" } else { "too small" };
            assert!(shown.contains(wanted), "{size:?}: {shown}");
        }
        assert!(!screen(&app, LEAST, Instant::now()).contains("too small"));
    }
}
