//! Checks the pages that name tests: the table of scenarios in `tests/apache/README.md`, and the guarantees in
//! `src/guarantees.md`.
//!
//! Reads sources as text; uses no part of the crate.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod dependencies;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the conformance list that are covered.
const ROWS: &str = "LIFE-01 LIFE-02 LIFE-03 LIFE-04 LIFE-06 LIFE-07 LIFE-08 LIFE-09 LIFE-10 LIFE-12 LIFE-13 LIFE-14 \
    LIFE-15 LIFE-16 LIFE-17 SEND-01 SEND-02 SEND-03 SEND-04 SEND-05 SEND-06 SEND-07 SEND-08 SEND-09 SEND-10 SEND-11 \
    SEND-12 SEND-13 SEND-14 SEND-19 SEND-20 SEND-22 SEND-23 SEND-25 SEND-26 SEND-29 CC-01 CC-02 CC-03 CC-04 CC-05 \
    CC-06 CC-07 CC-08 CC-09 CC-11 CC-12 CC-13 CC-16 CC-17 FILT-01 FILT-02 FILT-03 FILT-04 FILT-05 FILT-10 RETRY-01 \
    RETRY-02 RETRY-03 RETRY-04 RETRY-05 RETRY-06 RETRY-10 OFF-01 OFF-02 OFF-03 OFF-04 OFF-05 OFF-09 NSP-07 WIRE-01 WIRE-02 \
    WIRE-03 WIRE-04 WIRE-05 WIRE-06 WIRE-07";

#[test]
fn the_table_of_scenarios_names_tests_that_exist() {
    let defined = row_tests_and_others();
    for (row, tests) in table() {
        assert!(!tests.is_empty(), "{row} names no test");
        for test in tests {
            assert!(defined.contains(&test), "{row} names {test}, which does not exist");
        }
    }
}

#[test]
fn the_table_of_scenarios_has_every_row_and_every_test_of_it() {
    let table = table();
    let rows: BTreeSet<_> = table.iter().map(|(row, _)| row.as_str()).collect();
    for row in ROWS.split_whitespace() {
        assert!(rows.contains(row), "{row} is missing");
    }
    let listed: BTreeSet<_> = table.into_iter().flat_map(|(_, tests)| tests).collect();
    let missing: Vec<_> = row_tests_and_others().into_iter().filter(|test| is_of_row(test)).collect();
    let missing: Vec<_> = missing.iter().filter(|test| !listed.contains(*test)).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let tests = tests();
    let text = fs::read_to_string(root().join("src/guarantees.md")).unwrap();
    let guarantees: Vec<_> = text.split("\n* ").skip(1).collect();
    assert!(guarantees.len() > 30, "{} guarantees", guarantees.len());
    for guarantee in guarantees {
        let guarantee = guarantee.split("\n# ").next().unwrap_or_default();
        let (sentence, shown_by) = guarantee.rsplit_once('—').unwrap_or((guarantee, ""));
        let named: Vec<_> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test shows: {sentence}");
        for test in named {
            assert!(tests.contains(test), "{test} is no test, named by: {sentence}");
        }
    }
}

/// Rows of the table in `tests/apache/README.md`, each with the names in backticks in its second column.
fn table() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("tests/apache/README.md")).unwrap();
    let (_, text) = text.split_once("## Scenarios").expect("a heading");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (row, tests) = (cells.next()?, cells.next()?);
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        (row != "row" && !row.starts_with('-')).then(|| (row.to_owned(), tests.collect()))
    });
    rows.collect()
}

/// Names of all functions in the tests and in the crate's own tests.
fn row_tests_and_others() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources(&["src".as_ref()]).into_iter().chain(sources(&["tests".as_ref()])) {
        names.extend(text.split("fn ").skip(1).map(name_at_start));
    }
    // Made by macros.
    let vectors = fs::read_to_string(root().join("src/checks/vectors.rs")).unwrap();
    let made = vectors.lines().filter(|line| line.starts_with("    \"") && line.ends_with(';'));
    names.extend(made.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned));
    let decoders = fs::read_to_string(root().join("tests/decoders/main.rs")).unwrap();
    let made = decoders.lines().filter_map(|line| line.trim().strip_suffix("\";")?.split_once(": \""));
    names.extend(made.map(|(name, _)| name.to_owned()));
    names
}

/// Names of all tests: functions with the attribute, and scenarios that are turned into tests.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources(&["src".as_ref()]).into_iter().chain(sources(&["tests".as_ref()])) {
        let marked = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn "));
        names.extend(marked.map(|(_, rest)| name_at_start(rest)));
        let scenarios = text.split("$test! { ").skip(1).filter_map(|rest| rest.split_once("::"));
        names.extend(scenarios.map(|(_, rest)| name_at_start(rest)));
    }
    names
}

/// True if a name begins like `life_01_`.
fn is_of_row(test: &str) -> bool {
    let mut parts = test.splitn(3, '_');
    let (area, number, rest) = (parts.next(), parts.next(), parts.next());
    let is_area =
        area.is_some_and(|area| ["life", "send", "cc", "filt", "retry", "off", "nsp", "wire"].contains(&area));
    is_area && number.is_some_and(|number| number.len() == 2 && number.parse::<u8>().is_ok()) && rest.is_some()
}

fn name_at_start(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Reads every Rust source below a folder.
fn sources(folder: &[&Path]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.iter().fold(root(), |path, part| path.join(part))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
