//! Checks the words of the source: doc comments, texts of errors, and log lines. Holds the mechanical part of the rule in
//! CONTRIBUTING.md.
//!
//! Reads the files of `src/` as text; a violation is reported with its file and line. Tests only.

use super::source::{Source, sources};

/// First words that a doc comment must not have: it begins with a noun or a verb.
const NO_FIRST_WORDS: &[&str] = &[
    "what",
    "who",
    "whom",
    "whose",
    "whoever",
    "whatever",
    "whether",
    "where",
    "when",
    "how",
    "which",
    "if",
    "it",
    "they",
    "nobody",
    "somebody",
    "everybody",
    "nothing",
    "anything",
    "something",
];

/// Words that do not fit code or data, anywhere in a comment.
const NO_WORDS: &[&str] = &[
    "tell",
    "tells",
    "told",
    "knows",
    "believes",
    "believed",
    "obeys",
    "lies",
    "nobody",
    "somebody",
    "everybody",
    "whoever",
];

/// First words of log lines: operators search the log for them.
const LOG_PREFIXES: &[&str] = &[
    "callback",
    "callbacks",
    "client",
    "commit",
    "compression",
    "connect",
    "connection",
    "consume",
    "consumer",
    "heartbeat",
    "mini",
    "name",
    "panic",
    "poll",
    "probe",
    "producer",
    "pull",
    "push",
    "rebalance",
    "request",
    "resolve",
    "response",
    "retry",
    "route",
    "send",
    "send-back",
    "shutdown",
    "thread",
    "topic",
    "unregister",
];

/// Files whose texts are sentences or foreign words, each with the reason.
const NO_TEXT_RULES: &[(&str, &str)] = &[
    ("error/kind.rs", "sentences of the page of errors"),
    ("mini_broker/broker.rs", "remarks of the Java brokers"),
    ("mini_broker/handlers/", "remarks of the Java brokers"),
    ("mini_broker/settings.rs", "remarks of the Java brokers"),
];

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    assert_none(|file| {
        let mut is_first = true;
        let begins = file.text.lines().enumerate().filter_map(move |(index, line)| {
            let doc = doc_of(line);
            let begins = doc.filter(|_| std::mem::replace(&mut is_first, doc.is_none()));
            begins.map(|doc| (index + 1, doc.to_owned()))
        });
        begins.filter(|(_, doc)| words(doc).next().is_some_and(|word| NO_FIRST_WORDS.contains(&&*word))).collect()
    });
}

#[test]
fn comments_do_not_describe_code_as_a_person() {
    assert_none(|file| {
        let comments = (1..).zip(file.text.lines()).filter_map(|(number, line)| Some((number, comment_of(line)?)));
        let wrong = comments.filter(|(_, comment)| words(comment).any(|word| NO_WORDS.contains(&&*word)));
        wrong.map(|(number, comment)| (number, comment.to_owned())).collect()
    });
}

#[test]
fn texts_are_one_line_without_a_full_stop() {
    assert_none(|file| {
        let is_exempt = NO_TEXT_RULES.iter().any(|(exempt, _)| file.name.starts_with(exempt));
        let texts = literals_of(file).into_iter().filter(|literal| !is_exempt && literal.text.contains(' '));
        let wrong = texts.filter(|literal| literal.text.contains('\n') || literal.text.ends_with('.'));
        wrong.map(|literal| (literal.line, literal.text)).collect()
    });
}

#[test]
fn log_lines_begin_with_a_word_to_search_for() {
    assert_none(|file| {
        let lines = literals_of(file).into_iter().filter(|literal| literal.is_log_line);
        // A line that is one value was written elsewhere.
        let lines = lines.filter(|literal| !(literal.text.starts_with('{') && literal.text.ends_with('}')));
        let wrong =
            lines.filter(|literal| !LOG_PREFIXES.contains(&literal.text.split([' ', ':']).next().unwrap_or_default()));
        wrong.map(|literal| (literal.line, literal.text)).collect()
    });
}

#[test]
fn literals_are_found_in_code() {
    let code = r###"
        // "a comment"
        let quote = ('"', '\'', 'x'); let _: &'static str = "a \"b\"\n";
        warn!(
            "shutdown: {} of \
             {count}", name
        );
        let raw = r"c\n"; let bytes = b"\x01"; r##"d"#"##;
        "###;
    let found = literals(code);
    let found: Vec<_> = found.iter().map(|literal| (literal.line, &*literal.text, literal.is_log_line)).collect();
    let expected = [
        (3, "a \"b\"\n", false),
        (5, "shutdown: {} of {count}", true),
        (8, "c\\n", false),
        (8, "?", false),
        (8, "d\"#", false),
    ];
    assert_eq!(found, expected);
}

