//! Findings, printed as they are found, and the diagnosis at the end.

use std::fmt::Display;

/// Prints each finding at once, and stores those that need attention.
#[derive(Default)]
pub(crate) struct Report {
    place: String,
    failures: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// Problem with its place, description and remedy.
struct Finding {
    place: String,
    hop: &'static str,
    what: String,
    remedy: String,
}

impl Report {
    /// Begins the findings about `place`.
    pub(crate) fn at(&mut self, place: impl Into<String>) {
        if !self.place.is_empty() {
            println!();
        }
        self.place = place.into();
        println!("{}", self.place);
    }

    pub(crate) fn ok(&self, hop: &str, what: impl Display) {
        line("ok", hop, what);
    }

    /// Reports a fact that cannot be determined from here, and that is not a failure.
    pub(crate) fn unknown(&self, hop: &str, what: impl Display) {
        line("-", hop, what);
    }

    pub(crate) fn warn(&mut self, hop: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        let finding = self.finding(hop, what.into(), remedy.into());
        line("warn", hop, &finding.what);
        self.warnings.push(finding);
    }

    pub(crate) fn fail(&mut self, hop: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        let finding = self.finding(hop, what.into(), remedy.into());
        line("FAIL", hop, &finding.what);
        self.failures.push(finding);
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the first failure and its remedy before all others, which may be its consequences.
    pub(crate) fn tell_diagnosis(&self) {
        println!();
        for finding in &self.warnings {
            println!("Worth a look: {finding}\n");
        }
        match self.failures.split_first() {
            None => println!("No hop fails."),
            Some((first, others)) => {
                println!("First hop that fails: {first}");
                for other in others {
                    println!("\nAfter it: {other}");
                }
            }
        }
    }

    fn finding(&self, hop: &'static str, what: String, remedy: String) -> Finding {
        Finding { place: self.place.clone(), hop, what, remedy }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, hop, what, remedy } = self;
        write!(f, "{place}, {hop}: {what}\n  What to do: {remedy}")
    }
}

fn line(mark: &str, hop: &str, what: impl Display) {
    println!("  {mark:<4}  {hop:<13}  {what}");
}
