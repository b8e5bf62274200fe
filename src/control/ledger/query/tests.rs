//! Questions from text to rows, on a store of a few records.

use super::{Answer, Format, Query, csv_cell, decoded, open, record_json, usd};
use crate::control::ledger::rollups::Store;
use crate::usage::Usage;
use crate::usage::ledger::recovery::segments_path;
use crate::usage::ledger::segments::{self, Appender};
use crate::usage::ledger::{Kind, Mark, Record};
use std::path::PathBuf;
use std::time::Duration;

/// 2026-11-21T10:30:00Z.
const NOW_MS: u64 = 1_795_257_000_000;
const HOUR_MS: u64 = 3_600_000;

fn parse(by: &str, since: &str, until: &str) -> Result<Query, String> {
    Query::parse(by, Some(since), Some(until), NOW_MS)
}

#[test]
fn times_are_read_in_each_form_and_widened_to_hours() {
    let ten = NOW_MS - 1_800_000;
    // since, until, and what they are
    let rows = [
        ("24h", "", Some(ten - 24 * HOUR_MS), None),
        ("1d", "", Some(ten - 24 * HOUR_MS), None),
        ("30m", "0m", Some(ten), Some(ten + HOUR_MS)),
        ("31m", "30m", Some(ten - HOUR_MS), Some(ten)),
        ("2026-11-21", "2026-11-22", Some(ten - 10 * HOUR_MS), Some(ten + 14 * HOUR_MS)),
        ("2026-11-21T10:59:00Z", "2026-11-21T11:01:00+01:00", Some(ten), Some(ten + HOUR_MS)),
        ("9999999h", "", Some(0), None),
    ];
    for (since, until, since_ms, until_ms) in rows {
        let query = parse("", since, until).expect(since);
        assert_eq!((query.since_ms, query.until_ms), (since_ms, until_ms), "{since} {until}");
    }
    for wrong in
        ["24", "h", "-1h", "1w", "yesterday", "2026-13-01", "1969-12-31", "é", "99999999999999999999h"]
    {
        let message = parse("", wrong, "").expect_err(wrong);
        assert!(message.starts_with("since is \"") && message.contains("24h"), "{message}");
    }
    let message = parse("key,modle", "", "").expect_err("no such dimension");
    assert!(message.contains("\"modle\"") && message.contains("model, model_sent"), "{message}");
}

#[test]
fn a_url_asks_the_same() {
    let asked = Query::from_url("by=key%2Cmodel&since=24h", NOW_MS).expect("a query");
    assert_eq!(asked, parse("key, model", "24h", "").expect("a query"));
    assert_eq!(Query::from_url("", NOW_MS).expect("a query"), Query::default());
    assert!(Query::from_url("bye=key", NOW_MS).expect_err("unknown").contains("by, since, until"));
    assert_eq!((decoded("a%2fb+c%"), decoded("%zz")), ("a/b c%".to_owned(), "%zz".to_owned()));
}

fn record(id: &str, key: &str, hour: u64, cost_pico: u64) -> Record {
    Record {
        id: id.to_owned(),
        key: key.to_owned(),
        model: "fast".to_owned(),
        started_unix_ms: hour * HOUR_MS + 7,
        usage: Usage { input: Some(10), output: Some(3), ..Usage::default() },
        cost_pico: Some(cost_pico),
        status: 200,
        attempts: 1,
        ended: "whole".to_owned(),
        ..Record::default()
    }
}

/// A ledger of these records, all but the last one rolled up.
fn ledger(name: &str, records: &[Record]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tollgate-query-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let mut appender = Appender::new(&segments_path(&path), 0, Mark::default()).expect("an appender");
    let mut store = Store::open(&path, Duration::from_secs(5)).expect("a store");
    let frame = |record| {
        let mut frame = Vec::new();
        segments::frame(record, &mut frame);
        frame
    };
    let (last, rest) = records.split_last().expect("some");
    rest.iter().for_each(|record| appender.append(&frame(record)).expect("appended"));
    store.catch_up(0).expect("read");
    appender.append(&frame(last)).expect("appended");
    path
}

