//! Messages of a reply to a pull whose stored offset is none of those that were asked for.
//!
//! A broker answers with what stands in its queue from the asked offset to the next one. If a message claims an offset
//! outside of that, or one that another message has, its own count is wrong, not its place: to go by the claim would
//! pass it over, since the next pull begins behind it. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::message::MessageExt;

/// Outcome for the messages with other offsets than those asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strays {
    asked: Range<i64>,
    /// The first such offset.
    first: i64,
    /// Messages that take the place of an offset of which no message came.
    placed: usize,
    /// Messages that came though each offset that was asked for has its own message.
    left_out: usize,
}

impl fmt::Display for Strays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked: Range { start, end }, first, placed, left_out } = self;
        let count = placed + left_out;
        write!(f, "{count} messages have offsets outside of {start}..{end} or in wrong order, the first {first}; ")?;
        write!(f, "{placed} of them are delivered in the place of missing ones")?;
        if *left_out > 0 {
            write!(f, ", {left_out} are left out since no offset lacks a message")?;
        }
        Ok(())
    }
}

/// Brings the messages of one reply into the order of their offsets, each of which is one of those asked for. `None`
/// when that was so already.
pub(crate) fn settle(messages: &mut Vec<MessageExt>, asked: Range<i64>) -> Option<Strays> {
    if are_in_order(messages, &asked) {
        return None;
    }
    let mut taken = BTreeSet::new();
    let (mut kept, mut strays) = (Vec::with_capacity(messages.len()), Vec::new());
    for message in messages.drain(..) {
        let fits = asked.contains(&message.queue_offset) && taken.insert(message.queue_offset);
        if fits { kept.push(message) } else { strays.push(message) }
    }
    let (count, first) = (strays.len(), strays.first().map_or(asked.start, |message| message.queue_offset));
    let free = asked.clone().filter(|offset| !taken.contains(offset));
    let placed: Vec<_> =
        free.zip(strays).map(|(queue_offset, message)| MessageExt { queue_offset, ..message }).collect();
    let outcome = Strays { first, placed: placed.len(), left_out: count - placed.len(), asked };
    messages.append(&mut kept);
    messages.extend(placed);
    messages.sort_by_key(|message| message.queue_offset);
    (count > 0).then_some(outcome)
}

fn are_in_order(messages: &[MessageExt], asked: &Range<i64>) -> bool {
    let mut expected = asked.start;
    messages.iter().all(|message| {
        let fits = (expected..asked.end).contains(&message.queue_offset);
        expected = message.queue_offset.saturating_add(1);
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::fixtures::received;
    use crate::message::MessageQueue;

    /// The commit log offset distinguishes messages with equal queue offsets.
    fn settled(offsets: &[i64], asked: Range<i64>) -> (Vec<(i64, i64)>, Option<String>) {
        let queue = MessageQueue::new("T", "b", 0);
        let of = |(place, offset): (i64, &i64)| MessageExt {
            queue_offset: *offset,
            commit_log_offset: place,
            ..received(&queue, 0, b"")
        };
        let mut messages: Vec<_> = (0..).zip(offsets).map(of).collect();
        let strays = settle(&mut messages, asked);
        let found = messages.iter().map(|message| (message.queue_offset, message.commit_log_offset)).collect();
        (found, strays.map(|strays| strays.to_string()))
    }

    #[test]
    fn messages_as_they_were_asked_for_stay_as_they_are() {
        for offsets in [&[][..], &[5], &[5, 6, 7], &[6, 8]] {
            let (found, strays) = settled(offsets, 5..9);
            assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), offsets);
            assert_eq!(strays, None);
        }
    }

    #[test]
    fn a_message_with_another_offset_takes_the_place_of_the_one_that_is_missing() {
        for other in [i64::MIN, -1, 4, 8, 1000, i64::MAX] {
            let (found, strays) = settled(&[5, other, 7], 5..8);
            assert_eq!(found, [(5, 0), (6, 1), (7, 2)], "{other}");
            let strays = strays.unwrap();
            assert!(strays.contains(&format!("outside of 5..8 or in wrong order, the first {other}")), "{strays}");
        }
        assert_eq!(settled(&[5, 5, 7], 5..8).0, [(5, 0), (6, 1), (7, 2)]);
        assert_eq!(settled(&[1005, 1006, 1007], 5..8).0, [(5, 0), (6, 1), (7, 2)]);
        assert_eq!(settled(&[i64::MAX, 0], 5..i64::MAX).0, [(5, 0), (6, 1)]);
    }

    #[test]
    fn messages_in_another_order_are_sorted_and_none_is_a_stray() {
        assert_eq!(settled(&[7, 5, 6], 5..8), (vec![(5, 1), (6, 2), (7, 0)], None));
    }

    #[test]
    fn where_no_message_is_missing_those_that_come_besides_are_left_out() {
        // A batch that is stored as one message comes whole, with those before the offset that was asked for.
        let (found, strays) = settled(&[3, 4, 5, 6], 5..7);
        assert_eq!(found, [(5, 2), (6, 3)]);
        assert!(strays.unwrap().contains("2 are left out"));
    }
}
