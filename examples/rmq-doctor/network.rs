//! Checks of the hops from here to one server: its name, its port, its answer.
//!
//! Names and ports are tested with the system's own calls, step by step, so that each failure is located. The answer is
//! requested through the library, as programs do.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rocketmq_sync::unversioned::wire::{HeaderFields, RemotingCommand, RequestCode};
use rocketmq_sync::{Client, Error, ErrorKind, Resolve, SystemResolver};

use crate::report::Report;

pub(crate) struct Network {
    pub(crate) client: Client,
    timeout: Duration,
}

/// Role of the server at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    NameServer,
    Broker,
}

impl Network {
    pub(crate) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Checks the hops to a server. Returns its answer to `question` if it is reached.
    pub(crate) fn reach(
        &self,
        report: &mut Report,
        role: Role,
        address: &str,
        question: RequestCode,
    ) -> Option<RemotingCommand> {
        let addresses = self.resolve(address).map_err(|error| {
            let what = format!("{address} has no address: {error}");
            report.fail("name", what, "Check the spelling, HOST:PORT, and this machine's DNS or /etc/hosts.");
        });
        let addresses = addresses.ok()?;
        // An IP address needs no line about its resolution.
        if address.parse::<SocketAddr>().is_err() {
            report.ok("name", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        }
        self.connect(report, role, address, &addresses)?;
        match self.ask(address, question, &()) {
            Ok(answer) => Some(answer),
            Err(error) => {
                report.fail("answer", without_address(&error, address), no_answer(role, &error));
                None
            }
        }
    }

    pub(crate) fn ask(
        &self,
        address: &str,
        code: RequestCode,
        header: &dyn HeaderFields,
    ) -> Result<RemotingCommand, Error> {
        self.client.request(address, &RemotingCommand::request(code, header), self.timeout)
    }

    /// Resolves a name in a thread, which is detached if it takes too long: the system's resolver cannot be cancelled.
    fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (tell, told) = channel();
        let asked = address.to_owned();
        thread::Builder::new().spawn(move || tell.send(SystemResolver.resolve(&asked)))?;
        let addresses = told.recv_timeout(self.timeout).map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer of the resolver within {:?}", self.timeout))
        })??;
        if addresses.is_empty() { Err(io::Error::other("the name has none")) } else { Ok(addresses) }
    }

    /// True if one of the addresses accepts connections, as the library requires.
    fn connect(&self, report: &mut Report, role: Role, address: &str, addresses: &[SocketAddr]) -> Option<()> {
        let begun = Instant::now();
        let tried = addresses.iter().map(|one| (one, TcpStream::connect_timeout(one, self.timeout)));
        let mut failed = Vec::new();
        for (one, outcome) in tried {
            match outcome {
                Ok(_) => {
                    report.ok("port", format!("{one} accepts, after {:.1?}", begun.elapsed()));
                    if let Some((other, error)) = failed.first() {
                        let what =
                            format!("{other} of the same name does not accept: {}", in_words(error, self.timeout));
                        report.warn("port", what, "Take the address out of the name's record, or start its server.");
                    }
                    return Some(());
                }
                Err(error) => failed.push((one, error)),
            }
        }
        let (one, error) = failed.first()?;
        report.fail("port", format!("{one}: {}", in_words(error, self.timeout)), no_port(role, address, one, error));
        None
    }
}

fn in_words(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => format!("no answer to a connect within {timeout:?}"),
        _ => error.to_string(),
    }
}

fn no_port(role: Role, address: &str, one: &SocketAddr, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "The host is there, and nothing listens on that port (or a firewall rejects it)."
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "Packets get lost: the host is down, the address belongs to a network that this machine is not in, or a \
             firewall drops them."
        }
        _ => "This machine has no way to that address.",
    };
    match role {
        Role::NameServer => {
            format!("{reason} Start the name server there (usually port 9876), or correct the address.")
        }
        Role::Broker if one.ip().is_loopback() => format!(
            "{reason} The broker told the name server a loopback address, which every client looks for on its own machine: set \
             brokerIP1 in the broker's configuration to an address that clients reach."
        ),
        Role::Broker => format!(
            "{reason} {address} is what the broker told the name server. If clients reach it otherwise (container, NAT, \
             port-forward), set brokerIP1 in the broker's configuration, or give the client an address_map."
        ),
    }
}

fn no_answer(role: Role, error: &Error) -> String {
    let ports = match role {
        Role::NameServer => "a name server (usually port 9876; not a broker, 10911, nor a proxy, 8081)",
        Role::Broker => "a broker",
    };
    match error.kind() {
        ErrorKind::Timeout => format!(
            "Something accepts connections there and stays silent. Is it {ports}? If it is, it hangs: look at its log and \
             for a full disk or long garbage collections."
        ),
        ErrorKind::ConnectionLost => {
            format!(
                "The server there closes the connection. Is it {ports}, and does it accept connections without TLS?"
            )
        }
        ErrorKind::Protocol => format!("The server there uses another protocol. Is it {ports}?"),
        kind => kind.remedy().to_owned(),
    }
}

fn without_address(error: &Error, address: &str) -> String {
    error.to_string().replace(&format!(" ({address})"), "")
}
