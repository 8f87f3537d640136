//! Who writes and who waits, over time, as bars: a row for each program that held an epoch open or followed a container.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::chart::{LEFT, WIDTH};
use super::escape;
use crate::timeline::Sample;

const ROW: f64 = 20.0;
const TOP: f64 = 40.0;
/// Rows drawn at most.
const ROWS_MAX: usize = 40;
const WRITES: &str = "#e53e3e";
const WAITS: &str = "#bee3f8";
const BEHIND: &str = "#2b6cb0";

// A follower says how far it is once a second, so that one step may be on its way to be said.

/// A row: what a program does, from one sample to the next.
type Rows = BTreeMap<(u64, String), Vec<(f64, f64, &'static str)>>;

/// The picture, unless nobody did anything.
pub(super) fn svg(samples: &[Sample], commits: &[f64]) -> Option<String> {
    let rows = rows(samples);
    if rows.is_empty() {
        return None;
    }
    let end_s = samples.last().map_or(1.0, |sample| sample.at_s).max(1e-3);
    let count = rows.len().min(ROWS_MAX);
    let height = TOP + ROW * count as f64 + 24.0;
    let x = |at: f64| LEFT + (WIDTH - LEFT - 10.0) * at / end_s;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">");
    let _ = write!(svg, "<text x=\"{LEFT}\" y=\"14\" font-weight=\"bold\">Who writes, who waits</text>");
    for (number, (colour, text)) in
        [(WRITES, "holds an epoch open"), (BEHIND, "follows, behind"), (WAITS, "waits for a step")].iter().enumerate()
    {
        let at = LEFT + 200.0 + 150.0 * number as f64;
        let _ = write!(
            svg,
            "<rect x=\"{at}\" y=\"5\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"14\">{text}</text>",
            at + 14.0
        );
    }
    for (number, ((session, program), spans)) in rows.iter().take(ROWS_MAX).enumerate() {
        let y = TOP + ROW * number as f64;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\"><title>session {session}</title>{}</text>",
            LEFT - 6.0,
            y + 12.0,
            escape(&shortened(program))
        );
        for (from, to, colour) in spans {
            let width = (x(*to) - x(*from)).max(0.5);
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                x(*from),
                ROW - 6.0
            );
        }
    }
    for at in commits {
        let at = x(*at);
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{:.1}\" stroke=\"#1a202c\" stroke-opacity=\"0.35\"/>",
            TOP - 6.0,
            height - 22.0
        );
    }
    for part in 0..=2 {
        let at = end_s * f64::from(part) / 2.0;
        let place = x(at).min(WIDTH - 20.0);
        let _ = write!(svg, "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.1} s</text>", height - 8.0);
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn rows(samples: &[Sample]) -> Rows {
    let mut rows = Rows::new();
    for pair in samples.windows(2) {
        let (from, to) = (pair[0].at_s, pair[1].at_s);
        let mut put = |session: u64, program: &str, colour| {
            let spans = rows.entry((session, program.to_owned())).or_default();
            match spans.last_mut() {
                Some((_, end, before)) if *before == colour && (*end - from).abs() < 1e-9 => *end = to,
                _ => spans.push((from, to, colour)),
            }
        };
        for writer in &pair[0].writers {
            put(writer.session, &writer.program, WRITES);
        }
        for follower in &pair[0].followers {
            put(follower.session, &follower.program, if follower.lag > 1 { BEHIND } else { WAITS });
        }
    }
    rows
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 13 {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(12).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{FollowerSample, WriterSample};

    #[test]
    fn what_goes_on_is_one_bar() {
        let sample = |at_s, lag| Sample {
            at_s,
            writers: vec![WriterSample { session: 1, program: "<heat>".into(), container: "run".into(), epochs: 1 }],
            followers: vec![FollowerSample { session: 2, program: "watch".into(), container: "run".into(), lag }],
            ..Sample::default()
        };
        let samples = [sample(0.0, 0), sample(1.0, 0), sample(2.0, 3), sample(3.0, 0)];
        let rows = rows(&samples);
        assert_eq!(rows[&(1, "<heat>".to_owned())], [(0.0, 3.0, WRITES)]);
        assert_eq!(rows[&(2, "watch".to_owned())], [(0.0, 2.0, WAITS), (2.0, 3.0, BEHIND)]);
        let svg = svg(&samples, &[1.5]).unwrap();
        assert!(svg.contains("&lt;heat&gt;") && !svg.contains("<heat>"), "{svg}");
    }
}
