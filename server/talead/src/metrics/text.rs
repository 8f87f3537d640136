//! Counters in Prometheus's text format (version 0.0.4).

use std::fmt::{Display, Write};

use talea_model::TargetId;
use talea_wire::control::{ContainerInfo, Status};
use talea_wire::data::{Histogram, StoreStat};

use super::Labels;

/// The page, figure by figure: Prometheus wants all lines of one together.
struct Page {
    text: String,
    own: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.text, "{name}{{{}{labels}}} {value}", self.own);
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, "", value);
    }
}

type Pick = fn(&StoreStat) -> u64;

/// Figures of a target: name, kind, help, value.
const OF_TARGETS: [(&str, &str, &str, Pick); 17] = [
    ("talea_target_used_bytes", "gauge", "Bytes in use on the target's tiers.", |stat| stat.used_bytes),
    ("talea_target_capacity_bytes", "gauge", "Capacity of the target's tiers.", |stat| stat.capacity_bytes),
    ("talea_target_bulk_used_bytes", "gauge", "Bytes in use on the target's bulk tier; 0 without one.", |stat| {
        stat.bulk_used_bytes
    }),
    ("talea_target_bulk_capacity_bytes", "gauge", "Capacity of the target's bulk tier; 0 without one.", |stat| {
        stat.bulk_capacity_bytes
    }),
    (
        "talea_target_returning_bytes",
        "gauge",
        "Bytes that come back at a checkpoint or when readers' leases end.",
        |stat| stat.returning_bytes,
    ),
    ("talea_target_versions", "gauge", "Versions in the store's index.", |stat| stat.versions),
    ("talea_target_received_bytes_total", "counter", "Bytes received in updates.", |stat| stat.bytes_in),
    ("talea_target_sent_bytes_total", "counter", "Bytes sent in fetches; reads in place are none.", |stat| {
        stat.bytes_out
    }),
    ("talea_target_updates_total", "counter", "Updates and punches served.", |stat| stat.updates),
    ("talea_target_fetches_total", "counter", "Fetches served.", |stat| stat.fetches),
    ("talea_target_refused_total", "counter", "Requests refused.", |stat| stat.refused),
    ("talea_target_parked", "gauge", "Requests that wait for the pool's log.", |stat| stat.parked),
    ("talea_target_connections", "gauge", "Connections.", |stat| stat.peers),
    ("talea_target_log_written_bytes_total", "counter", "Bytes appended to the store's log.", |stat| stat.log_bytes),
    ("talea_target_flushes_total", "counter", "Flushes of the media.", |stat| stat.flushes),
    ("talea_target_horizon", "gauge", "Position in the pool's log that the target has followed to.", |stat| {
        stat.horizon.0
    }),
    ("talea_target_damaged", "gauge", "Places of its media that are known to be damaged.", |stat| stat.damaged),
];

/// The page of one server.
pub(super) fn of(labels: &Labels, status: Option<&Status>, stats: &[(TargetId, StoreStat)]) -> String {
    let own = format!("system=\"{}\",server=\"{}\"", escape(&labels.system), labels.server);
    let mut page = Page { text: String::new(), own };
    for (name, kind, help, pick) in OF_TARGETS {
        page.family(name, kind, help);
        stats.iter().for_each(|(target, stat)| page.line(name, &format!(",target=\"{}\"", target.0), pick(stat)));
    }
    let (name, help) =
        ("talea_target_request_seconds", "From a request's arrival to its answer, within half a minute of a look.");
    page.family(name, "histogram", help);
    for (target, stat) in stats {
        let kinds =
            [("update", &stat.update_times, stat.update_times_ns), ("fetch", &stat.fetch_times, stat.fetch_times_ns)];
        for (kind, counts, sum_ns) in kinds {
            histogram(&mut page, name, &format!(",target=\"{}\",kind=\"{kind}\"", target.0), (counts, sum_ns));
        }
    }
    if let Some(status) = status {
        of_log(&mut page, status);
        if labels.server == 0 {
            of_containers(&mut page, status);
        }
    }
    page.one("talea_server_cpu_seconds_total", "counter", "Processor time of the server.", cpu_seconds());
    page.text
}

