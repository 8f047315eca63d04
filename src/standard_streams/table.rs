//! Prints tables on standard output: aligned columns with a header at a terminal, and tab-separated columns without a
//! header for programs.

use std::io::{self, IsTerminal};
use std::ops::RangeBounds;

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::{print, printable};
use crate::language::translated_heading;

/// Whether standard output is a terminal.
pub fn is_for_people() -> bool {
    io::stdout().is_terminal()
}

/// Writes a table to standard output; the columns in `numbers` are numeric.
///
/// # Errors
/// If standard output cannot be written to, unless its reader has gone.
pub fn print_table<S: ToString>(
    header: &[S],
    rows: &[Vec<String>],
    numbers: impl RangeBounds<usize>,
) -> Result<()> {
    print(&if is_for_people() { aligned(header, rows, numbers) } else { tabbed(rows) })
}

fn tabbed(rows: &[Vec<String>]) -> String {
    // A tab in a cell is escaped.
    let line =
        |row: &Vec<String>| row.iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("\t") + "\n";
    rows.iter().map(line).collect()
}

fn aligned<S: ToString>(header: &[S], rows: &[Vec<String>], numbers: impl RangeBounds<usize>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| printable(&translated_heading(&title.to_string()))));
    table.add_rows(rows.iter().map(|row| row.iter().map(|cell| printable(cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if numbers.contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // A long last cell must not pad all other lines.
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Formats a share in percent.
pub fn percent(share: f32) -> String {
    format!("{:.2} %", 100. * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |text: &str, share: f32| vec![text.to_owned(), percent(share)];
        vec![row("一只猫", 0.9994), row("a\tdog", 0.0006)]
    }

    #[test]
    fn wide_letters_keep_the_columns_straight() {
        let table = aligned(&["text", "probability"], &rows(), 1..);
        assert_eq!(table, "text    probability\n一只猫      99.94 %\na\\tdog       0.06 %\n");
    }

    #[test]
    fn programs_get_columns_between_tabs() {
        assert_eq!(tabbed(&rows()), "一只猫\t99.94 %\na\\tdog\t0.06 %\n");
        assert_eq!(tabbed(&[]), "");
    }
}
