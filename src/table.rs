//! Prints tables for people to read on standard output.

use anyhow::Result;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::output::{print, printable};

/// Columns under a header, as wide as what stands in them; those from `numbers` on hold numbers.
pub fn table(header: Vec<String>, rows: Vec<Vec<String>>, numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let shown = |row: Vec<String>| row.iter().map(|cell| printable(cell)).collect::<Vec<_>>();
    table.set_header(shown(header));
    table.add_rows(rows.into_iter().map(shown));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if column.index >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes a table to standard output.
///
/// # Errors
/// When standard output cannot be written to, unless its reader has gone.
pub fn print_table(table: &Table) -> Result<()> {
    print(&format!("{table}\n"))
}

/// A share of one, in percent.
pub fn percent(share: f32) -> String {
    format!("{:.2} %", 100. * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_letters_keep_the_columns_straight() {
        let row = |text: &str, share: f32| vec![text.to_owned(), percent(share)];
        let header = vec!["text".to_owned(), "probability".to_owned()];
        let table = table(header, vec![row("一只猫", 0.9994), row("a dog", 0.0006)], 1).to_string();
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["text    probability", "一只猫      99.94 %", "a dog        0.06 %"]);
    }
}
