//! Ready-made choices of a queue.

use crate::message::{Message, MessageQueue};
use crate::wire::java_hash::java_string_hash;

/// Chooses a queue by a key: messages with the same key go to the same queue while the topic's queues stay the same.
///
/// The key's hash is that of the Java client (`SelectMessageQueueByHash` with a `String`), so that programs in both
/// languages choose alike.
///
/// ```no_run
/// # use rocketmq_sync::{by_hash, Message, Producer};
/// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
/// producer.send_with(&Message::new("Orders", "paid"), by_hash("order-42"))?;
/// # Ok(())
/// # }
/// ```
pub fn by_hash(key: impl AsRef<str>) -> impl FnOnce(&[MessageQueue], &Message) -> usize {
    let hash = java_string_hash(key.as_ref());
    move |queues, _| index_of_hash(hash, queues.len())
}

/// The remainder, without its sign; an index of no queue when there is none.
pub(crate) fn index_of_hash(hash: i32, count: usize) -> usize {
    let magnitude = usize::try_from(hash.unsigned_abs()).unwrap_or(usize::MAX);
    magnitude.checked_rem(count).unwrap_or(usize::MAX)
}