/// Fails with every violation that `find` returns for a covered file: its line and its text.
fn assert_none(find: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut wrong = Vec::new();
    for file in &sources() {
        wrong.extend(find(file).into_iter().map(|(line, text)| format!("src/{}:{line}: {text}", file.name)));
    }
    assert!(wrong.is_empty(), "{} violations\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns the words of a text in small letters, without those in backticks.
fn words(text: &str) -> impl Iterator<Item = String> {
    let prose = text.split('`').step_by(2).flat_map(|part| part.split(|letter: char| !letter.is_alphabetic()));
    prose.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn doc_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
}

fn comment_of(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//")
}

/// String literal in a source.
struct Literal {
    line: usize,
    /// Value of the literal; escapes of bytes and code points are `?`.
    text: String,
    /// True if the literal is the first argument of a macro that writes a log line.
    is_log_line: bool,
}

/// Returns the string literals outside of tests and attributes.
fn literals_of(file: &Source) -> Vec<Literal> {
    let lines: Vec<_> = file.text.lines().collect();
    let is_attribute = |literal: &Literal| lines[literal.line - 1].contains("#[");
    let mut found = if is_for_tests(&file.name) { Vec::new() } else { literals(without_tests(&file.text)) };
    found.retain(|literal| !is_attribute(literal));
    found
}

fn is_for_tests(name: &str) -> bool {
    ["checks/", "tests", "simulation/", "hostile.rs", "fixtures.rs"].iter().any(|part| name.contains(part))
}

/// Returns the text up to its first module of tests.
fn without_tests(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\n").map(|(at, mark)| (at, text[at + mark.len()..].lines().next()));
    let mut modules = marks.filter(|(_, next)| next.is_some_and(|next| next.contains("mod ") && next.ends_with('{')));
    modules.next().map_or(text, |(at, _)| &text[..at])
}

fn literals(code: &str) -> Vec<Literal> {
    let (mut found, mut rest) = (Vec::new(), code);
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, from) = rest.split_at(at);
        rest = match from.as_bytes() {
            [b'/', b'/', ..] => from.find('\n').map_or("", |end| &from[end..]),
            [b'\'', b'\\', _, ..] => from[3..].split_once('\'').map_or("", |(_, behind)| behind),
            [b'\'', ..] => skip_character(from),
            [b'"', ..] => {
                let line = code[..code.len() - from.len()].matches('\n').count() + 1;
                let (text, behind) = if is_raw(before) { raw_text(before, from) } else { text_with_escapes(from) };
                found.push(Literal { line, text, is_log_line: ends_with_log_macro(before) });
                behind
            }
            _ => &from[1..],
        };
    }
    found
}

/// Skips a character literal, or the quote of a lifetime.
fn skip_character(from: &str) -> &str {
    let mut letters = from.char_indices().skip(2);
    match letters.next() {
        Some((at, '\'')) => &from[at + 1..],
        _ => &from[1..],
    }
}

fn is_raw(before: &str) -> bool {
    before.trim_end_matches('#').ends_with('r')
}

fn raw_text<'a>(before: &str, from: &'a str) -> (String, &'a str) {
    let hashes = before.len() - before.trim_end_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    from[1..].split_once(&end).map_or_else(Default::default, |(text, behind)| (text.to_owned(), behind))
}

fn text_with_escapes(from: &str) -> (String, &str) {
    let (mut text, mut letters) = (String::new(), from[1..].chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('\n') => letters = letters.as_str().trim_start().chars(),
                Some('x') => {
                    text.push('?');
                    letters.by_ref().nth(1);
                }
                Some('u') => {
                    text.push('?');
                    letters.by_ref().find(|letter| *letter == '}');
                }
                Some(other) => text.push(other),
                None => {}
            },
            letter => text.push(letter),
        }
    }
    (text, letters.as_str())
}

fn ends_with_log_macro(before: &str) -> bool {
    let before = before.trim_end();
    ["error!(", "warn!(", "info!(", "debug!("].iter().any(|log_macro| before.ends_with(log_macro))
}
