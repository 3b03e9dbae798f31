//! Table of results in Markdown, ready for the README.

use super::controller::{Medians, Row};
use super::figure::{Figure, Mark};

const HEADS: [&str; 14] = [
    "figure",
    "messages/s",
    "of floor",
    "(range)",
    "CPU µs",
    "floor",
    "writes",
    "floor",
    "reads",
    "switches",
    "floor",
    "p50 / p99 / p99.9 µs",
    "threads",
    "peak MB",
];
/// Threads of the library that the mark does not include.
const NOT_COUNTED: [&str; 3] = ["rmq-consume", "rmq-callback", "rmq-resolve"];
/// Disturbance from which a note is added.
const DISTURBED: f64 = 0.05;

/// Renders all rows, the marks, and notes for the reader.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let mut text = aligned(&lines);
    text.push_str(
        "\nOf one message: CPU time of the client process, its write and read calls, its context switches.\n\n",
    );
    for row in rows {
        text.push_str(&format!("* {}: {}\n", row.figure.name, notes(row)));
    }
    text
}

/// True if the candidate keeps every mark.
fn keeps_marks(row: &Row) -> bool {
    row.candidate.peak_memory as f64 <= row.figure.memory_mark * 1e6
        && library_threads(row, |name| !NOT_COUNTED.contains(&name)) <= row.figure.thread_mark
        && match row.figure.mark {
            None => true,
            Some(Mark::RatioToFloor(least)) => row.ratio[0] >= least,
            Some(Mark::CpuMicros(most)) => row.candidate.cpu_micros <= most,
        }
}

fn library_threads(row: &Row, counts: impl Fn(&str) -> bool) -> usize {
    row.threads.iter().filter(|(name, _)| name.starts_with("rmq-") && counts(name)).map(|(_, count)| count).sum()
}

fn cells(row: &Row) -> [String; HEADS.len()] {
    let Row { candidate, floor, .. } = row;
    [
        row.figure.name.to_owned(),
        format!("{:.0}", candidate.rate),
        format!("{:.2}", row.ratio[0]),
        format!("{:.2}–{:.2}", row.ratio[1], row.ratio[2]),
        format!("{:.2}", candidate.cpu_micros),
        format!("{:.2}", floor.cpu_micros),
        format!("{:.3}", candidate.writes),
        format!("{:.3}", floor.writes),
        format!("{:.3}", candidate.reads),
        format!("{:.3}", candidate.context_switches),
        format!("{:.3}", floor.context_switches),
        latencies(candidate),
        library_threads(row, |_| true).to_string(),
        format!("{:.1}", candidate.peak_memory as f64 / 1e6),
    ]
}

fn latencies(medians: &Medians) -> String {
    match medians.latencies {
        Some(latencies) => latencies.map(|micros| format!("{micros:.0}")).join(" / "),
        None => "–".into(),
    }
}

fn notes(row: &Row) -> String {
    let threads: Vec<String> = row.threads.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut notes = format!(
        "floor {:.0}/s, latency {}, peak {:.1} MB; threads: {}; mark {}",
        row.floor.rate,
        latencies(&row.floor),
        row.floor.peak_memory as f64 / 1e6,
        threads.join(", "),
        mark(row),
    );
    if row.disturbance > DISTURBED {
        notes.push_str(&format!("; DISTURBED: others used {:.0} % of the machine", row.disturbance * 100.0));
    }
    notes
}

fn mark(row: &Row) -> String {
    let wanted = match row.figure.mark {
        None => String::new(),
        Some(Mark::RatioToFloor(least)) => format!("{least} of floor, "),
        Some(Mark::CpuMicros(most)) => format!("{most} µs, "),
    };
    let Figure { memory_mark, thread_mark, .. } = row.figure;
    format!("{wanted}{memory_mark} MB, {thread_mark} threads: {}", if keeps_marks(row) { "kept" } else { "MISSED" })
}

/// Renders a Markdown table whose columns also align as plain text: names to the left, numbers to the right.
fn aligned(lines: &[[String; HEADS.len()]]) -> String {
    let widths: Vec<usize> = (0..HEADS.len())
        .map(|column| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, cells) in lines.iter().enumerate() {
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            text.push_str(&if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") });
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width);
                text.push_str(&if column == 0 { format!("|:{dashes}-") } else { format!("|-{dashes}:") });
            }
            text.push_str("|\n");
        }
    }
    text
}