#[test]
fn sums_are_told_apart_as_asked_in_every_form() {
    let usd_max = u64::MAX;
    let records = [
        record("a", "ci", 1, 1),
        record("b", "ci", 25, usd_max),
        Record { tags: "=x,\"y\"".to_owned(), ..record("c", "blue", 25, usd_max) },
        record("late", "ci", 25, 1),
    ];
    let path = ledger("forms", &records);
    let ask = |by: &str, since: &str| parse(by, since, "").expect("a query").ask(&path).expect("an answer");
    let groups = |answer: &Answer| -> Vec<String> {
        answer.rows.iter().map(|row| format!("{} {}", row.group.join("|"), row.counts[0])).collect()
    };
    assert_eq!(groups(&ask("", "")), [" 3"]);
    assert_eq!(groups(&ask("key", "")), ["blue 1", "ci 2"]);
    assert_eq!(groups(&ask("day,key", "")), ["1970-01-01|ci 1", "1970-01-02|blue 1", "1970-01-02|ci 1"]);
    assert_eq!(groups(&ask("hour", "1970-01-02")), ["1970-01-02T01:00:00Z 2"]);
    assert!(ask("key", "1970-01-03").rows.is_empty() && ask("", "1970-01-03").rows.is_empty());
    let all = ask("", "");
    assert_eq!((all.rows[0].cost_pico, all.behind), (u128::from(usd_max) * 2 + 1, 1));
    assert_eq!(
        ask("key", "").shown(Format::Table),
        "KEY   REQUESTS  ATTEMPTS  INPUT_TOKENS  OUTPUT_TOKENS               COST_USD\n\
         blue         1         1            10              3  18446744.073709551615\n\
         ci           2         2            20              6  18446744.073709551616\n"
    );
    assert_eq!(
        ask("tags", "").shown(Format::Csv).lines().nth(2).expect("a row"),
        "\"'=x,\"\"y\"\"\",1,1,0,10,3,0,0,0,0,0,18446744.073709551615"
    );
    let json = ask("key", "1970-01-01").json();
    assert_eq!((&json["not_rolled_up"], &json["since"]), (&1.into(), &"1970-01-01T00:00:00Z".into()));
    let row = &json["rows"][1];
    assert_eq!((&row["key"], &row["requests"]), (&"ci".into(), &2.into()));
    assert_eq!(row["cost_usd"], "18446744.073709551616");
    let mut lines = Vec::new();
    let sink = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    parse("", "1970-01-02", "").expect("a query").records(&path, sink).expect("read");
    let ids: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].clone())
        .collect();
    assert_eq!(ids, ["b", "c", "late"]);
    std::fs::remove_dir_all(&path).expect("it is ours");
    assert!(open(&path).err().expect("nothing there").to_string().ends_with("holds no ledger"));
}

#[test]
fn a_record_shows_what_is_known_and_leaves_the_rest_out() {
    let crash = Record { kind: Kind::Crash, status: 0, cost_pico: None, ..record("a", "ci", 1, 0) };
    let json = record_json(&Record { steps_us: [5, 0, 0, 0, 0, 0, 9], ..crash });
    assert_eq!((&json["record"], &json["usage"]), (&"crash".into(), &"provider".into()));
    assert_eq!(
        (&json["body_us"], &json["done_us"], &json["time"]),
        (&5.into(), &9.into(), &"1970-01-01T01:00:00.007Z".into())
    );
    for absent in ["cost_usd", "status", "policy_us", "team", "client", "attempt", "unpriced"] {
        assert!(json.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn money_is_exact_and_cells_are_safe() {
    for (pico, text) in
        [(0, "0"), (1, "0.000000000001"), (37_500, "0.0000000375"), (2_500_000_000_000, "2.5")]
    {
        assert_eq!(usd(pico), text);
    }
    for (cell, safe) in [("a", "a"), ("a,b", "\"a,b\""), ("-1+2", "'-1+2"), ("a\"", "\"a\"\"\""), ("", "")] {
        assert_eq!(csv_cell(cell), safe);
    }
}
