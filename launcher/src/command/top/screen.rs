//! What `talea top` draws. Pure: from two moments to a frame.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};
use talea_client::Status;
use talea_model::size::Iec;
use talea_model::{ContainerId, SessionId, TargetState};
use talea_wire::control::SessionInfo;
use talea_wire::data::{Histogram, StoreStat};

use super::Moment;

/// Sessions shown at most.
const SESSIONS_MAX: usize = 12;

/// Rows that a moment takes.
pub(super) fn height(now: &Moment) -> u16 {
    let sessions = now.status.sessions.len().min(SESSIONS_MAX);
    (7 + now.status.map.targets.len() + now.status.containers.len() + sessions) as u16
}

/// Draws the screen; rates are those since `before`.
pub(super) fn draw(frame: &mut Frame<'_>, name: &str, before: Option<&Moment>, now: &Moment) {
    let status = &now.status;
    let targets = status.map.targets.len() as u16;
    let containers = status.containers.len() as u16;
    let [head, top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(targets + 2),
        Constraint::Length(containers + 2),
        Constraint::Min(2),
    ])
    .areas(frame.area());
    let text = format!(
        " Talea  system {name}   {} servers   {} sessions   {} open epochs   log {} ",
        status.map.servers.len(),
        status.sessions.len(),
        status.transactions.len(),
        status.position.0
    );
    let bar = Style::new().fg(Color::White).bg(Color::Blue).add_modifier(Modifier::BOLD);
    frame.render_widget(Line::from(text).style(bar), head);
    frame.render_widget(target_table(before, now), top);
    frame.render_widget(container_table(before, now), middle);
    frame.render_widget(session_table(now), bottom);
}

fn head<'a>(names: &[&'a str]) -> Row<'a> {
    Row::new(names.iter().map(|name| Cell::from(*name)).collect::<Vec<_>>())
        .style(Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD))
}

fn target_table<'a>(before: Option<&Moment>, now: &'a Moment) -> Table<'a> {
    let rows = now.status.map.targets.iter().zip(&now.stats).map(|(target, stat)| {
        let host = now.status.map.servers.iter().find(|server| server.id == target.server);
        let host = host.map_or("?", |server| server.host.as_str());
        let state = target.state.name();
        let good = target.state != TargetState::Down && stat.is_some();
        let state = Cell::from(if stat.is_some() { state.to_owned() } else { format!("{state}, silent") });
        let state = state.style(Style::new().fg(if good { Color::Green } else { Color::Red }));
        let zero = StoreStat::default();
        let stat = stat.as_ref().unwrap_or(&zero);
        let earlier = before.and_then(|before| {
            let place = before.status.map.targets.iter().position(|other| other.id == target.id)?;
            Some((before.stats.get(place)?.as_ref()?, now.at.duration_since(before.at).as_secs_f64()))
        });
        let rate = |pick: fn(&StoreStat) -> u64| {
            let (stat_before, took) = earlier?;
            Some(pick(stat).saturating_sub(pick(stat_before)) as f64 / took.max(1e-6))
        };
        let bytes = |pick| rate(pick).map_or("-".to_owned(), |rate| format!("{}/s", Iec(rate as u64)));
        let ops = rate(|s| s.updates + s.fetches).map_or("-".to_owned(), |rate| format!("{rate:.0}/s"));
        let times = |pick: fn(&StoreStat) -> &Histogram| {
            let within = earlier.and_then(|(stat_before, _)| within_ns(pick(stat_before), pick(stat)));
            within.map_or("-".to_owned(), |ns| format!("< {}", duration(ns)))
        };
        Row::new(vec![
            Cell::from(target.server.0.to_string()),
            Cell::from(host.to_owned()),
            Cell::from(target.id.0.to_string()),
            state,
            fill(stat.used_bytes, target.capacity_bytes),
            Cell::from(bytes(|s| s.bytes_in)),
            Cell::from(bytes(|s| s.bytes_out)),
            Cell::from(ops),
            Cell::from(times(|s| &s.update_times)),
            Cell::from(times(|s| &s.fetch_times)),
            Cell::from(now.status.position.0.saturating_sub(stat.horizon.0).to_string()),
        ])
    });
    let widths = [6, 12, 6, 10, 21, 12, 12, 8, 10, 9, 4].map(Constraint::Length);
    let names =
        ["server", "host", "target", "state", "fill", "written", "read", "ops", "99% update", "99% fetch", "lag"];
    Table::new(rows, widths).header(head(&names))
}

