//! Checks the source against the rules of ARCHITECTURE.md: which layer may use which, and the purity of the pure parts.
//!
//! Reads the files of `src/` as text; a violation is reported with its file and line. Tests only.

use std::collections::BTreeMap;

use super::source::{Source, sources};

/// Modules that each module may use besides itself. A lower layer never names a higher one, and no layer names the
/// crate's root.
const LAYERS: &[(&str, &[&str])] = &[
    ("foreign_text", &[]),
    ("unversioned", &[]),
    ("message", &["foreign_text"]),
    ("wire", &["message", "foreign_text"]),
    ("error", &["wire"]),
    ("name_map", &[]),
    ("deadline", &[]),
    ("logging", &[]),
    ("repeats", &[]),
    ("worker", &["error", "logging"]),
    ("remoting", &["wire", "error", "name_map", "logging", "repeats", "worker"]),
    ("client", &["remoting", "wire", "message", "error", "name_map", "deadline", "logging", "worker"]),
    ("producer", &["client", "remoting", "wire", "message", "error", "name_map", "deadline", "logging", "worker"]),
    (
        "consumer",
        &[
            "producer", "client", "remoting", "wire", "message", "error", "name_map", "deadline", "logging", "repeats",
            "worker",
        ],
    ),
    ("mini_broker", &["wire", "message", "error", "worker"]),
];

/// Module of test code that every test may use.
const FOR_TESTS: &str = "checks";

/// Words that code without I/O, clock, thread, lock and log does not contain.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "thread::",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "Mutex",
    "RwLock",
    "Condvar",
    "crossbeam_channel",
    "parking_lot",
    "mio::",
    "log::",
    "logging::",
];

/// Pure files: decisions without side effects.
const PURE: &[&str] = &[
    "wire/",
    "foreign_text.rs",
    "message/",
    "name_map.rs",
    "producer/send/attempts.rs",
    "producer/send/lanes.rs",
    "consumer/assign/allocate.rs",
    "consumer/assign/rebalance.rs",
    "consumer/deliver/retry.rs",
    "consumer/offset/store.rs",
    "consumer/pull/event.rs",
    "consumer/pull/flow.rs",
    "consumer/pull/process_queue.rs",
    "consumer/pull/request.rs",
    "consumer/pull/row.rs",
    "consumer/pull/slot.rs",
    "consumer/pull/status.rs",
    "consumer/pull/stray.rs",
    "consumer/pull/table.rs",
    "consumer/start.rs",
];

/// Files that read the wall clock, which may be changed at any moment, and their reasons. All waiting uses the
/// monotonic clock.
const WALL_CLOCK: &[(&str, &str)] = &[
    ("client/identity.rs", "the time in message ids"),
    ("consumer/pull/service.rs", "the start position of a queue that is added later"),
    ("consumer/push/builder.rs", "the version of a subscription"),
    ("mini_broker/clock.rs", "the start of the mini broker's clock"),
    ("producer/send/outgoing.rs", "the time of a message's creation"),
];

#[test]
fn nothing_but_timestamps_goes_by_the_clock_on_the_wall() {
    let looks = |line: &str| line.contains("SystemTime::now()") || line.contains("wall_clock_millis()");
    let looking = sources().into_iter().filter(|file| {
        file.module() != FOR_TESTS && file.code.lines().take_while(|line| *line != "#[cfg(test)]").any(looks)
    });
    let mut looking: Vec<_> = looking.map(|file| file.name).collect();
    looking.sort();
    assert_eq!(looking, WALL_CLOCK.iter().map(|(file, _)| *file).collect::<Vec<_>>());
}

