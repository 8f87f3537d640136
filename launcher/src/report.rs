//! `talea report`: a job's record as one HTML page that needs nothing else.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use talea_model::size::Iec;

use crate::cli::ReportArgs;
use crate::failure::Failure;
use crate::timeline::Sample;

mod activity;
mod chart;

use chart::{Chart, Line};

const COLOURS: [&str; 8] = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#00838f", "#975a16", "#4a5568"];

/// Writes the page.
pub(crate) fn report(arguments: &ReportArgs) -> Result<u8, Failure> {
    let text = std::fs::read(&arguments.record).map_err(Failure::io("reading", &arguments.record))?;
    let record: Value = serde_json::from_slice(&text).map_err(|error| {
        Failure::Usage(format!(
            "{} is no job's record ({error}): make one with `talea run --record`",
            arguments.record.display()
        ))
    })?;
    let output = arguments.output.clone().unwrap_or_else(|| arguments.record.with_extension("html"));
    write(&record, &output)?;
    if let Some(path) = &arguments.picture {
        std::fs::write(path, picture(&record)).map_err(Failure::io("writing", path))?;
    }
    println!("{}", output.display());
    Ok(0)
}

fn write(record: &Value, output: &Path) -> Result<(), Failure> {
    std::fs::write(output, page(record)).map_err(Failure::io("writing", output))
}

fn page(record: &Value) -> String {
    let samples: Vec<Sample> = serde_json::from_value(record["timeline"].clone()).unwrap_or_default();
    let system = escape(record["system"].as_str().unwrap_or("?"));
    let mut html = String::new();
    let _ = write!(
        html,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Talea: {system}</title><style>{STYLE}</style>\
         </head><body><h1>{system}</h1>"
    );
    cards(&mut html, record);
    if let Some(advice) = record["advice"].as_array().filter(|advice| !advice.is_empty()) {
        html.push_str("<h2>Advice</h2><ul>");
        for text in advice {
            let _ = write!(html, "<li>{}</li>", escape(text.as_str().unwrap_or_default()));
        }
        html.push_str("</ul>");
    }
    if samples.len() < 2 {
        html.push_str("<p>The record has no timeline: the job ended before the second sample.</p>");
    } else {
        html.extend(timelines(&samples));
    }
    ranks(&mut html, record);
    staged(&mut html, record);
    html.push_str("</body></html>\n");
    html
}

