//! Log lines of the library, kept for scenarios that search for their own.
//!
//! One logger serves the whole process; it keeps the warnings and errors that contain a name under observation.

use std::sync::{Arc, Weak};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

/// Lines that contain one name.
pub(crate) struct Lines(Arc<Kept>);

struct Kept {
    name: String,
    lines: Mutex<Vec<String>>,
}

/// Keeps lines that contain `name` from now on, until the returned value is dropped.
pub(crate) fn about(name: &str) -> Lines {
    // An existing logger stays, and no lines are kept.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
    let kept = Arc::new(Kept { name: name.to_owned(), lines: Mutex::default() });
    LOGGER.0.lock().push(Arc::downgrade(&kept));
    Lines(kept)
}

impl Lines {
    pub(crate) fn count(&self) -> usize {
        self.0.lines.lock().len()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lines.lock().clone()
    }

    /// True if a line contains these words.
    pub(crate) fn has(&self, words: &str) -> bool {
        self.0.lines.lock().iter().any(|line| line.contains(words))
    }
}

struct Logger(Mutex<Vec<Weak<Kept>>>);

static LOGGER: Logger = Logger(Mutex::new(Vec::new()));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        self.0.lock().retain(|kept| {
            let Some(kept) = kept.upgrade() else { return false };
            if line.contains(&kept.name) {
                kept.lines.lock().push(line.clone());
            }
            true
        });
    }

    fn flush(&self) {}
}