fn of_log(page: &mut Page, status: &Status) {
    let counters = status.counters;
    page.one(
        "talea_log_position",
        "gauge",
        "Position of the pool's log that this server has applied.",
        status.position.0,
    );
    page.one("talea_log_written_bytes_total", "counter", "Bytes of the pool's log.", counters.log_bytes);
    page.one(
        "talea_control_received_total",
        "counter",
        "Messages of the control plane received.",
        counters.messages_in,
    );
    page.one("talea_control_sent_total", "counter", "Messages of the control plane sent.", counters.messages_out);
}

/// What is one for the whole system: told by server 0 alone, or sums would count it often.
fn of_containers(page: &mut Page, status: &Status) {
    page.one("talea_sessions", "gauge", "Programs that are connected.", status.sessions.len());
    type Of = fn(&Status, &ContainerInfo) -> u64;
    let figures: [(&str, &str, &str, Of); 5] = [
        ("talea_container_step", "gauge", "Last committed step.", |_, info| info.step.0),
        ("talea_container_first_step", "gauge", "First step that is still readable.", |_, info| info.first_step.0),
        ("talea_container_open_epochs", "gauge", "Transactions that are open.", |_, info| info.open_transactions),
        ("talea_container_followers", "gauge", "Subscriptions.", |_, info| info.subscriptions),
        ("talea_container_lag_steps", "gauge", "Committed steps that the slowest follower has not taken yet.", lag),
    ];
    for (name, kind, help, pick) in figures {
        page.family(name, kind, help);
        for info in &status.containers {
            page.line(name, &format!(",container=\"{}\"", escape(&info.name)), pick(status, info));
        }
    }
}

/// Steps that the slowest follower of a container has not taken yet.
fn lag(status: &Status, info: &ContainerInfo) -> u64 {
    let behind = status.followers.iter().filter(|(container, ..)| *container == info.container);
    behind.map(|(_, _, after)| info.step.0.saturating_sub(after.0)).max().unwrap_or(0)
}

fn histogram(page: &mut Page, name: &str, labels: &str, (counts, sum_ns): (&Histogram, u64)) {
    let mut sum = 0;
    // The last place has no upper end.
    for (place, count) in counts.iter().enumerate().take(counts.len() - 1) {
        sum += count;
        let le = (1_u64 << place) as f64 / 1e9;
        page.line(&format!("{name}_bucket"), &format!("{labels},le=\"{le}\""), sum);
    }
    sum += counts.last().copied().unwrap_or(0);
    page.line(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), sum);
    page.line(&format!("{name}_sum"), labels, sum_ns as f64 / 1e9);
    page.line(&format!("{name}_count"), labels, sum);
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_name_stand_together_and_buckets_add_up() {
        let mut stat = StoreStat { bytes_in: 7, ..StoreStat::default() };
        (stat.update_times[3], stat.update_times[31], stat.update_times_ns) = (2, 1, 4_000_000_000);
        let labels = Labels { system: "a\"b".into(), server: 1 };
        let text = of(&labels, None, &[(TargetId(2), stat), (TargetId(3), stat)]);
        assert!(
            text.contains("talea_target_received_bytes_total{system=\"a\\\"b\",server=\"1\",target=\"2\"} 7\n"),
            "{text}"
        );
        let line = |le: &str| format!("target=\"2\",kind=\"update\",le=\"{le}\"}}");
        for (le, count) in [("0.000000004", 0), ("0.000000008", 2), ("+Inf", 3)] {
            assert!(text.contains(&format!("{} {count}\n", line(le))), "{le}: {text}");
        }
        assert!(
            text.contains("request_seconds_sum{system=\"a\\\"b\",server=\"1\",target=\"2\",kind=\"update\"} 4\n"),
            "{text}"
        );
        let mut seen = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap().trim_end_matches("_bucket").trim_end_matches("_count");
            let name = name.trim_end_matches("_seconds_sum").trim_end_matches("_seconds");
            if seen.last() != Some(&name) {
                assert!(!seen.contains(&name), "{name} stands in two places");
                seen.push(name);
            }
        }
    }
}