/// The figures on top: name and value.
fn figures(record: &Value) -> [(&'static str, String); 7] {
    let bytes = |key: &str| Iec(record[key].as_u64().unwrap_or(0)).to_string();
    let number = |key: &str| record[key].to_string();
    let share = record["io_share"].as_f64().map_or("unknown".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let seconds = format!("{:.1} s", record["seconds"].as_f64().unwrap_or(0.0));
    [
        ("took", seconds),
        ("steps", number("steps")),
        ("written", bytes("bytes_written")),
        ("read", bytes("bytes_read")),
        ("time in I/O", share),
        ("servers", number("servers")),
        ("exit code", number("exit_code")),
    ]
}

fn cards(html: &mut String, record: &Value) {
    html.push_str("<div class=\"cards\">");
    for (name, value) in figures(record) {
        let _ = write!(html, "<div><b>{}</b><span>{name}</span></div>", escape(&value));
    }
    html.push_str("</div>");
}

/// Who writes and who waits; throughput of each server, epochs of each container with the commits as lines, lag and fill.
fn timelines(samples: &[Sample]) -> Vec<String> {
    let mut charts = Vec::new();
    let end_s = samples.last().map_or(1.0, |sample| sample.at_s);
    let commits: Vec<f64> =
        samples.windows(2).filter(|pair| steps(&pair[1]) > steps(&pair[0])).map(|pair| pair[1].at_s).collect();
    charts.extend(activity::svg(samples, &commits));
    for (title, pick) in [
        ("Written, a server", (|s| s.bytes_in) as fn(&crate::timeline::ServerSample) -> u64),
        ("Read, a server", |s| s.bytes_out),
    ] {
        let lines = servers(samples).into_iter().enumerate().map(|(n, server)| {
            let of = |sample: &Sample| sample.servers.iter().find(|s| s.server == server).map_or(0, pick);
            let rates = samples.windows(2).map(|pair| {
                let took = (pair[1].at_s - pair[0].at_s).max(1e-6);
                (pair[1].at_s, of(&pair[1]).saturating_sub(of(&pair[0])) as f64 / took)
            });
            Line { name: format!("server {server}"), colour: COLOURS[n % COLOURS.len()], points: rates.collect() }
        });
        let chart =
            Chart { title, end_s, marks: &commits, lines: lines.collect(), unit: |v| format!("{}/s", Iec(v as u64)) };
        // A job that only writes has nothing to show of its reading.
        if chart.lines.iter().flat_map(|line| &line.points).any(|point| point.1 > 0.0) {
            charts.push(chart.svg());
        }
    }
    let mut epochs: Vec<Line> = Vec::new();
    for (n, name) in containers(samples).into_iter().enumerate() {
        let find = |sample: &Sample| sample.containers.iter().find(|c| c.name == name).cloned().unwrap_or_default();
        let colour = COLOURS[n % COLOURS.len()];
        let points = |pick: fn(&crate::timeline::ContainerSample) -> u64| {
            samples.iter().map(|sample| (sample.at_s, pick(&find(sample)) as f64)).collect::<Vec<_>>()
        };
        epochs.push(Line { name: format!("{name}: steps"), colour, points: points(|c| c.step) });
        epochs.push(Line {
            name: format!("{name}: open epochs"),
            colour: "#e53e3e",
            points: points(|c| c.open_epochs),
        });
    }
    let chart =
        Chart { title: "Epochs (lines: commits)", end_s, marks: &commits, lines: epochs, unit: |v| format!("{v:.0}") };
    charts.push(chart.svg());
    let lag = Chart {
        title: "Followers are behind by",
        end_s,
        marks: &commits,
        lines: lags(samples),
        unit: |v| format!("{v:.0} steps"),
    };
    if !lag.lines.is_empty() {
        charts.push(lag.svg());
    }
    let fill = servers(samples).into_iter().enumerate().map(|(n, server)| {
        let of = |sample: &Sample| sample.servers.iter().find(|s| s.server == server).map_or(0, |s| s.used_bytes);
        let points = samples.iter().map(|sample| (sample.at_s, of(sample) as f64)).collect();
        Line { name: format!("server {server}"), colour: COLOURS[n % COLOURS.len()], points }
    });
    let unit = |v: f64| Iec(v as u64).to_string();
    charts.push(Chart { title: "In use, a server", end_s, marks: &[], lines: fill.collect(), unit }.svg());
    charts
}

/// A line for each follower; the first ones stand for the rest.
fn lags(samples: &[Sample]) -> Vec<Line> {
    let mut lines: std::collections::BTreeMap<(u64, String), Vec<(f64, f64)>> = Default::default();
    for sample in samples {
        for follower in &sample.followers {
            let name = format!("{} of {}", follower.program, follower.container);
            lines.entry((follower.session, name)).or_default().push((sample.at_s, follower.lag as f64));
        }
    }
    let line = |(n, ((_, name), points))| Line { name, colour: COLOURS[n % COLOURS.len()], points };
    lines.into_iter().take(COLOURS.len()).enumerate().map(line).collect()
}

fn ranks(html: &mut String, record: &Value) {
    let Some(ranks) = record["ranks"].as_array().filter(|ranks| !ranks.is_empty()) else { return };
    html.push_str("<h2>Processes</h2><table><tr><th>rank</th><th>program</th><th>host</th><th>in I/O</th><th>written</th><th>read</th><th>calls</th></tr>");
    for rank in ranks.iter().take(256) {
        let bytes = |key: &str| Iec(rank[key].as_u64().unwrap_or(0));
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2} s</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            rank["rank"].as_u64().map_or_else(|| "–".to_owned(), |rank| rank.to_string()),
            escape(rank["program"].as_str().unwrap_or("?")),
            escape(rank["host"].as_str().unwrap_or("?")),
            rank["io_seconds"].as_f64().unwrap_or(0.0),
            bytes("bytes_written"),
            bytes("bytes_read"),
            rank["calls"]
        );
    }
    html.push_str("</table>");
}

fn staged(html: &mut String, record: &Value) {
    let Some(staged) = record["staged"].as_array().filter(|staged| !staged.is_empty()) else { return };
    html.push_str("<h2>Staged</h2><ul>");
    for line in staged {
        let _ = write!(html, "<li>{}</li>", escape(line.as_str().unwrap_or_default()));
    }
    html.push_str("</ul>");
}

