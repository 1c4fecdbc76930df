//! Elastic tab stops, as Go's `text/tabwriter` sets them: cells end with a tab, and a column is as wide as its
//! widest cell over the consecutive lines that have it.

/// Aligns a text whose cells end with tabs. A column is at least `minimum` wide, `padding` included.
pub(crate) fn align(text: &str, minimum: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len()]).collect();
    let deepest = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..deepest {
        let mut start = 0;
        while start < lines.len() {
            // The last cell of a line is not ended by a tab, so that it belongs to no column.
            if lines[start].len() <= column + 1 {
                start += 1;
                continue;
            }
            let end = (start..lines.len()).find(|at| lines[*at].len() <= column + 1).unwrap_or(lines.len());
            let widest = lines[start..end].iter().map(|line| line[column].chars().count() + padding).max();
            let width = widest.unwrap_or(0).max(minimum);
            for line in &mut widths[start..end] {
                line[column] = width;
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (line, widths) in lines.iter().zip(&widths) {
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            out.push_str(cell);
            if at + 1 < line.len() {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_over_consecutive_lines() {
        let text = "Name:\ta\nNamespace:\tdefault\nAlone\nX:\t1\n  Long name:\t2\n";
        assert_eq!(
            align(text, 0, 2),
            "Name:       a\nNamespace:  default\nAlone\nX:            1\n  Long name:  2\n"
        );
    }
}
