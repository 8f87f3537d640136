//! Lines over time as SVG.

use std::fmt::Write;

use super::escape;

pub(super) const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 200.0;
pub(super) const LEFT: f64 = 90.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 24.0;
/// Commits drawn at most: more of them would be a wall.
const MARKS_MAX: usize = 300;

/// One line of a chart.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// Seconds and value.
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) end_s: f64,
    /// Seconds at which something happened.
    pub(super) marks: &'a [f64],
    pub(super) lines: Vec<Line>,
    pub(super) unit: fn(f64) -> String,
}

impl Chart<'_> {
    pub(super) fn svg(&self) -> String {
        let top = self.lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max).max(1.0);
        let end_s = self.end_s.max(1e-3);
        let x = |at: f64| LEFT + (WIDTH - LEFT - 10.0) * at / end_s;
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">");
        let _ = write!(svg, "<text x=\"{LEFT}\" y=\"14\" font-weight=\"bold\">{}</text>", escape(self.title));
        for part in 0..=2 {
            let (value, at) = (top * f64::from(part) / 2.0, end_s * f64::from(part) / 2.0);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#e2e8f0\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{at:.1} s</text>",
                WIDTH - 10.0,
                y(value),
                y(value),
                LEFT - 6.0,
                y(value) + 4.0,
                escape(&(self.unit)(value)),
                x(at).min(WIDTH - 20.0),
                HEIGHT - 8.0
            );
        }
        for mark in self.marks.iter().step_by(self.marks.len().div_ceil(MARKS_MAX).max(1)) {
            let at = x(*mark);
            let _ = write!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#cbd5e0\" stroke-dasharray=\"2 2\"/>",
                HEIGHT - BOTTOM
            );
        }
        for (number, line) in self.lines.iter().enumerate() {
            let points: Vec<String> = line.points.iter().map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v))).collect();
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" points=\"{}\"/>\
                 <text x=\"{}\" y=\"14\" fill=\"{}\">{}</text>",
                line.colour,
                points.join(" "),
                LEFT + 200.0 + 170.0 * number as f64,
                line.colour,
                escape(&line.name)
            );
        }
        svg.push_str("</svg>");
        svg
    }
}
