//! What a person reads of a result: a table, a CSV file, a self-contained HTML page.

pub mod table;
pub mod csv;
pub mod html;
pub mod chart;
