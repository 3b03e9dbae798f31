//! Kinds of failure in one table: number, meaning, certainty about the message, and remedy. The type, its documentation
//! and the page `src/errors.md` are generated from it.

use std::fmt;

use super::Certainty;

macro_rules! error_kinds {
    ($($name:ident = $number:literal { $meaning:literal, [$($certainty:ident),+], $remedy:literal })+) => {
        /// Kind of failure of an [`Error`](crate::Error).
        ///
        /// The numbers are stable: the C interface uses the same ones.
        ///
        #[doc = include_str!("../errors.md")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $(
                #[doc = $meaning]
                #[doc = ""]
                #[doc = $remedy]
                $name = $number,
            )+
        }

        impl ErrorKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the stable number.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self {
                    $(Self::$name => $number,)+
                }
            }

            /// Returns the name of the kind, as in the source: `ConnectionLost`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Returns a description of the kind, in one or two sentences.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)+
                }
            }

            /// Returns the possible certainties about a message after one failed attempt of this kind. A send with
            /// several attempts is as uncertain as the least certain of them.
            #[must_use]
            pub const fn certainties(self) -> &'static [Certainty] {
                match self {
                    $(Self::$name => &[$(Certainty::$certainty),+],)+
                }
            }

            /// Returns a remedy, for the operator or the developer of the program.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

error_kinds! {
    InvalidConfig = 1 {
        "An option of a builder is missing or out of its range. Nothing was started; the text names the option.",
        [NotSent],
        "Correct the option that the text names."
    }
    InvalidMessage = 2 {
        "A message or an argument breaks a rule that is checked before anything is sent.",
        [NotSent],
        "Correct what the text names: the topic's name, an empty or too large body, properties that are too long or \
         reserved. A retry fails again."
    }
    NotRunning = 3 {
        "The producer, consumer or client has been shut down.",
        [NotSent, Unknown],
        "Start a new one. A send that was in flight when the client shut down may have arrived."
    }
    Forked = 4 {
        "The process was forked after the client was made.",
        [NotSent],
        "Create a new client in the child; the parent's client continues to work in the parent."
    }
    DuplicateGroup = 5 {
        "This client has a member of the same kind with the same group already.",
        [NotSent],
        "Share the existing member, or give the second one its own client or group."
    }
    Resource = 6 {
        "The operating system refused a thread, a socket or random bytes.",
        [NotSent],
        "Raise the process's limits (threads, file descriptors), or find the cause of the usage."
    }
    BadSelection = 7 {
        "The queue selector returned an index outside of the queues it was given, or it panicked.",
        [NotSent],
        "Correct the selector: it must return an index into the given queues, whose number can change at any time."
    }
    Internal = 8 {
        "A thread of the client has died, because of a bug in this library or a panic in user code; the client is broken.",
        [NotSent, Unknown],
        "Start a new client. The log names the thread and the panic. Unless the program's own code panicked (its logger), \
         please report it."
    }
    WrongThread = 9 {
        "A blocking call was made on one of the library's own service threads, where it could wait for itself.",
        [NotSent],
        "Make the call on another thread. A logger, an address map or a resolver must hand such work over."
    }
    Resolve = 10 {
        "A host name could not be resolved.",
        [NotSent],
        "Check the name and this machine's DNS. Names are resolved again at each connect, so no restart is needed."
    }
    Connect = 11 {
        "No connection could be established: refused, unreachable, or timed out.",
        [NotSent],
        "Check that the server is running and reachable from this machine. A broker in a container or behind NAT must \
         register an address that clients can reach (`brokerIP1` in its configuration), or the client must map it \
         (`address_map`)."
    }
    ConnectionLost = 12 {
        "The connection was lost before the response arrived.",
        [NotSent, Unknown],
        "The client reconnects by itself. If it happens often, check for restarts of the server, and for a load balancer or \
         firewall that closes idle connections."
    }
    Timeout = 13 {
        "The deadline passed before the response arrived.",
        [NotSent, Unknown],
        "The attempts show where the time was spent. Check the server for overload or a slow disk, or raise the timeout \
         (`send_timeout`)."
    }
    WindowFull = 14 {
        "The in-flight window or a connection's outbox is full, and the call could not wait or its deadline passed.",
        [NotSent],
        "Send more slowly, or raise the limits (`max_in_flight`, `max_in_flight_bytes`). Results in `Completions` count \
         until they are taken."
    }
    NoRoute = 20 {
        "The name servers have no route for the topic.",
        [NotSent],
        "Create the topic (`mqadmin updateTopic`), or check its name and that the name servers belong to the right cluster. \
         A broker that has just started registers within seconds."
    }
    NameServer = 21 {
        "No name server responded.",
        [NotSent],
        "Check that the addresses are those of name servers (usually port 9876; brokers use 10911, a proxy 8081), that they \
         are running, and that this machine can reach them."
    }
    NoBroker = 22 {
        "The topic's route has no usable broker or no usable queue.",
        [NotSent],
        "Check that a master of the topic's brokers is running and that the topic is writable (`perm` in `mqadmin \
         topicRoute`). For a given queue, check that it still exists."
    }
    Broker = 30 {
        "The broker refused the request; `broker_code` and `remark` contain the reason.",
        [NotSent, Unknown],
        "Check the code and the remark; the table below marks the codes after which a retry may succeed."
    }
    Permission = 31 {
        "The broker or name server refused the request because of missing permission or wrong credentials.",
        [NotSent],
        "Check that the topic and the broker are readable or writable (`perm` in `mqadmin topicRoute`), and if the cluster \
         requires credentials (ACL)."
    }
    Protocol = 32 {
        "A server's response could not be decoded.",
        [NotSent, Unknown, Stored],
        "Check that a RocketMQ server with the Remoting protocol listens at that address and port. If so, this is a bug: \
         please report it with the text and the server's version."
    }
    FrameTooLong = 33 {
        "A server's response is longer than this client accepts. It was skipped; other requests are not affected.",
        [Unknown],
        "Raise `max_frame_length` above the size of the topic's largest message plus its header."
    }
}
