//! The panes.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, Wrap};
use shunt_api::v1::{TableOccupancy, TopFlow};

use super::app::App;
use super::draw::{BAD, GOOD, HEAD, QUIET};
use super::rates::{Rate, Rates, buckets, quantile};
use super::words::{at_most, percent, short, stage};
use crate::flows::tuple;
use crate::output::duration_ms;

/// Drops that the overview names.
const DROPS_NAMED: usize = 3;
/// A table is nearly full from here on.
const NEARLY_FULL: f64 = 0.9;
/// So wide that replies have room.
const WIDE: u16 = 110;
/// So tall that the overview has room for flows.
const TALL: u16 = 30;

fn bar(share: f64, width: usize) -> String {
    let filled = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    "█".repeat(filled.min(width)) + &"░".repeat(width - filled.min(width))
}

fn waiting(frame: &mut Frame<'_>, area: Rect) {
    let text = Paragraph::new("two samples make a rate: wait for them").style(QUIET);
    frame.render_widget(text, area);
}

pub(super) fn overview(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(rates) = app.rates() else {
        return waiting(frame, area);
    };
    let tables = u16::try_from(rates.tables.len().min(4)).unwrap_or(4);
    let flows = if area.height >= TALL { 8 } else { 0 };
    let [traffic, _, counts, room, drops, _, busy, problems] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(tables),
        Constraint::Length(3),
        Constraint::Length(1),
        Constraint::Length(flows),
        Constraint::Min(0),
    ])
    .areas(area);
    traffic_rows(frame, traffic, app, rates);
    frame.render_widget(Paragraph::new(count_lines(rates)), counts);
    let width = usize::from(area.width.saturating_sub(52)).min(40);
    let tables = rates.tables.iter().map(|table| table_line(table, width));
    frame.render_widget(Paragraph::new(tables.collect::<Vec<_>>()), room);
    let mut lines = vec![drops_line(app, rates)];
    lines.extend(latency_lines(app, rates));
    frame.render_widget(Paragraph::new(lines), drops);
    if flows > 0 {
        flow_table(frame, busy, app);
    }
    let mut lines: Vec<Line<'_>> = Vec::new();
    if !rates.unread.is_empty() {
        let text = format!("counters are not known: {}", rates.unread);
        lines.push(Line::styled(text, BAD));
    }
    let problems_of = rates.problems.iter();
    lines.extend(problems_of.map(|problem| Line::styled(format!("problem: {problem}"), BAD)));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), problems);
}

fn traffic_rows(frame: &mut Frame<'_>, area: Rect, app: &App, rates: &Rates) {
    let [text, graph] =
        Layout::horizontal([Constraint::Length(46), Constraint::Min(1)]).areas(area);
    let row = |name: &str, rate: Rate, style: Style| {
        let line = format!(
            "{name:<12}{:>10} p/s{:>10} bit/s",
            short(rate.packets_per_second),
            short(rate.bits_per_second)
        );
        Line::styled(line, style)
    };
    let ratio = rates.hit_ratio;
    let hits = bar(ratio.unwrap_or(0.0), 20);
    let lines = vec![
        row("hardware", rates.hardware, GOOD),
        row("software", rates.software, Style::new()),
        row("received", rates.received, QUIET),
        Line::raw(""),
        Line::raw(format!("{:<12}{hits}  {}", "hit ratio", percent(ratio))),
    ];
    frame.render_widget(Paragraph::new(lines), text);
    for (side, style) in [(0, GOOD), (1, Style::new())] {
        let line = Rect {
            y: graph.y + side as u16,
            height: 1,
            ..graph
        };
        let shown = app.history.len().saturating_sub(usize::from(line.width));
        // A sparkline has whole numbers.
        let values = app.history.iter().skip(shown);
        let values = values.map(|rates| rates.get(side).map_or(0, |rate| rate.ceil() as u64));
        let values: Vec<u64> = values.collect();
        frame.render_widget(Sparkline::default().data(values).style(style), line);
    }
}

