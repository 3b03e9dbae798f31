//! Options of a producer: the builder, the defaults, and the checks at start.

use std::sync::Arc;
use std::time::Duration;

use crate::client::config::{ClientConfig, client_options, invalid};
use crate::client::ending::Ending;
use crate::client::{Client, ClientChoice};
use crate::error::Result;
use crate::producer::Producer;
use crate::producer::member::ProducerMember;
use crate::producer::send::MessageSender;
use crate::producer::send::attempts::RetryCodes;
use crate::producer::send::outgoing::BodyRules;
use crate::producer::send::window::SendWindow;
use crate::wire::name::{DEFAULT_PRODUCER_GROUP, check_group};
use crate::wire::stored::compression::{Codec, DEFAULT_LEVEL};

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) send_timeout: Duration,
    pub(super) retries: u32,
    pub(super) retry_codes: RetryCodes,
    pub(super) body: BodyRules,
    pub(super) max_in_flight: usize,
    pub(super) max_in_flight_bytes: usize,
    pub(super) fail_when_full: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_timeout: Duration::from_secs(3),
            retries: 2,
            retry_codes: RetryCodes::default(),
            body: BodyRules {
                max_message_size: 4 * 1024 * 1024,
                compress_threshold: 4096,
                codec: Codec::Zlib.is_built().then_some(Codec::Zlib),
                compression_level: DEFAULT_LEVEL,
            },
            max_in_flight: 10_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            fail_when_full: false,
        }
    }
}

/// Options of a [`Producer`], checked by [`ProducerBuilder::start`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerBuilder {
    pub(super) group: String,
    pub(super) client: ClientChoice,
    pub(super) options: Options,
}

impl ProducerBuilder {
    client_options!(client_config);

    fn client_config(&mut self) -> &mut ClientConfig {
        self.client.own()
    }

    /// Uses a client that exists, and its connections, instead of one of its own. Not together with options of a
    /// client.
    pub fn client(mut self, client: &Client) -> Self {
        self.client.give(client);
        self
    }

    /// Time limit of a whole send: route, connections and all attempts. Default 3 s. (Java: `sendMsgTimeout`)
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.send_timeout = timeout;
        self
    }

    /// Number of further attempts after the first, on another broker if there is one. Default 2. (Java:
    /// `retryTimesWhenSendFailed`, `retryTimesWhenSendAsyncFailed`)
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Broker codes after which a send is tried again. Default: [`RetryCodes::default`]. (Java: `retryResponseCodes`)
    ///
    /// With `FLUSH_DISK_TIMEOUT`, `FLUSH_SLAVE_TIMEOUT` or `SLAVE_NOT_AVAILABLE` among them, a message that is stored with
    /// a degraded status is sent again too, under the same id, and is then stored twice. When no attempt does better, the
    /// send ends with the result of the degraded one. (Java: `retryAnotherBrokerWhenNotStoreOK`)
    pub fn retry_codes(mut self, codes: RetryCodes) -> Self {
        self.options.retry_codes = codes;
        self
    }

    /// The largest body that is sent, in bytes before compression. Default 4 MiB, which is the brokers' default too.
    /// (Java: `maxMessageSize`)
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.options.body.max_message_size = bytes;
        self
    }

    /// Bodies of at least this many bytes are compressed, and sent so when they become smaller. Default 4096. (Java:
    /// `compressMsgBodyOverHowmuch`)
    pub fn compress_threshold(mut self, bytes: usize) -> Self {
        self.options.body.compress_threshold = bytes;
        self
    }

    /// Codec for bodies; `None` for no compression. Default zlib, which consumers of every version read. (Java:
    /// `compressType`)
    pub fn compression(mut self, codec: Option<Codec>) -> Self {
        self.options.body.codec = codec;
        self
    }

    /// Effort of zlib, from 0 to 9. Default 5. (Java: `compressLevel`)
    pub fn compression_level(mut self, level: u32) -> Self {
        self.options.body.compression_level = level;
        self
    }

    /// Messages that may be in flight by asynchronous sends. Default 10,000. (Java 5: `backPressureForAsyncSendNum`)
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.options.max_in_flight = messages;
        self
    }

    /// Bytes of them. Default 64 MiB. (Java 5: `backPressureForAsyncSendSize`)
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.options.max_in_flight_bytes = bytes;
        self
    }

    /// Makes an asynchronous send fail at once when the window is full, instead of waiting for room until its deadline.
    /// Default false.
    pub fn fail_when_full(mut self, fail: bool) -> Self {
        self.options.fail_when_full = fail;
        self
    }

    /// Starts the producer.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) with the name of the option that is wrong,
    /// [`DuplicateGroup`](crate::ErrorKind::DuplicateGroup) if the client has a producer of this group already,
    /// [`Resource`](crate::ErrorKind::Resource) if the system refuses a thread. Nothing is left behind then.
    pub fn start(self) -> Result<Producer> {
        check_group(&self.group)
            .map_err(|error| invalid(format!("invalid producer group {:?}: {error}", self.group)))?;
        if self.group == DEFAULT_PRODUCER_GROUP {
            return Err(invalid(format!(
                "invalid producer group \"{DEFAULT_PRODUCER_GROUP}\": reserved (the Java client's default); use your own name"
            )));
        }
        self.options.check()?;
        let client = self.client.take()?;
        let options = self.options;
        let group: Arc<str> = Arc::from(self.group);
        let core = Arc::clone(client.core());
        let id = core.new_member_id();
        let sender = MessageSender::new(core, Arc::clone(&group), options.retries, options.retry_codes.clone());
        let sender = Arc::new(sender);
        let member = Arc::new(ProducerMember { id, group, sender: Arc::clone(&sender) });
        client.core().join(Arc::clone(&member) as _)?;
        let window = SendWindow::new(options.max_in_flight, options.max_in_flight_bytes);
        let calls = SendWindow::new(usize::MAX, usize::MAX);
        Ok(Producer { client, sender, member, ending: Ending::new(), options, window, calls })
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.send_timeout < Duration::from_millis(1) {
            return Err(invalid(format!("invalid send_timeout {:?}: must be at least 1 ms", self.send_timeout)));
        }
        if self.retries > 100 {
            return Err(invalid(format!("invalid retries {}: must be in 0..=100", self.retries)));
        }
        if self.max_in_flight == 0 || self.max_in_flight_bytes == 0 {
            return Err(invalid("invalid max_in_flight or max_in_flight_bytes: must not be 0"));
        }
        if self.body.max_message_size == 0 || self.body.max_message_size > MAX_BODY {
            let size = self.body.max_message_size;
            return Err(invalid(format!("invalid max_message_size {size}: must be in 1..={MAX_BODY}")));
        }
        if let Some(codec) = self.body.codec.filter(|codec| !codec.is_built()) {
            return Err(invalid(format!(
                "invalid compression {}: needs the crate's feature of that name",
                codec.name()
            )));
        }
        if self.body.compression_level > 9 {
            return Err(invalid(format!(
                "invalid compression_level {}: must be in 0..=9",
                self.body.compression_level
            )));
        }
        Ok(())
    }
}

/// A frame with its headers and properties stays below what peers accept.
const MAX_BODY: usize = crate::wire::MAX_FRAME_LENGTH - 64 * 1024;
