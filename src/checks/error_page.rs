//! Generates `src/errors.md`, the part of the documentation that lists every failure, from the code.
//!
//! A test compares the file with the code; `WRITE_ERROR_PAGE=1 cargo test --lib error_page` writes it anew. Tests only.

use std::fmt::Write;
use std::fs;

use crate::error::{Certainty, Error, ErrorKind};
use crate::producer::{RetryCodes, SendStatus};
use crate::wire::ResponseCode;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/errors.md");

/// Remark with which `SYSTEM_ERROR` of a 4.x broker means wrong credentials.
const WRONG_CREDENTIALS: &str = "org.apache.rocketmq.acl.common.AclException: …";

#[test]
fn the_page_of_errors_says_what_the_code_does() {
    let page = page();
    if std::env::var_os("WRITE_ERROR_PAGE").is_some() {
        fs::write(FILE, &page).unwrap();
    }
    let stored = fs::read_to_string(FILE).unwrap();
    let difference = page.lines().zip(stored.lines()).find(|(wanted, found)| wanted != found);
    assert!(page == stored, "{FILE} is stale, regenerate it with WRITE_ERROR_PAGE=1; first difference: {difference:?}");
}

#[test]
fn every_kind_of_error_has_an_entry_of_its_own() {
    for (index, kind) in ErrorKind::ALL.iter().enumerate() {
        for text in [kind.meaning(), kind.remedy()] {
            assert!(text.ends_with(['.', '?']) && !text.contains("  "), "{kind:?}: {text}");
        }
        let others = &ErrorKind::ALL[..index];
        assert!(others.iter().all(|other| other.code() < kind.code() && other.meaning() != kind.meaning()), "{kind:?}");
        let certainties = kind.certainties();
        assert!(certainties.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}: {certainties:?}");
        assert_eq!(*kind as i32, kind.code());
    }
}

#[test]
fn a_refusal_is_as_certain_as_the_entry_of_its_kind_says() {
    for code in refusals() {
        for remark in [None, Some(WRONG_CREDENTIALS)] {
            let error = Error::refused(code, remark, "127.0.0.1:10911");
            assert!(error.kind().certainties().contains(&error.certainty()), "{error:?}");
        }
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         *Generated from the code by a test, `src/checks/error_page.rs`.*\n\n\
         `Error::kind` is the kind of failure. `Error::certainty` states if the message may be stored in spite of the \
         failure. `Error::attempts` lists the attempts of a send with their brokers. `Error::broker_code` and \
         `Error::remark` are the server's code and text. A send is as uncertain as the least certain of its attempts. \
         Sending a message again that may be stored can store it twice.\n",
    );
    for kind in ErrorKind::ALL {
        kind_entry(&mut page, *kind).unwrap();
    }
    code_table(&mut page).unwrap();
    page
}

fn kind_entry(page: &mut String, kind: ErrorKind) -> std::fmt::Result {
    writeln!(page, "\n## {kind:?} ({})\n\n{}\n", kind.code(), kind.meaning())?;
    let certainties: Vec<_> = kind.certainties().iter().map(|certainty| in_words(*certainty)).collect();
    writeln!(page, "* **The message** {}.", certainties.join(", or "))?;
    let again = match (kind, Error::new(kind, "").is_retryable()) {
        (ErrorKind::Broker, _) => "may succeed later after some of the codes, see below",
        (_, true) => "may succeed later",
        (_, false) => "fails again until its cause is removed",
    };
    writeln!(page, "* **The same call** {again}.")?;
    writeln!(page, "* **What to do:** {}", kind.remedy())?;
    match codes_of(kind) {
        Some(codes) => writeln!(page, "* **Response codes:** {codes}."),
        None => Ok(()),
    }
}

fn in_words(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::NotSent => "is not stored (`NotSent`)",
        Certainty::Unknown => "may be stored (`Unknown`): it was sent, and the outcome is unknown",
        Certainty::Stored => "is stored (`Stored`); only the response cannot be decoded",
    }
}

/// Returns the response codes that lead to an error of this kind; `None` for errors that arise in the client.
fn codes_of(kind: ErrorKind) -> Option<String> {
    match kind {
        ErrorKind::NoRoute => Some(format!("`{}` of every name server that responds", ResponseCode::TOPIC_NOT_EXIST)),
        ErrorKind::Broker => Some("all except those of the other kinds, see below".to_owned()),
        _ => {
            let leads_to = |remark| move |code: &ResponseCode| Error::refused(*code, remark, "").kind() == kind;
            let plain = refusals().filter(leads_to(None)).map(|code| format!("`{code}`"));
            let by_remark = refusals().filter(leads_to(Some(WRONG_CREDENTIALS))).filter(|code| !leads_to(None)(code));
            let by_remark = by_remark.map(|code| format!("`{code}` of a 4.x broker that names an `AclException`"));
            let codes: Vec<_> = plain.chain(by_remark).collect();
            (!codes.is_empty()).then(|| codes.join(", "))
        }
    }
}

fn code_table(page: &mut String) -> std::fmt::Result {
    writeln!(
        page,
        "\n## Response codes\n\n\
         After a code marked in the last column, a send is retried at another broker, within its deadline and its maximum \
         of attempts (`retry_codes` changes the marks). A send to one queue has no other broker; it is retried only while \
         the message cannot have been stored.\n\n\
         | code | kind | the message | the same call | retry at another broker |\n|---|---|---|---|---|"
    )?;
    let (special, plain): (Vec<_>, Vec<_>) = refusals().partition(|code| row(*code) != row(ResponseCode(-1)));
    for code in special {
        writeln!(page, "| `{code}` | {}", row(code))?;
    }
    writeln!(page, "| all others | {}", row(ResponseCode(-1)))?;
    writeln!(
        page,
        "\n\"All others\" are codes without a name and: {}.\n\n\
         {} are not errors but a `SendStatus`: the message *is* stored, but may not be flushed or replicated as the \
         broker is configured.",
        listed(plain),
        listed(successes())
    )
}

/// Returns the cells of a code's row.
fn row(code: ResponseCode) -> String {
    let error = Error::refused(code, None, "");
    let again = if error.is_retryable() { "may succeed later" } else { "fails again" };
    let elsewhere = if RetryCodes::default().contains(code) { "yes" } else { "no" };
    format!("`{:?}` | `{:?}` | {again} | {elsewhere} |", error.kind(), error.certainty())
}

fn listed(codes: impl IntoIterator<Item = ResponseCode>) -> String {
    codes.into_iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")
}

fn refusals() -> impl Iterator<Item = ResponseCode> {
    ResponseCode::ALL.iter().copied().filter(|code| SendStatus::of(*code).is_none())
}

/// Codes of a successful send other than `SUCCESS`.
fn successes() -> impl Iterator<Item = ResponseCode> {
    let stored = |code: &ResponseCode| SendStatus::of(*code).is_some() && *code != ResponseCode::SUCCESS;
    ResponseCode::ALL.iter().copied().filter(stored)
}
