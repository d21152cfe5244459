//! The manual page shows the table of differences, word for word.

use super::differences;

const PAGE: &str = include_str!("../../../slirp-cli/man/slirp4netns.1");

/// The cells of the page's table below its head. Rows hold text blocks only, with a rule above
/// each: `T{`, text, `T}`, tabulator, and so on.
fn rows() -> Vec<Vec<String>> {
    let section = PAGE.split("\n.Sh DIFFERENCES\n").nth(1).expect("the page has the section");
    let table = section.split("\n.TS\n").nth(1).and_then(|rest| rest.split("\n.TE\n").next());
    let table = table.expect("the section has a table");
    let plain = |cell: &str| {
        cell.trim().replace('\n', " ").replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")
    };
    let blocks: Vec<_> = table.split("T{\n").skip(1).collect();
    let cells: Vec<_> =
        blocks.iter().map(|block| plain(block.split("\nT}").next().unwrap_or_default())).collect();
    cells.chunks(3).map(<[String]>::to_vec).collect()
}

#[test]
fn manual_has_the_same_table() {
    let declared: Vec<_> = differences::rows()
        .map(|row| [row.topic, row.theirs, row.ours].map(str::to_owned).to_vec())
        .collect();
    assert_eq!(rows(), declared);
}

#[test]
fn every_row_is_seen() {
    for row in differences::rows() {
        assert!(!row.seen.is_empty(), "{}", row.topic);
    }
}