/// The time within which 99 of 100 requests between two looks were answered, in nanoseconds; `None` without requests. Places are counts
/// of durations below powers of two.
fn within_ns(before: &Histogram, now: &Histogram) -> Option<u64> {
    let new = |place: usize| now[place].saturating_sub(before[place]);
    let all: u64 = (0..now.len()).map(new).sum();
    let mut sum = 0;
    let place = (0..now.len()).find(|place| {
        sum += new(*place);
        sum > 0 && sum * 100 >= all * 99
    })?;
    Some(1 << place)
}

/// Three figures at most: `512 ns`, `16 µs`, `2 ms`, `1 s`.
fn duration(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

/// A bar of ten places, and the figure.
fn fill<'a>(used: u64, capacity: u64) -> Cell<'a> {
    let share = used as f64 / capacity.max(1) as f64;
    let full = (share * 10.0).round().clamp(0.0, 10.0) as usize;
    let colour = match share {
        share if share > 0.9 => Color::Red,
        share if share > 0.75 => Color::Yellow,
        _ => Color::Green,
    };
    let text = format!("{}{} {}", "█".repeat(full), "·".repeat(10 - full), Iec(used));
    Cell::from(text).style(Style::new().fg(colour))
}

fn container_table<'a>(before: Option<&Moment>, now: &'a Moment) -> Table<'a> {
    let rows = now.status.containers.iter().map(|info| {
        let earlier = before.and_then(|before| {
            let earlier = before.status.containers.iter().find(|other| other.container == info.container)?;
            Some((info.step.0.saturating_sub(earlier.step.0), now.at.duration_since(before.at).as_secs_f64()))
        });
        let rate = earlier.map_or("-".to_owned(), |(steps, took)| format!("{:.1}/s", steps as f64 / took.max(1e-6)));
        let state = format!("{:?}", info.producer).to_lowercase();
        let colour = if state == "lost" { Color::Red } else { Color::Green };
        Row::new(vec![
            Cell::from(info.name.clone()),
            Cell::from(info.step.0.to_string()),
            Cell::from(rate),
            Cell::from(format!("{}-{}", info.first_step.0, info.step.0)),
            Cell::from(info.open_transactions.to_string()),
            Cell::from(info.subscriptions.to_string()),
            Cell::from(state).style(Style::new().fg(colour)),
        ])
    });
    let widths = [20, 8, 8, 14, 12, 10, 10].map(Constraint::Length);
    Table::new(rows, widths).header(head(&[
        "container",
        "step",
        "rate",
        "readable",
        "open epochs",
        "followers",
        "producer",
    ]))
}

fn session_table(now: &Moment) -> Table<'_> {
    let rows = now.status.sessions.iter().take(SESSIONS_MAX).map(|SessionInfo { session, name, home, .. }| {
        let open = holds(&now.status, *session);
        Row::new(vec![
            Cell::from(session.0.to_string()),
            Cell::from(name.clone()),
            Cell::from(home.0.to_string()),
            Cell::from(open),
        ])
    });
    let widths = [10, 30, 12, 46].map(Constraint::Length);
    Table::new(rows, widths).header(head(&["session", "program", "home server", "holds open"]))
}

/// What a session holds open: its epochs and what it follows, by container.
fn holds(status: &Status, session: SessionId) -> String {
    let name = |container| status.containers.iter().find(|info| info.container == container);
    let mut words = Vec::new();
    for info in &status.containers {
        let open =
            |(_, container, holder): &&(_, ContainerId, SessionId)| *holder == session && *container == info.container;
        match status.transactions.iter().filter(open).count() {
            0 => {}
            1 => words.push(format!("an epoch of {}", info.name)),
            count => words.push(format!("{count} epochs of {}", info.name)),
        }
    }
    for (container, follower, after) in &status.followers {
        if let (true, Some(info)) = (*follower == session, name(*container)) {
            words.push(match info.step.0.saturating_sub(after.0) {
                0 => format!("follows {}", info.name),
                lag => format!("follows {}, {lag} behind", info.name),
            });
        }
    }
    if words.is_empty() { "-".to_owned() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundredth_is_left_out_and_what_was_before_does_not_count() {
        let (mut before, mut now) = (Histogram::default(), Histogram::default());
        assert_eq!(within_ns(&before, &now), None);
        (before[20], now[20]) = (1_000, 1_000);
        assert_eq!(within_ns(&before, &now), None);
        (now[12], now[14], now[30]) = (98, 1, 1);
        assert_eq!(within_ns(&before, &now).map(duration).unwrap(), "16 µs");
        now[30] += 1;
        assert_eq!(within_ns(&before, &now).map(duration).unwrap(), "1 s");
        assert_eq!([1 << 9, 1 << 21].map(duration), ["512 ns", "2 ms"]);
    }
}