fn count_lines(rates: &Rates) -> Vec<Line<'static>> {
    let full = match rates.connections_max {
        0 => String::new(),
        max => format!(
            " of {max} ({})",
            percent(Some(rates.connections as f64 / max as f64))
        ),
    };
    vec![
        Line::raw(format!(
            "connections {}{full}; new {}/s, ended {}/s",
            rates.connections,
            short(rates.created_per_second),
            short(rates.ended_per_second)
        )),
        Line::raw(format!(
            "offloaded   {}, {} on their way",
            rates.offloaded, rates.pending
        )),
        Line::raw(format!(
            "            installed {}/s, removed {}/s, refused {}/s, evicted {}/s",
            short(rates.installs_per_second),
            short(rates.removals_per_second),
            short(rates.refused_per_second),
            short(rates.evicted_per_second)
        )),
    ]
}

fn table_line(table: &TableOccupancy, width: usize) -> Line<'static> {
    if table.size == 0 || table.size == u64::MAX {
        return Line::raw(format!(
            "{:<12}{:>10} entries; how many fit is not known",
            table.table, table.entries
        ));
    }
    let share = table.entries as f64 / table.size as f64;
    let text = format!(
        "{:<12}{:>10} of {:<10} {:>7}  {}",
        table.table,
        table.entries,
        table.size,
        percent(Some(share)),
        bar(share, width)
    );
    let style = if share >= NEARLY_FULL {
        BAD
    } else {
        Style::new()
    };
    Line::styled(text, style)
}

fn drops_line(app: &App, rates: &Rates) -> Line<'static> {
    let all = rates.drops_per_second();
    let mut now: Vec<_> = app.drops();
    now.retain(|drops| drops.packets_per_second > 0.0);
    now.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second));
    let named = now.iter().take(DROPS_NAMED).map(|drops| {
        let rate = short(drops.packets_per_second);
        format!("{} {} {rate}/s", drops.r#where, drops.reason)
    });
    let named: Vec<_> = named.collect();
    let text = match named.is_empty() {
        true => format!("{:<12}none", "drops"),
        false => format!("{:<12}{}/s: {}", "drops", short(all), named.join(", ")),
    };
    let style = if all > 0.0 { BAD } else { Style::new() };
    Line::styled(text, style)
}

/// How long installs take, in two lines.
fn latency_lines(app: &App, rates: &Rates) -> [Line<'static>; 2] {
    [("total", "install"), ("first_packet", "")].map(|(name, head)| {
        let found = rates.install.iter().find(|of| of.stage == name);
        let all = found.map(|of| buckets(of, app.base_of(of)));
        let of = |permille| {
            let all = all.as_ref()?;
            let last = all.iter().rev().find_map(|(end, _)| *end)?;
            Some(at_most(quantile(all, permille)?, last))
        };
        let words = match (of(500), of(990)) {
            (Some(half), Some(most)) => format!("p50 {half}, p99 {most}"),
            _ => "none".to_owned(),
        };
        Line::raw(format!("{head:<12}{}: {words}", stage(name)))
    })
}

fn head<'a>(names: impl IntoIterator<Item = (&'a str, bool)>) -> Row<'a> {
    Row::new(names.into_iter().map(|(name, right)| {
        let way = if right {
            Alignment::Right
        } else {
            Alignment::Left
        };
        Cell::new(Line::raw(name).alignment(way))
    }))
    .style(HEAD)
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::raw(text).alignment(Alignment::Right))
}

