//! Tests in their own process, for things that exist once per process, such as the logger and signal handlers.

use std::env;
use std::process::Command;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

/// Runs the test's body in its own process, and fails with the output of that process if it fails or is killed.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "ROCKETMQ_SYNC_TEST_ALONE";
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        return body();
    }
    let child = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && text.contains("1 passed"), "{}: {text}{errors}", child.status);
}

/// Installs `hear` as the logger of this process, for lines of `level` and above.
pub(crate) fn hear_log(level: LevelFilter, hear: impl Fn(&Record<'_>) + Send + Sync + 'static) {
    struct Logger<F>(F);
    impl<F: Fn(&Record<'_>) + Send + Sync> Log for Logger<F> {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &Record<'_>) {
            (self.0)(record);
        }
        fn flush(&self) {}
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_boxed_logger(Box::new(Logger(hear))).unwrap();
        log::set_max_level(level);
    });
}