#[test]
fn no_layer_uses_one_above_it() {
    let mut wrong = Vec::new();
    let is_above_all = |file: &Source| ["lib", FOR_TESTS].contains(&file.module());
    for file in sources().iter().filter(|file| !is_above_all(file)) {
        let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == file.module()) else {
            wrong.push(format!("src/{}: its module is missing in LAYERS", file.name));
            continue;
        };
        for (line, used) in file.uses() {
            if used != file.module() && used != FOR_TESTS && !allowed.contains(&used.as_str()) {
                wrong.push(format!("src/{}:{line}: {} uses crate::{used}", file.name, file.module()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A panicking logger must not end a service thread.
#[test]
fn every_line_of_the_log_is_written_behind_a_panic_boundary() {
    let direct = |line: &str| line.contains("use log::") || line.split("log::").skip(1).any(|rest| rest.contains("!("));
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| !["logging", FOR_TESTS, "mini_broker"].contains(&file.module())) {
        for (number, line) in (1..).zip(file.code.lines()).filter(|(_, line)| direct(line)) {
            wrong.push(format!("src/{}:{number}: {line}", file.name));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_parts_touch_nothing_outside() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| PURE.iter().any(|pure| file.name.starts_with(pure))) {
        for (number, line) in (1..).zip(file.code.lines()).take_while(|(_, line)| *line != "#[cfg(test)]") {
            if let Some(impure) = IMPURE.iter().find(|impure| line.contains(**impure)) {
                wrong.push(format!("src/{}:{number}: {impure}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_use_is_found_in_every_form() {
    let code = "use crate::client::Core;\nuse crate::{\n    error::{Error, Result}, // crate::no\n    wire,\n};\n\
                let queue: super::super::message::MessageQueue = crate::producer::sender();\n\
                use super::super::worker::Threads;\nuse super::message::X;\npub(in crate::remoting) fn f() {}\n";
    let file = Source::new("consumer/pull/x.rs".into(), code);
    let uses: Vec<_> = file.uses().into_iter().map(|(line, used)| format!("{used} {line}")).collect();
    assert_eq!(uses, ["client 1", "error 3", "wire 4", "producer 6", "remoting 9"]);
    let file = Source::new("consumer/x.rs".into(), code);
    let uses: Vec<_> = file.uses().into_iter().map(|(line, used)| format!("{used} {line}")).collect();
    assert_eq!(uses, ["client 1", "error 3", "wire 4", "message 6", "producer 6", "worker 7", "remoting 9"]);
}

impl Source {
    /// Returns the number of `super`s that lead from the file to the crate's root.
    fn depth(&self) -> usize {
        self.name.split('/').filter(|part| *part != "mod.rs").count()
    }

    /// Returns every named module of the root, with its line, in the order of the text.
    fn uses(&self) -> Vec<(usize, String)> {
        let mut uses = self.uses_behind("crate::");
        // Inside an inline module the same `super`s end below the root, and the names there are not the root's.
        let by_super = self.uses_behind(&"super::".repeat(self.depth()));
        uses.extend(by_super.into_iter().filter(|(_, used)| LAYERS.iter().any(|(module, _)| module == used)));
        uses.sort();
        uses
    }

    fn uses_behind(&self, root: &str) -> Vec<(usize, String)> {
        let mut uses = Vec::new();
        for (at, _) in self.code.match_indices(root) {
            let start = at + root.len();
            for (offset, name) in first_names(&self.code[start..]) {
                uses.push((self.code[..start + offset].matches('\n').count() + 1, name));
            }
        }
        uses
    }
}

/// Returns the first name of a path, or of each path in its braces, with its position.
fn first_names(path: &str) -> Vec<(usize, String)> {
    let name = |at: usize| -> String {
        path[at..].chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    if !path.starts_with('{') {
        return vec![(0, name(0))].into_iter().filter(|(_, name)| !name.is_empty() && name != "super").collect();
    }
    let (mut names, mut depth, mut is_first) = (Vec::new(), 0, false);
    for (at, letter) in path.char_indices() {
        match letter {
            '{' => (depth, is_first) = (depth + 1, depth == 0),
            '}' => depth -= 1,
            ',' => is_first = depth == 1,
            letter if letter.is_whitespace() => {}
            _ if is_first => {
                names.push((at, name(at)));
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Types of the wire that have the names of the protocol, which are also those of public types.
const NAMED_BY_THE_PROTOCOL: &[&str] = &["Connection", "ConsumeFromWhere", "ConsumeStatus", "Error"];

#[test]
fn no_two_types_have_one_name() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    let is_test = |name: &str| name.contains("/tests") || name.contains("simulation/") || name.starts_with(FOR_TESTS);
    for file in sources().iter().filter(|file| !is_test(&file.name)) {
        for name in file.code.lines().take_while(|line| *line != "#[cfg(test)]").filter_map(type_defined_in) {
            places.entry(name.to_owned()).or_default().push(file.name.clone());
        }
    }
    let is_allowed = |name: &String| NAMED_BY_THE_PROTOCOL.contains(&name.as_str());
    let twice: Vec<_> = places.iter().filter(|(name, files)| files.len() > 1 && !is_allowed(name)).collect();
    assert!(places.len() > 100 && twice.is_empty(), "{} types; {twice:?}", places.len());
}

/// Name of the type that a line of a module defines.
fn type_defined_in(line: &str) -> Option<&str> {
    let kinds = ["struct ", "enum ", "trait ", "type "];
    let (before, after) = kinds.iter().find_map(|kind| line.split_once(kind))?;
    let is_definition = before.is_empty() || (before.starts_with("pub") && before.ends_with(' '));
    let name = after.split(|letter: char| !letter.is_alphanumeric()).next()?;
    is_definition.then_some(name)
}