pub(super) fn vpcs(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if app.rates().is_none() {
        return waiting(frame, area);
    }
    let rows = app.vpcs().into_iter().map(|vpc| {
        let numbers = [
            vpc.received.packets_per_second,
            vpc.received.bits_per_second,
            vpc.sent.packets_per_second,
            vpc.sent.bits_per_second,
            vpc.drops_per_second,
        ];
        let name = std::iter::once(Cell::new(vpc.name.clone()));
        Row::new(name.chain(numbers.map(|number| right(short(number)))))
    });
    let columns = [
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let names = [
        ("VPC", false),
        ("P/S IN", true),
        ("BIT/S IN", true),
        ("P/S OUT", true),
        ("BIT/S OUT", true),
        ("DROPS/S", true),
    ];
    frame.render_widget(Table::new(rows, columns).header(head(names)), area);
}

pub(super) fn flows(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if app.rates().is_none() {
        return waiting(frame, area);
    }
    flow_table(frame, area, app);
}

fn flow_table(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let wide = area.width >= WIDE;
    let row = |flow: &TopFlow| {
        let vpcs = match flow.vpc == flow.to_vpc {
            true => flow.vpc.clone(),
            false => format!("{}>{}", flow.vpc, flow.to_vpc),
        };
        let mut cells = vec![
            right(short(flow.packets_per_second)),
            right(short(flow.bits_per_second)),
            Cell::new(if flow.offload == "hardware" {
                "hw"
            } else {
                "sw"
            }),
            Cell::new(vpcs),
            Cell::new(tuple(flow.original.as_ref(), true)),
        ];
        if wide {
            cells.push(Cell::new(tuple(flow.reply.as_ref(), false)));
            cells.push(right(duration_ms(flow.age_ms)));
        }
        Row::new(cells)
    };
    let mut columns = vec![
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(2),
        Constraint::Length(12),
        Constraint::Fill(5),
    ];
    let mut names = vec![
        ("P/S", true),
        ("BIT/S", true),
        ("IN", false),
        ("VPC", false),
        ("ORIGINAL", false),
    ];
    if wide {
        columns.extend([Constraint::Fill(4), Constraint::Length(10)]);
        names.extend([("REPLY", false), ("AGE", true)]);
    }
    let rows = app.flows().into_iter().map(row);
    frame.render_widget(Table::new(rows, columns).header(head(names)), area);
}

pub(super) fn drops(frame: &mut Frame<'_>, area: Rect, app: &App) {
    if app.rates().is_none() {
        return waiting(frame, area);
    }
    let rows = app.drops().into_iter().map(|drops| {
        let style = match drops.packets_per_second > 0.0 {
            true => BAD,
            false => Style::new(),
        };
        Row::new(vec![
            Cell::new(drops.r#where.clone()),
            Cell::new(drops.reason.clone()),
            right(short(drops.packets_per_second)),
            right(app.dropped(drops).to_string()),
        ])
        .style(style)
    });
    let columns = [
        Constraint::Length(9),
        Constraint::Length(24),
        Constraint::Length(10),
        Constraint::Length(16),
    ];
    let total = match app.counts_from_now() {
        true => "SINCE Z",
        false => "TOTAL",
    };
    let names = [
        ("WHERE", false),
        ("REASON", false),
        ("P/S", true),
        (total, true),
    ];
    frame.render_widget(Table::new(rows, columns).header(head(names)), area);
}

pub(super) fn latency(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(rates) = app.rates() else {
        return waiting(frame, area);
    };
    let Some((now, before)) = app.histogram() else {
        let text = Paragraph::new("the offload engine does not answer").style(QUIET);
        return frame.render_widget(text, area);
    };
    let all = buckets(now, before);
    let count: u64 = all.iter().map(|(_, count)| count).sum();
    let most = all.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let last = all.iter().rev().find_map(|(end, _)| *end).unwrap_or(0);
    let at = rates.install.iter().position(|of| of.stage == now.stage);
    let stages = vec![
        Span::raw("install "),
        Span::styled(stage(&now.stage).to_owned(), HEAD),
        Span::styled(
            format!(
                "  ({} of {})",
                at.map_or(0, |at| at + 1),
                rates.install.len()
            ),
            QUIET,
        ),
    ];
    let since = match app.counts_from_now() {
        true => "since z was pressed",
        false => "since the daemon started",
    };
    let mut lines = vec![
        Line::from(stages),
        Line::raw(format!("{count} connections {since}")),
        Line::raw(""),
    ];
    let width = usize::from(area.width.saturating_sub(34));
    for (end, count_of) in &all {
        let share = |of: u64| match of {
            0 => 0.0,
            of => *count_of as f64 / of as f64,
        };
        lines.push(Line::raw(format!(
            "{:>10} {count_of:>10} {:>8}  {}",
            at_most(*end, last),
            percent((count > 0).then(|| share(count))),
            // Blank where nothing is.
            bar(share(most), width).replace('░', " ")
        )));
    }
    for (name, permille) in [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)] {
        let text =
            quantile(&all, permille).map_or_else(|| "-".to_owned(), |end| at_most(end, last));
        let found = format!("{name} {text}");
        match lines.get_mut(2) {
            Some(line) => line.push_span(format!("{found}   ")),
            None => lines.push(Line::raw(found)),
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}