fn steps(sample: &Sample) -> u64 {
    sample.containers.iter().map(|container| container.step).sum()
}

fn servers(samples: &[Sample]) -> Vec<u32> {
    let mut all: Vec<u32> =
        samples.iter().flat_map(|sample| sample.servers.iter().map(|server| server.server)).collect();
    all.sort_unstable();
    all.dedup();
    // A thousand lines show nothing: the first ones stand for the rest.
    all.truncate(16);
    all
}

fn containers(samples: &[Sample]) -> Vec<String> {
    let names = samples.iter().flat_map(|sample| sample.containers.iter().map(|container| container.name.clone()));
    let mut all: Vec<String> = names.collect();
    all.sort();
    all.dedup();
    all
}

/// The page's upper part as one picture, for documents.
fn picture(record: &Value) -> String {
    let samples: Vec<Sample> = serde_json::from_value(record["timeline"].clone()).unwrap_or_default();
    let system = escape(record["system"].as_str().unwrap_or("?"));
    let mut body = format!("<text x=\"24\" y=\"40\" font-size=\"22\" font-weight=\"600\">{system}</text>");
    for (n, (name, value)) in figures(record).iter().enumerate() {
        let x = 24.0 + 124.0 * n as f64;
        let _ = write!(
            body,
            "<rect x=\"{x}\" y=\"58\" width=\"112\" height=\"54\" rx=\"6\" fill=\"#f7fafc\" stroke=\"#e2e8f0\"/>\
             <text x=\"{}\" y=\"82\" font-size=\"16\" font-weight=\"600\">{}</text>\
             <text x=\"{}\" y=\"102\" font-size=\"12\" fill=\"#718096\">{name}</text>",
            x + 10.0,
            escape(value),
            x + 10.0
        );
    }
    let mut y = 130.0;
    for chart in timelines(&samples) {
        let height: f64 = chart
            .split(&format!("viewBox=\"0 0 {} ", chart::WIDTH))
            .nth(1)
            .and_then(|rest| rest.split('"').next()?.parse().ok())
            .unwrap_or(200.0);
        body.push_str(&chart.replacen(
            "<svg ",
            &format!("<svg y=\"{y}\" width=\"{}\" height=\"{height}\" ", chart::WIDTH),
            1,
        ));
        y += height + 8.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {y}\" width=\"{0}\" font-family=\"sans-serif\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>{body}</svg>\n",
        chart::WIDTH
    )
}

/// Text as HTML: names come from users.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#1a202c}\
h1{font-weight:600}.cards{display:flex;flex-wrap:wrap;gap:12px}.cards div{background:#f7fafc;border:1px solid #e2e8f0;\
border-radius:6px;padding:8px 16px}.cards b{display:block;font-size:1.3em}.cards span{color:#718096}svg{width:100%;height:auto;\
margin:8px 0}table{border-collapse:collapse}td,th{padding:2px 12px;border-bottom:1px solid #e2e8f0;text-align:left}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{ContainerSample, ServerSample};

    #[test]
    fn a_page_is_whole_and_names_are_no_markup() {
        let sample = |at_s: f64, step| Sample {
            at_s,
            servers: vec![ServerSample { server: 0, bytes_in: step * 1000, bytes_out: 0, used_bytes: 5 }],
            containers: vec![ContainerSample { name: "<run>".into(), step, ..ContainerSample::default() }],
            sessions: 1,
            followers: vec![crate::timeline::FollowerSample { session: 4, lag: 1, ..Default::default() }],
            ..Sample::default()
        };
        let record = serde_json::json!({
            "system": "a<script>", "seconds": 2.0, "steps": 2, "bytes_written": 2000, "bytes_read": 0, "servers": 1,
            "exit_code": 0, "advice": ["use & enjoy"], "timeline": [sample(0.0, 0), sample(1.0, 1), sample(2.0, 2)],
            "ranks": [{"rank": 3, "program": "<x>", "host": "n1", "io_seconds": 0.5, "calls": 7}]
        });
        let page = page(&record);
        assert!(!page.contains("<script") && !page.contains("<run>") && !page.contains("<x>"), "{page}");
        assert!(page.contains("use &amp; enjoy") && page.matches("<svg").count() == 5, "{page}");
        // Nothing is fetched from anywhere.
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    }
}
