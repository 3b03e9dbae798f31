//! Requests encoded as by a client, for a floor that replaces the candidate (`--self-check`).

use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, RemotingCommand, RequestCode};

use super::figure::Work;
use super::{BODY_SIZE, BROKER_NAME, GROUP, Result, TOPIC};

/// Returns the request that `work` repeats.
pub(crate) fn of(work: Work) -> Result<Vec<u8>> {
    match work {
        Work::Sync { .. } | Work::Async(_) => encode(&send()),
        Work::Oneway => encode(&send().oneway()),
        Work::Consume { .. } => encode(&pull()),
    }
}

/// Send of [`BODY_SIZE`] bytes, with the fields that every client sets.
fn send() -> RemotingCommand {
    let fields = [
        ("a", GROUP),
        ("b", TOPIC),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1760000000000"),
        ("h", "0"),
        ("i", "UNIQ_KEY\u{1}7F0000010F3A18B4AAC20A1B2C3D0001\u{2}WAIT\u{1}true\u{2}"),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
        ("n", BROKER_NAME),
    ];
    request(RequestCode::SEND_MESSAGE_V2, &fields).with_body(vec![b'x'; BODY_SIZE])
}

/// Pull that would wait for messages and carries no commit.
fn pull() -> RemotingCommand {
    let fields = [
        ("consumerGroup", GROUP),
        ("topic", TOPIC),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "2"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subVersion", "1760000000000"),
        ("expressionType", "TAG"),
        ("bname", BROKER_NAME),
    ];
    request(RequestCode::PULL_MESSAGE, &fields)
}

fn request(code: RequestCode, fields: &[(&str, &str)]) -> RemotingCommand {
    let mut header = ExtFields::new();
    for (key, value) in fields {
        header.text(key, value);
    }
    RemotingCommand::request(code, &header)
}

fn encode(request: &RemotingCommand) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes)?;
    Ok(bytes.to_vec())
}
