//! The kinds of failure, in one table: number, meaning, what is known of the message, and what to do. The type, its
//! documentation and the page `src/errors.md` are made of it.

use std::fmt;

use super::Certainty;

macro_rules! error_kinds {
    ($($name:ident = $number:literal { $meaning:literal, [$($certainty:ident),+], $remedy:literal })+) => {
        /// What kind of failure an [`Error`](crate::Error) tells of.
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

            /// The stable number.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self {
                    $(Self::$name => $number,)+
                }
            }

            /// Name of the kind, as in the source: `ConnectionLost`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The kind in a sentence or two.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)+
                }
            }

            /// What can be known of a message when one attempt to send it fails so. A send that was tried several times
            /// is as uncertain as the least certain of its attempts.
            #[must_use]
            pub const fn certainties(self) -> &'static [Certainty] {
                match self {
                    $(Self::$name => &[$(Certainty::$certainty),+],)+
                }
            }

            /// What to do about it, for whoever operates or writes the program.
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
         reserved. No repetition helps."
    }
    NotRunning = 3 {
        "The producer, consumer or client has been shut down.",
        [NotSent, Unknown],
        "Start a new one. A send that was under way when the client ended may have arrived."
    }
    Forked = 4 {
        "The process was forked after the client was made.",
        [NotSent],
        "Make a new client in the child; the parent's goes on working in the parent."
    }
    DuplicateGroup = 5 {
        "This client has a member of the same kind with the same group already.",
        [NotSent],
        "Share the member that exists, or give the second one a client or a group of its own."
    }
    Resource = 6 {
        "The operating system refused a thread, a socket or random bytes.",
        [NotSent],
        "Raise the process's limits (threads, file descriptors), or look for what uses them up."
    }
    BadSelection = 7 {
        "The queue that a selector chose is not one of those it was offered, or the selector panicked.",
        [NotSent],
        "Correct the selector: it returns an index into the queues that it was given, whose number can change at any time."
    }
    Internal = 8 {
        "A thread of the client has died, by a fault of this library or a panic in code that it was given; the client is \
         broken.",
        [NotSent, Unknown],
        "Start a new client. The log names the thread and the panic: unless it is the program's own (its logger), please \
         report it."
    }
    WrongThread = 9 {
        "A call that waits was made on one of the library's own service threads, where it may wait for itself.",
        [NotSent],
        "Make the call on another thread: hand the work over from a logger, an address map or a resolver that calls back."
    }
    Resolve = 10 {
        "A host name could not be resolved.",
        [NotSent],
        "Check the name and this machine's DNS. Names are resolved anew at each dial, so nothing has to be restarted."
    }
    Connect = 11 {
        "No connection could be made: refused, unreachable, or no answer in time.",
        [NotSent],
        "Is the server at the address up, and does this machine reach it? A broker in a container or behind NAT must hand out \
         an address that clients reach (`brokerIP1` in its configuration), or the client must map it (`address_map`)."
    }
    ConnectionLost = 12 {
        "The connection was lost before the reply came.",
        [NotSent, Unknown],
        "Connections are made anew by themselves. If it happens often: does the server restart, does something between \
         (load balancer, firewall) cut idle connections?"
    }
    Timeout = 13 {
        "The deadline passed before the reply came.",
        [NotSent, Unknown],
        "Look at the attempts for where the time went. Is the server overloaded or its disk slow? Else allow more time \
         (`send_timeout`)."
    }
    WindowFull = 14 {
        "The in-flight window or a connection's outbox is full, and the call could not wait or its deadline passed.",
        [NotSent],
        "Send more slowly, or allow more in flight (`max_in_flight`, `max_in_flight_bytes`). Results in `Completions` count \
         until they are taken."
    }
    NoRoute = 20 {
        "The name servers know no route of the topic.",
        [NotSent],
        "Create the topic (`mqadmin updateTopic`), or check its name and that these are the right cluster's name servers. A \
         broker that has just started registers within seconds."
    }
    NameServer = 21 {
        "No name server gave an answer.",
        [NotSent],
        "Are these addresses of name servers (usually port 9876; not of brokers, 10911, nor of a proxy, 8081), are they \
         running, and does this machine reach them?"
    }
    NoBroker = 22 {
        "The topic's route has no broker, or no queue, that could be used.",
        [NotSent],
        "Is a master of one of the topic's brokers up, and may the topic be written (`perm` in `mqadmin topicRoute`)? For a \
         given queue: does it still exist?"
    }
    Broker = 30 {
        "The broker refused the request; `broker_code` and `remark` say why.",
        [NotSent, Unknown],
        "Go by the code and the remark; the table below tells which codes may pass by themselves."
    }
    Permission = 31 {
        "The broker or name server refused for lack of permission or for wrong credentials.",
        [NotSent],
        "May the topic and the broker be written or read (`perm` in `mqadmin topicRoute`)? Does the cluster ask for \
         credentials (ACL)?"
    }
    Protocol = 32 {
        "A peer's answer could not be understood.",
        [NotSent, Unknown, Stored],
        "Is it a RocketMQ server that speaks Remoting at that address and port? If it is, this is a bug: please report it \
         with the text and the server's version."
    }
    FrameTooLong = 33 {
        "A peer's answer is longer than this client accepts. It was passed over; other requests are not affected.",
        [Unknown],
        "Raise `max_frame_length` above the largest message of the topic and what surrounds it."
    }
}
