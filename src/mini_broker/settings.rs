//! Settings of a mini broker, and the release that it imitates.

use std::time::Duration;

use crate::wire::ResponseCode;

/// Release that a mini broker imitates where releases differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// Apache RocketMQ 4.9.7.
    V4_9_7,
    /// Apache RocketMQ 5.5.0.
    #[default]
    V5_5_0,
}

impl Release {
    /// Protocol version of its frames.
    pub(super) fn protocol_version(self) -> i32 {
        match self {
            Self::V4_9_7 => 407,
            Self::V5_5_0 => 513,
        }
    }

    pub(super) fn is_v5(self) -> bool {
        self == Self::V5_5_0
    }

    /// Response code for an invalid topic or queue.
    pub(super) fn invalid_parameter(self) -> ResponseCode {
        match self {
            Self::V4_9_7 => ResponseCode::SYSTEM_ERROR,
            Self::V5_5_0 => ResponseCode::INVALID_PARAMETER,
        }
    }

    /// Second line of many remarks, with the address of a page of answers.
    pub(super) fn see_also(self) -> &'static str {
        match self {
            Self::V4_9_7 => "\nSee http://rocketmq.apache.org/docs/faq/ for further details.",
            Self::V5_5_0 => "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.",
        }
    }
}

/// Settings that all servers of one mini broker share.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) release: Release,
    pub(super) cluster: String,
    pub(super) auto_create_topics: bool,
    pub(super) auto_create_groups: bool,
    pub(super) default_queues: i32,
    pub(super) max_message_size: usize,
    /// True to encode routes in fastjson's own dialect, regardless of the client's request.
    pub(super) raw_route_json: bool,
    pub(super) delay_levels: Vec<Duration>,
    /// Interval at which offsets are persisted; `None` for at once.
    pub(super) offset_write_interval: Option<Duration>,
}
