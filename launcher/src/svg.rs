//! Terminal screens as pictures: text with colours, cell by cell, as SVG. For the documentation's screenshots.

use std::fmt::Write;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 18.0;

/// A screen as SVG.
pub(crate) fn of_buffer(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut svg = frame(area.width, area.height);
    for row in 0..area.height {
        let mut column = 0;
        while column < area.width {
            let cell = &buffer[(column, row)];
            // A run of one style is one piece of text.
            let mut text = String::new();
            let start = column;
            while column < area.width && buffer[(column, row)].style() == cell.style() {
                text.push_str(buffer[(column, row)].symbol());
                column += 1;
            }
            let bold = cell.modifier.contains(Modifier::BOLD);
            piece(&mut svg, start, row, &text, colour(cell.fg), background(cell.bg), bold);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Plain lines as SVG.
pub(crate) fn of_text(text: &str) -> String {
    let width = text.lines().map(|line| line.chars().count()).max().unwrap_or(1) as u16 + 2;
    let height = text.lines().count() as u16 + 1;
    let mut svg = frame(width, height);
    for (row, line) in text.lines().enumerate() {
        piece(&mut svg, 1, row as u16, line, "#e2e8f0", None, false);
    }
    svg.push_str("</svg>\n");
    svg
}

fn frame(columns: u16, rows: u16) -> String {
    let (width, height) = (f64::from(columns) * CELL_WIDTH + 16.0, f64::from(rows) * CELL_HEIGHT + 16.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"DejaVu Sans Mono,Menlo,monospace\" font-size=\"14\" xml:space=\"preserve\">\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1a202c\"/>"
    )
}

fn piece(svg: &mut String, column: u16, row: u16, text: &str, colour: &str, background: Option<&str>, bold: bool) {
    let (x, y) = (8.0 + f64::from(column) * CELL_WIDTH, 8.0 + f64::from(row) * CELL_HEIGHT);
    let width = text.chars().count() as f64 * CELL_WIDTH;
    if let Some(background) = background {
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{background}\"/>"
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{colour}\"{weight} textLength=\"{width:.1}\">{escaped}</text>",
        y + 13.5
    );
}

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Green | Color::LightGreen => "#68d391",
        Color::Yellow | Color::LightYellow => "#f6e05e",
        Color::Red | Color::LightRed => "#fc8181",
        Color::Blue | Color::LightBlue => "#63b3ed",
        Color::Cyan | Color::LightCyan => "#76e4f7",
        Color::Magenta | Color::LightMagenta => "#d6bcfa",
        Color::Gray | Color::DarkGray => "#a0aec0",
        _ => "#e2e8f0",
    }
}

fn background(colour: Color) -> Option<&'static str> {
    match colour {
        Color::Blue => Some("#2c5282"),
        Color::DarkGray => Some("#4a5568"),
        _ => None,
    }
}
