//! Tests in a process of their own: for what exists once in a process, such as its logger and what signals do.

use std::env;
use std::process::Command;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

/// Runs the test's body in a process of its own, and fails with what that process prints when it fails or is killed.
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

/// Makes `hear` the logger of this process, for lines of `level` and above.
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
